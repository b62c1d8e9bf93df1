"""Every network once more, in float64 numpy and scipy: what the modules under test are compared with.

Nothing here knows of `torch.nn` or of the project's modules; a network is a function of the spec, a dictionary of
weights under PtychoPINN's own key names, and the input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from ptycho_torch.spec import ModelSpec

Array = NDArray[np.float64]
Weights = Mapping[str, NDArray[np.generic]]


def reference(spec: ModelSpec, weights: Weights, x: Array) -> tuple[Array, Array]:
    """Return the network's two outputs for `x` (B, in_channels, N, N)."""
    if spec.generator in ("cnn", "unet"):
        return _convolutional(spec, weights, x)
    if spec.generator == "neuralop_uno":
        y = _uno(weights, x)
        return y[:, :1], y[:, 1:]
    return _spectral(spec, weights, x)


# Layers


def conv(x: Array, w: Array, b: Array | None = None) -> Array:
    """Correlate (B, in, n, n) with (out, in, k, k), zero padding of k//2."""
    k, n = w.shape[2], x.shape[2]
    p = k // 2
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    y = sum(
        np.einsum("oi,bihw->bohw", w[:, :, i, j], padded[:, :, i : i + n, j : j + n], optimize=True)
        for i in range(k)
        for j in range(k)
    )
    return y if b is None else y + b[:, None, None]


def named_conv(x: Array, p: Weights, name: str) -> Array:
    return conv(x, p[name + ".weight"], p.get(name + ".bias"))


def batch_norm(x: Array, p: Weights, name: str) -> Array:
    """Normalise by running statistics where the state_dict has any under `name`."""
    if name + ".weight" not in p:
        return x
    mean, var, w, b = (p[f"{name}.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / np.sqrt(var + 1e-5) * w + b


def relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


def silu(x: Array) -> Array:
    return x * expit(x)


def gelu(x: Array) -> Array:
    return x * ndtr(x)


def double_size(x: Array) -> Array:
    return np.repeat(np.repeat(x, 2, axis=2), 2, axis=3)


def blocks_2x2(x: Array) -> Array:
    b, c, n, _ = x.shape
    return x.reshape(b, c, n // 2, 2, n // 2, 2)


def conv_pair(x: Array, p: Weights, name: str) -> Array:
    x = relu(batch_norm(named_conv(x, p, name + ".conv1"), p, name + ".bn1"))
    return relu(batch_norm(named_conv(x, p, name + ".conv2"), p, name + ".bn2"))


def spatial_gate(x: Array, p: Weights, name: str) -> Array:
    pair = np.stack((x.max(axis=1), x.mean(axis=1)), axis=1)
    return x * expit(conv(pair, p[name + ".compress.weight"]))


def cbam(x: Array, p: Weights, name: str) -> Array:
    def mlp(v: Array) -> Array:
        hidden = relu(v @ p[name + ".ChannelGate.mlp.1.weight"].T + p[name + ".ChannelGate.mlp.1.bias"])
        return hidden @ p[name + ".ChannelGate.mlp.3.weight"].T + p[name + ".ChannelGate.mlp.3.bias"]

    gate = expit(mlp(x.mean(axis=(2, 3))) + mlp(x.max(axis=(2, 3))))
    return spatial_gate(x * gate[:, :, None, None], p, name + ".SpatialGate")


def eca(x: Array, p: Weights, name: str) -> Array:
    means = np.pad(x.mean(axis=(2, 3)), ((0, 0), (1, 1)))
    kernel = p[name + ".conv.weight"][0, 0]
    gate = expit(kernel[0] * means[:, :-2] + kernel[1] * means[:, 1:-1] + kernel[2] * means[:, 2:])
    return x * gate[:, :, None, None]


def attention(x: Array, p: Weights, name: str) -> Array:
    """Apply whatever attention the state_dict has under `name`."""
    if name + ".ChannelGate.mlp.1.weight" in p:
        return cbam(x, p, name)
    if name + ".conv.weight" in p:
        return eca(x, p, name)
    if name + ".spatial_gate.compress.weight" in p:
        return spatial_gate(x, p, name + ".spatial_gate")
    return x


# The convolutional families

LEVELS = {64: 3, 128: 4, 256: 5}


def _convolutional(spec: ModelSpec, p: Weights, x: Array) -> tuple[Array, Array]:
    unet, half = spec.generator == "unet", spec.amp_channels
    skips = []
    for i in range(LEVELS[spec.N]):
        name = f"encoder.blocks.{i}"
        x = conv_pair(x, p, name)
        # CBAM acts everywhere; ECA is dead weight but in the UNet.
        if spec.encoder_attention == "cbam" or (unet and spec.encoder_attention == "eca"):
            x = attention(x, p, name + ".attention")
        skips.append(x)
        x = blocks_2x2(x).max(axis=(3, 5))
    if spec.bottleneck_cbam:
        x = cbam(x, p, "bottleneck_cbam")
    skips = skips[-2::-1]

    real_imag = spec.output_mode == "real_imag"
    if real_imag:
        first: Callable[[Array], Array] = _real
        second: Callable[[Array], Array] = _imag
    else:
        first, second = (expit if spec.amp_activation == "sigmoid" else silu), _phase
    if spec.shared_decoder:
        both = _decode(spec, p, x, skips, "decoder" if unet else "decoder_shared", "head", lambda v: v)
        if unet:
            both = _imag(both)
            return both[:, :half], both[:, half:]
        return first(both[:, :half]), second(both[:, half:])
    if unet:
        amp = _decode(spec, p, x, skips, "decoder_amp", "amp", lambda v: v)
        phase = _decode(spec, p, x, skips, "decoder_phase", "phase", lambda v: v)
        return _real(amp), _imag(phase)
    return (
        _decode(spec, p, x, skips, "decoder_amp", "amp", first),
        _decode(spec, p, x, skips, "decoder_phase", "phase", second),
    )


def _decode(
    spec: ModelSpec,
    p: Weights,
    x: Array,
    skips: list[Array],
    decoder: str,
    head: str,
    inner: Callable[[Array], Array],
) -> Array:
    unet = spec.generator == "unet"
    for i in range(LEVELS[spec.N] - 1):
        x = double_size(conv_pair(x, p, f"{decoder}.blocks.{i}"))
        if unet:
            x = np.concatenate((x, blocks_2x2(skips[i]).mean(axis=(3, 5))), axis=1)
            x = relu(named_conv(x, p, f"{decoder}.merge_blocks.{i}.0"))
            x = relu(named_conv(x, p, f"{decoder}.merge_blocks.{i}.2"))
            x = attention(x, p, f"{decoder}.attention_blocks.{i}")
        if spec.shared_decoder:
            name = f"{decoder}.refinement_blocks.{i}.block"
            y = relu(named_conv(x, p, name + ".0"))
            y = relu(named_conv(y, p, name + ".2"))
            x = relu(x + named_conv(y, p, name + ".4"))
    if spec.shared_decoder:
        x = eca(x, p, decoder + ".eca")

    name = f"{decoder}.{head}"
    c_outer = p[name + ".conv_up_block.conv1.weight"].shape[1]
    split, quarter, n = x.shape[1] - c_outer, spec.N // 4, spec.N
    y = np.zeros((x.shape[0], p[name + ".conv1.weight"].shape[0], n, n))
    centre = (slice(None), slice(None), slice(quarter, n - quarter), slice(quarter, n - quarter))
    y[centre] = inner(batch_norm(named_conv(x[:, :split], p, name + ".conv1"), p, name + ".bn1"))
    if spec.probe_big or unet:
        z = double_size(conv_pair(x[:, split:], p, name + ".conv_up_block"))
        z = batch_norm(named_conv(z, p, name + ".conv2"), p, name + ".bn2")
        if not unet:
            z = silu(z)
        if spec.border_mask:
            z[centre] = 0.0
        y += z
    return y


def _real(x: Array) -> Array:
    return 0.2 + np.tanh(x)


def _imag(x: Array) -> Array:
    return 1.2 * np.tanh(x)


def _phase(x: Array) -> Array:
    return np.pi * np.tanh(x)


# The spectral families


def _spectral(spec: ModelSpec, p: Weights, x: Array) -> tuple[Array, Array]:
    if spec.input_transform == "sqrt":
        x = np.sqrt(relu(x))
    elif spec.input_transform == "log1p":
        x = np.log1p(relu(x))
    elif spec.input_transform == "instancenorm":
        x = (x - x.mean(axis=(2, 3), keepdims=True)) / np.sqrt(x.var(axis=(2, 3), keepdims=True) + 1e-6)
    x = named_conv(gelu(named_conv(x, p, "lifter.conv1")), p, "lifter.conv2")
    if spec.generator == "ffno":
        for i in range(spec.fno_blocks):
            name = f"blocks.{i}"
            u = factorized_filter(
                x, p["ffno_stack.shared_spectral.weights_x"], p["ffno_stack.shared_spectral.weights_y"]
            )
            u = (u - u.mean(axis=(2, 3), keepdims=True)) / np.sqrt(u.var(axis=(2, 3), keepdims=True) + 1e-5)
            u = u * p[name + ".norm.weight"][:, None, None] + p[name + ".norm.bias"][:, None, None]
            u = named_conv(gelu(named_conv(u, p, name + ".expand")), p, name + ".project")
            x = x + p["ffno_stack.shared_gate"] * u
        for i in range(spec.fno_cnn_blocks):
            x = x + named_conv(gelu(named_conv(x, p, f"refiners.{i}.conv1")), p, f"refiners.{i}.conv2")
    else:
        stack = "fno_blocks" if spec.generator == "fno" else "blocks"
        for i in range(spec.fno_blocks):
            name = f"{stack}.{i}"
            x = x + gelu(corner_filter(x, p[name + ".spectral.weights"]) + named_conv(x, p, name + ".local_conv"))
        if spec.generator == "fno":
            x = named_conv(x, p, "intermediate")
            for i in range(spec.fno_cnn_blocks):
                x = gelu(named_conv(x, p, f"cnn_refiner.{i}.0"))
    if spec.output_mode == "amp_phase":
        return expit(named_conv(x, p, "output_amp")), _phase(named_conv(x, p, "output_phase"))
    y = named_conv(x, p, "output_proj")
    y = y.reshape(y.shape[0], 2, spec.C, spec.N, spec.N)
    if spec.output_mode == "amp_phase_logits":
        return expit(y[:, 0]), _phase(y[:, 1])
    return y[:, 0], y[:, 1]


def dft(frequencies: NDArray[np.int64], size: int) -> NDArray[np.complex128]:
    """Return exp(−2πi·frequency·position/size), (frequencies, size)."""
    return np.exp(-2j * np.pi * np.outer(frequencies, np.arange(size)) / size)


def real_part_synthesis(columns: int, size: int) -> NDArray[np.complex128]:
    """Return the matrix (columns, size) whose product's real part is the real signal of the lowest frequencies."""
    twice = np.array([1.0 if k in (0, size / 2) else 2.0 for k in range(columns)])
    return twice[:, None] * np.conj(dft(np.arange(columns), size))


def factorized_filter(x: Array, weights_x: NDArray[np.generic], weights_y: NDArray[np.generic]) -> Array:
    n = x.shape[-1]
    bins = min(weights_x.shape[-1], n // 2 + 1)
    analysis, synthesis = dft(np.arange(bins), n), real_part_synthesis(bins, n)
    along_x = np.einsum("bihw,kw,iok,kv->bohv", x, analysis, weights_x[..., :bins], synthesis, optimize=True)
    along_y = np.einsum("bihw,kh,iok,kv->bovw", x, analysis, weights_y[..., :bins], synthesis, optimize=True)
    return (along_x + along_y).real / n


def corner_filter(x: Array, weights: NDArray[np.generic]) -> Array:
    n, m = x.shape[-1], weights.shape[-1]
    rows, columns = min(m, n), min(m, n // 2 + 1)
    spectrum = np.fft.fft2(x)[:, :, :rows, :columns]
    product = np.einsum("bixy,ioxy->boxy", spectrum, weights[:, :, :rows, :columns])
    back = np.conj(dft(np.arange(rows), n))
    return np.einsum("boxy,xh,yw->bohw", product, back, real_part_synthesis(columns, n), optimize=True).real / n**2


# The U-shaped neural operator, 128 pixels


def _uno(p: Weights, x: Array) -> Array:
    p = {k.removeprefix("uno."): v for k, v in p.items()}
    n = 128
    row, column = np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij")
    grid = np.broadcast_to(np.stack((row, column)), (x.shape[0], 2, n, n))
    x = _mlp(np.concatenate((x, grid), axis=1), p, "lifting")
    x = _uno_block(x, p, 0, 128)
    skip0 = pointwise(x, p, "horizontal_skips.0.conv")
    x = _uno_block(x, p, 1, 64)
    skip1 = pointwise(x, p, "horizontal_skips.1.conv")
    x = _uno_block(np.concatenate((x, skip1), axis=1), p, 2, 64)
    x = _uno_block(np.concatenate((x, bicubic(skip0, 64)), axis=1), p, 3, 128)
    return _mlp(x, p, "projection")


def pointwise(x: Array, p: Weights, name: str) -> Array:
    y = np.einsum("oi,bihw->bohw", p[name + ".weight"][:, :, 0], x, optimize=True)
    return y + p[name + ".bias"][:, None, None] if name + ".bias" in p else y


def _mlp(x: Array, p: Weights, name: str) -> Array:
    return pointwise(gelu(pointwise(x, p, name + ".fcs.0")), p, name + ".fcs.1")


def _uno_block(x: Array, p: Weights, i: int, out_px: int) -> Array:
    name = f"fno_blocks.{i}"
    y = central_filter(x, p[name + ".convs.0.weight.tensor"], out_px) + p[name + ".convs.0.bias"]
    y = y + bicubic(pointwise(x, p, name + ".fno_skips.0.conv"), out_px)
    return _mlp(y, p, name + ".channel_mlp.0") + bicubic(pointwise(x, p, name + ".channel_mlp_skips.0.conv"), out_px)


# Row frequencies in, and the frequency as which each acts in the output, by the sizes in and out.
ROWS = {
    (128, 128): {f: f for f in range(-6, 6)},
    (64, 64): {f: f for f in range(-6, 6)},
    (128, 64): {f: f for f in range(6)},
    (64, 128): {f: f if f >= 0 else 64 + f for f in range(-6, 6)},
}


def central_filter(x: Array, weights: NDArray[np.generic], out_px: int) -> Array:
    n = x.shape[-1]
    rows = ROWS[n, out_px]
    spectrum = np.fft.fft2(x)[:, :, list(rows), :7] / n**2
    product = np.einsum("bixy,ioxy->boxy", spectrum, weights[:, :, [f + 6 for f in rows]], optimize=True)
    back = np.conj(dft(np.array(list(rows.values())), out_px))
    return np.einsum("boxy,xh,yw->bohw", product, back, real_part_synthesis(7, out_px), optimize=True).real


def bicubic(x: Array, out_px: int) -> Array:
    """Resize (B, c, n, n) with Keys' cubic kernel, a = −0.75, corners aligned, edge pixels repeated."""
    n = x.shape[-1]
    if n == out_px:
        return x
    at = np.linspace(0.0, n - 1.0, out_px)
    padded = np.arange(-2, n + 2)
    d = np.abs(at[:, None] - padded[None, :])
    near = 1.25 * d**3 - 2.25 * d**2 + 1.0
    far = -0.75 * d**3 + 3.75 * d**2 - 6.0 * d + 3.0
    kernel = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    matrix = np.zeros((out_px, n))
    np.add.at(matrix.T, np.clip(padded, 0, n - 1), kernel.T)
    return np.einsum("ih,bchw,jw->bcij", matrix, x, matrix, optimize=True)
