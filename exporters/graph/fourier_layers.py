"""Learned filters on a few Fourier modes as real matrix products with constant matrices.

A truncated discrete Fourier transform of a fixed small size is one small matrix; complex numbers travel as real and
imaginary halves of an axis. The layers never ask for a tensor's shape: every reshape has constant sizes and one −1.
Matrices are computed in float64 and rounded once, to the precision of the weights.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Float64Array = NDArray[np.float64]


class AxisFilter(nn.Module):
    """A channel matrix for each of an axis's lowest frequencies: truncated DFT, mixing, inverse DFT, all real."""

    forward_dft: Tensor
    mixing: Tensor
    inverse_dft: Tensor

    def __init__(self, weights: Tensor, size_px: int, *, along_rows: bool) -> None:
        """Take the complex `weights` (in, out, frequencies) of an axis of `size_px` pixels.

        Args:
            weights: complex64 or complex128; sets the precision of the layer.
            size_px: length of the axis.
            along_rows: True filters along the width, False along the height.
        """
        super().__init__()
        self.size_px, self.along_rows = size_px, along_rows
        self.inputs, self.outputs, self.bins = weights.shape
        cos, sin = _cos_sin(np.arange(self.bins), np.arange(size_px), size_px)
        analysis = np.concatenate((cos, -sin))
        synthesis = _real_synthesis(self.bins, size_px) / size_px
        like = weights.real
        self.register_buffer("forward_dft", constant(analysis.T if along_rows else analysis, like))
        self.register_buffer("mixing", _mixing(weights))
        self.register_buffer("inverse_dft", constant(synthesis if along_rows else synthesis.T, like))

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x` (B, in, N, N) along the one axis; (B, out, N, N)."""
        n, bins = self.size_px, self.bins
        if self.along_rows:
            spectrum = (x @ self.forward_dft).reshape(-1, self.inputs, n, 2, bins).permute(4, 0, 2, 3, 1)
        else:
            spectrum = (self.forward_dft @ x).reshape(-1, self.inputs, 2, bins, n).permute(3, 0, 4, 2, 1)
        # (frequency, image and line, re/im and channel)
        mixed = spectrum.reshape(bins, -1, 2 * self.inputs) @ self.mixing
        mixed = mixed.reshape(bins, -1, n, 2, self.outputs)
        if self.along_rows:
            return mixed.permute(1, 4, 2, 3, 0).reshape(-1, self.outputs, n, 2 * bins) @ self.inverse_dft
        return self.inverse_dft @ mixed.permute(1, 4, 3, 0, 2).reshape(-1, self.outputs, 2 * bins, n)


class PlaneFilter(nn.Module):
    """A channel matrix for each of a few two-dimensional frequencies, all real, from one image size to another."""

    column_dft: Tensor
    row_dft: Tensor
    mixing: Tensor
    row_inverse: Tensor
    column_inverse: Tensor

    def __init__(
        self, weights: Tensor, in_rows: list[int], out_rows: list[int], in_px: int, out_px: int, scale: float
    ) -> None:
        """Take the complex `weights` (in, out, rows, columns) and what its rows stand for.

        Args:
            weights: complex64 or complex128; sets the precision. Column j belongs to column frequency j.
            in_rows: row frequency of each row of `weights` in the spectrum of the input.
            out_rows: the row frequency as which it acts in the output.
            in_px: pixels a side of the input.
            out_px: pixels a side of the output.
            scale: factor of the two transforms together.
        """
        super().__init__()
        self.in_px, self.out_px = in_px, out_px
        self.inputs, self.outputs, self.rows, self.columns = weights.shape
        like = weights.real
        cos, sin = _cos_sin(np.arange(self.columns), np.arange(in_px), in_px)
        self.register_buffer("column_dft", constant(np.concatenate((cos, -sin)).T, like))
        cos, sin = _cos_sin(np.asarray(in_rows), np.arange(in_px), in_px)
        self.register_buffer("row_dft", constant(np.block([[cos, sin], [-sin, cos]]), like))
        self.register_buffer("mixing", _mixing(weights))
        cos, sin = _cos_sin(np.asarray(out_rows), np.arange(out_px), out_px)
        self.register_buffer("row_inverse", constant(np.block([[cos.T, -sin.T], [sin.T, cos.T]]), like))
        self.register_buffer("column_inverse", constant(_real_synthesis(self.columns, out_px) * scale, like))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, in_px, in_px) to (B, out, out_px, out_px)."""
        rows, columns = self.rows, self.columns
        # Real and imaginary parts ride along the axis that the next product sums over.
        spectrum = (x @ self.column_dft).reshape(-1, self.inputs, self.in_px, 2, columns).permute(0, 1, 3, 2, 4)
        spectrum = self.row_dft @ spectrum.reshape(-1, self.inputs, 2 * self.in_px, columns)
        spectrum = spectrum.reshape(-1, self.inputs, 2, rows, columns).permute(3, 4, 0, 2, 1)
        mixed = spectrum.reshape(rows * columns, -1, 2 * self.inputs) @ self.mixing
        mixed = mixed.reshape(rows, columns, -1, 2, self.outputs).permute(2, 4, 3, 0, 1)
        mixed = self.row_inverse @ mixed.reshape(-1, self.outputs, 2 * rows, columns)
        mixed = mixed.reshape(-1, self.outputs, 2, self.out_px, columns).permute(0, 1, 3, 2, 4)
        return mixed.reshape(-1, self.outputs, self.out_px, 2 * columns) @ self.column_inverse


def _cos_sin(
    frequencies: NDArray[np.int64], positions: NDArray[np.int64], size: int
) -> tuple[Float64Array, Float64Array]:
    """Return cos and sin of 2π·frequency·position/size, (frequencies, positions); angles reduced exactly first."""
    angles = 2.0 * np.pi * (np.outer(frequencies, positions) % size) / size
    return np.cos(angles), np.sin(angles)


def _real_synthesis(bins: int, size: int) -> Float64Array:
    """Return the matrix (2·bins, size) from real and imaginary parts of the lowest frequencies to the real signal.

    DC and, for even sizes, the Nyquist frequency stand alone and count once, by their real part; each other frequency
    stands for its negative twin too and counts twice.
    """
    cos, sin = _cos_sin(np.arange(bins), np.arange(size), size)
    count = np.full((bins, 1), 2.0)
    count[0] = 1.0
    if size % 2 == 0 and bins == size // 2 + 1:
        count[-1] = 1.0
    return np.concatenate((count * cos, -count * sin))


def _mixing(weights: Tensor) -> Tensor:
    """Return complex `weights` (in, out, …) as real matrices (modes, 2·in, 2·out) over [real, imaginary] channels."""
    w = weights.detach().flatten(2).permute(2, 0, 1)
    return torch.cat((torch.cat((w.real, w.imag), dim=2), torch.cat((-w.imag, w.real), dim=2)), dim=1).contiguous()


def constant(values: Float64Array, like: Tensor) -> Tensor:
    """Return `values` as a tensor, rounded once to the precision of `like`."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(dtype=like.dtype, device=like.device)
