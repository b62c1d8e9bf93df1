"""The U-shaped neural operator, 128 pixels."""

from __future__ import annotations

import numpy as np

from exporters.parity.independent.layers import Array, Weights, gelu
from exporters.parity.independent.spectral import dft, real_part_synthesis


def uno(p: Weights, x: Array) -> Array:
    """Return both heads as channels."""
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
    """Apply a channel matrix to every pixel."""
    y = np.einsum("oi,bihw->bohw", p[name + ".weight"][:, :, 0], x, optimize=True)
    return np.asarray(y + p[name + ".bias"][:, None, None] if name + ".bias" in p else y)


def _mlp(x: Array, p: Weights, name: str) -> Array:
    return pointwise(gelu(pointwise(x, p, name + ".fcs.0")), p, name + ".fcs.1")


def _uno_block(x: Array, p: Weights, i: int, out_px: int) -> Array:
    name = f"fno_blocks.{i}"
    y = central_filter(x, p[name + ".convs.0.weight.tensor"], out_px) + p[name + ".convs.0.bias"]
    y = y + bicubic(pointwise(x, p, name + ".fno_skips.0.conv"), out_px)
    return np.asarray(
        _mlp(y, p, name + ".channel_mlp.0") + bicubic(pointwise(x, p, name + ".channel_mlp_skips.0.conv"), out_px)
    )


# Row frequencies in, and the frequency as which each acts in the output, by the sizes in and out.
ROWS = {
    (128, 128): {f: f for f in range(-6, 6)},
    (64, 64): {f: f for f in range(-6, 6)},
    (128, 64): {f: f for f in range(6)},
    (64, 128): {f: f if f >= 0 else 64 + f for f in range(-6, 6)},
}


def central_filter(x: Array, weights: Array, out_px: int) -> Array:
    """Filter by the central rows of the spectrum, onto another size."""
    n = x.shape[-1]
    rows = ROWS[n, out_px]
    spectrum = np.fft.fft2(x)[:, :, list(rows), :7] / n**2
    product = np.einsum("bixy,ioxy->boxy", spectrum, weights[:, :, [f + 6 for f in rows]], optimize=True)
    back = np.conj(dft(np.array(list(rows.values())), out_px))
    return np.asarray(np.einsum("boxy,xh,yw->bohw", product, back, real_part_synthesis(7, out_px), optimize=True).real)


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
    return np.asarray(np.einsum("ih,bchw,jw->bcij", matrix, x, matrix, optimize=True))
