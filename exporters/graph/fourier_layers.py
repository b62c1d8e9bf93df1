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
        # (frequency, re/im; pixel): parts lie beside their frequency, so that the product over both and the channels has them adjacent.
        analysis = _parts_inside(_analysis(np.arange(self.bins), size_px))
        synthesis = _parts_inside(_real_synthesis(self.bins, size_px) / size_px)
        like = weights.real
        self.register_buffer("forward_dft", constant(analysis.T if along_rows else analysis, like))
        self.register_buffer("mixing", _mixing(weights).transpose(1, 2).contiguous())
        self.register_buffer("inverse_dft", constant(synthesis if along_rows else synthesis.T, like))

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x` (B, in, N, N) along the one axis; (B, out, N, N)."""
        n, parts = self.size_px, 2 * self.bins
        if self.along_rows:
            spectrum = (x @ self.forward_dft).reshape(-1, self.inputs * n, parts).transpose(1, 2)
        else:
            spectrum = (self.forward_dft @ x).transpose(1, 2)
        # (image; frequency; re/im and channel; line of the other axis)
        mixed = self.mixing @ spectrum.reshape(-1, self.bins, 2 * self.inputs, n)
        if self.along_rows:
            lines = mixed.reshape(-1, parts, self.outputs * n).transpose(1, 2)
            return lines.reshape(-1, self.outputs, n, parts) @ self.inverse_dft
        return self.inverse_dft @ mixed.reshape(-1, parts, self.outputs, n).transpose(1, 2)


class PlaneFilter(nn.Module):
    """A channel matrix for each of a few two-dimensional frequencies, all real, from one image size to another."""

    row_dft: Tensor
    column_dft: Tensor
    mixing: Tensor
    column_inverse: Tensor
    row_inverse: Tensor

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
        # Rows first: parts of a row frequency lie before the pixels of its line, over which the next product sums with them.
        self.register_buffer("row_dft", constant(_parts_inside(_analysis(np.asarray(in_rows), in_px)), like))
        cos, sin = _cos_sin(np.arange(self.columns), np.arange(in_px), in_px)
        both = np.stack((np.concatenate((cos, sin), axis=1), np.concatenate((-sin, cos), axis=1)))
        self.register_buffer("column_dft", constant(both.transpose(2, 1, 0).reshape(2 * in_px, -1), like))
        self.register_buffer("mixing", _mixing(weights))
        count = _count(self.columns, out_px) * scale
        cos, sin = (count * part for part in _cos_sin(np.arange(self.columns), np.arange(out_px), out_px))
        both = np.stack((np.concatenate((cos, sin), axis=1), np.concatenate((-sin, cos), axis=1)))
        self.register_buffer("column_inverse", constant(both.transpose(1, 0, 2).reshape(-1, 2 * out_px), like))
        self.register_buffer("row_inverse", constant(_parts_inside(_analysis(np.asarray(out_rows), out_px)).T, like))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, in_px, in_px) to (B, out, out_px, out_px)."""
        modes, parts = self.rows * self.columns, 2 * self.columns
        spectrum = (self.row_dft @ x).reshape(-1, self.inputs, self.rows, 2 * self.in_px) @ self.column_dft
        # Two plain transpositions in place of one of four axes, which runtimes do number by number.
        spectrum = spectrum.reshape(-1, 2 * modes).transpose(0, 1)
        spectrum = spectrum.reshape(modes, 2, -1, self.inputs).transpose(1, 2)
        # (frequency; image; re/im and channel)
        mixed = spectrum.reshape(modes, -1, 2 * self.inputs) @ self.mixing
        mixed = mixed.reshape(modes, -1, 2, self.outputs).transpose(1, 2)
        mixed = mixed.reshape(2 * modes, -1).transpose(0, 1)
        lines = mixed.reshape(-1, self.outputs, self.rows, parts) @ self.column_inverse
        return self.row_inverse @ lines.reshape(-1, self.outputs, 2 * self.rows, self.out_px)


def _cos_sin(
    frequencies: NDArray[np.int64], positions: NDArray[np.int64], size: int
) -> tuple[Float64Array, Float64Array]:
    """Return cos and sin of 2π·frequency·position/size, (frequencies, positions); angles reduced exactly first."""
    angles = 2.0 * np.pi * (np.outer(frequencies, positions) % size) / size
    return np.cos(angles), np.sin(angles)


def _analysis(frequencies: NDArray[np.int64], size: int) -> Float64Array:
    """Return the real and imaginary part of exp(−2πi·frequency·position/size), (2, frequencies, size)."""
    cos, sin = _cos_sin(frequencies, np.arange(size), size)
    return np.stack((cos, -sin))


def _real_synthesis(bins: int, size: int) -> Float64Array:
    """Return what real and imaginary parts of the lowest frequencies add to the real signal, (2, bins, size)."""
    return _count(bins, size) * _analysis(np.arange(bins), size)


def _count(bins: int, size: int) -> Float64Array:
    """Return how often each of the lowest frequencies counts in a real signal, (bins, 1).

    DC and, for even sizes, the Nyquist frequency stand alone and count once, by their real part; each other frequency
    stands for its negative twin too and counts twice.
    """
    count = np.full((bins, 1), 2.0)
    count[0] = 1.0
    if size % 2 == 0 and bins == size // 2 + 1:
        count[-1] = 1.0
    return count


def _parts_inside(parts: Float64Array) -> Float64Array:
    """Return matrices of real and imaginary parts (2, frequencies, size) as one, a frequency's parts side by side."""
    return parts.transpose(1, 0, 2).reshape(-1, parts.shape[2])


def _mixing(weights: Tensor) -> Tensor:
    """Return complex `weights` (in, out, …) as real matrices (modes, 2·in, 2·out) over [real, imaginary] channels."""
    w = weights.detach().flatten(2).permute(2, 0, 1)
    return torch.cat((torch.cat((w.real, w.imag), dim=2), torch.cat((-w.imag, w.real), dim=2)), dim=1).contiguous()


def constant(values: Float64Array, like: Tensor) -> Tensor:
    """Return `values` as a tensor, rounded once to the precision of `like`."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(dtype=like.dtype, device=like.device)
