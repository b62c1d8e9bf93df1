"""CNN and UNet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from exporters.parity.independent.layers import (
    Array,
    Weights,
    attention,
    batch_norm,
    blocks_2x2,
    cbam,
    conv_pair,
    double_size,
    eca,
    named_conv,
    relu,
    silu,
)
from ptycho_torch.spec import ModelSpec

LEVELS = {64: 3, 128: 4, 256: 5}


def convolutional(spec: ModelSpec, p: Weights, x: Array) -> tuple[Array, Array]:
    """Return both heads of a CNN or UNet."""
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
    first: Callable[[Array], Array]
    second: Callable[[Array], Array]
    if unet and spec.unet_heads == "tanh":
        first, second = np.tanh, np.tanh
    elif real_imag:
        first, second = _real, _imag
    else:
        first, second = (expit if spec.amp_activation == "sigmoid" else silu), phase_head
    if spec.shared_decoder:
        both = _decode(spec, p, x, skips, "decoder.head" if unet else "decoder_shared.head", lambda v: v)
        if unet:
            both = second(both)
            return both[:, :half], both[:, half:]
        return first(both[:, :half]), second(both[:, half:])
    if unet:
        amp = _decode(spec, p, x, skips, "decoder_amp.amp", lambda v: v)
        phase = _decode(spec, p, x, skips, "decoder_phase.phase", lambda v: v)
        return first(amp), second(phase)
    return (
        _decode(spec, p, x, skips, "decoder_amp.amp", first),
        _decode(spec, p, x, skips, "decoder_phase.phase", second),
    )


def _decode(
    spec: ModelSpec,
    p: Weights,
    x: Array,
    skips: list[Array],
    head: str,
    inner: Callable[[Array], Array],
) -> Array:
    decoder = head.partition(".")[0]
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

    c_outer = p[head + ".conv_up_block.conv1.weight"].shape[1]
    split, quarter, n = x.shape[1] - c_outer, spec.N // 4, spec.N
    y = np.zeros((x.shape[0], p[head + ".conv1.weight"].shape[0], n, n))
    centre = (slice(None), slice(None), slice(quarter, n - quarter), slice(quarter, n - quarter))
    y[centre] = inner(batch_norm(named_conv(x[:, :split], p, head + ".conv1"), p, head + ".bn1"))
    if spec.probe_big or unet:
        z = double_size(conv_pair(x[:, split:], p, head + ".conv_up_block"))
        z = batch_norm(named_conv(z, p, head + ".conv2"), p, head + ".bn2")
        if not unet:
            z = silu(z)
        if spec.border_mask:
            z[centre] = 0.0
        y += z
    return y


def _real(x: Array) -> Array:
    return np.asarray(0.2 + np.tanh(x))


def _imag(x: Array) -> Array:
    return np.asarray(1.2 * np.tanh(x))


def phase_head(x: Array) -> Array:
    """Return π · tanh(x)."""
    return np.asarray(np.pi * np.tanh(x))
