"""The Fourier neural operators."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from exporters.parity.independent.convolutional import phase_head
from exporters.parity.independent.layers import Array, Weights, gelu, named_conv, relu
from ptycho_torch.spec import ModelSpec


def spectral(spec: ModelSpec, p: Weights, x: Array) -> tuple[Array, Array]:
    """Return both heads of an FNO, with or without refiners, or FFNO."""
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
        return expit(named_conv(x, p, "output_amp")), phase_head(named_conv(x, p, "output_phase"))
    y = named_conv(x, p, "output_proj")
    y = y.reshape(y.shape[0], 2, spec.C, spec.N, spec.N)
    if spec.output_mode == "amp_phase_logits":
        return expit(y[:, 0]), phase_head(y[:, 1])
    return y[:, 0], y[:, 1]


def dft(frequencies: Array, size: int) -> Array:
    """Return exp(−2πi·frequency·position/size), (frequencies, size)."""
    return np.exp(-2j * np.pi * np.outer(frequencies, np.arange(size)) / size)


def real_part_synthesis(columns: int, size: int) -> Array:
    """Return the matrix (columns, size) whose product's real part is the real signal of the lowest frequencies."""
    twice = np.array([1.0 if k in (0, size / 2) else 2.0 for k in range(columns)])
    return np.asarray(twice[:, None] * np.conj(dft(np.arange(columns), size)))


def factorized_filter(x: Array, weights_x: Array, weights_y: Array) -> Array:
    """Filter along the width and along the height, summed."""
    n = x.shape[-1]
    bins = min(weights_x.shape[-1], n // 2 + 1)
    analysis, synthesis = dft(np.arange(bins), n), real_part_synthesis(bins, n)
    along_x = np.einsum("bihw,kw,iok,kv->bohv", x, analysis, weights_x[..., :bins], synthesis, optimize=True)
    along_y = np.einsum("bihw,kh,iok,kv->bovw", x, analysis, weights_y[..., :bins], synthesis, optimize=True)
    return np.asarray((along_x + along_y).real / n)


def corner_filter(x: Array, weights: Array) -> Array:
    """Filter by the corner of the spectrum with the lowest non-negative row frequencies."""
    n, m = x.shape[-1], weights.shape[-1]
    rows, columns = min(m, n), min(m, n // 2 + 1)
    spectrum = np.fft.fft2(x)[:, :, :rows, :columns]
    product = np.einsum("bixy,ioxy->boxy", spectrum, weights[:, :, :rows, :columns])
    back = np.conj(dft(np.arange(rows), n))
    return np.asarray(
        np.einsum("boxy,xh,yw->bohw", product, back, real_part_synthesis(columns, n), optimize=True).real / n**2
    )
