"""Learned filters on a few Fourier modes, computed with `torch.fft`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn


class ComplexWeights(nn.Module):
    """A module whose complex weights follow its precision.

    `Module.double()` would leave them at complex64, and `Module.to(torch.float64)` would drop their imaginary part.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def on_parts(t: Tensor) -> Tensor:
            return torch.view_as_complex(fn(torch.view_as_real(t))) if t.is_complex() else fn(t)

        super()._apply(on_parts, recurse)  # type: ignore[no-untyped-call]
        return self


def _random_weights(in_channels: int, out_channels: int, *modes: int) -> nn.Parameter:
    scale = 1.0 / (in_channels * out_channels)
    return nn.Parameter(scale * torch.randn(in_channels, out_channels, *modes, dtype=torch.complex64))


class SpectralConv2d(ComplexWeights):
    """A channel matrix for each low, non-negative row and column frequency (`fno`, `fno_vanilla`).

    Negative row frequencies get nothing, so the spectrum is not that of a real image; the inverse transform drops the
    imaginary part of column 0.
    """

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.weights = _random_weights(width, width, modes, modes)

    def kept(self, size: int) -> tuple[int, int]:
        """Return how many row and column frequencies act on a square image of `size` pixels a side."""
        modes = self.weights.shape[-1]
        return min(modes, size), min(modes, size // 2 + 1)

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x` (B, width, N, N)."""
        size = x.shape[-1]
        rows, cols = self.kept(size)
        spectrum = torch.fft.rfft2(x)
        weights = self.weights[:, :, :rows, :cols]
        product = spectrum.new_zeros(x.shape[0], weights.shape[1], size, size // 2 + 1)
        product[:, :, :rows, :cols] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :rows, :cols], weights)
        y: Tensor = torch.fft.irfft2(product, s=(size, size))
        return y


class FactorizedSpectralConv(ComplexWeights):
    """One-dimensional filters along rows and along columns, summed (`ffno`)."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.weights_x = _random_weights(width, width, modes)
        self.weights_y = _random_weights(width, width, modes)

    def kept(self, size: int) -> int:
        """Return how many frequencies act on an axis of `size` pixels."""
        return min(self.weights_x.shape[-1], size // 2 + 1)

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x` (B, width, N, N): `weights_x` along the width, `weights_y` along the height."""
        size = x.shape[-1]
        along_x = self._filter(x, self.weights_x, size)
        along_y = self._filter(x.transpose(2, 3), self.weights_y, size).transpose(2, 3)
        return along_x + along_y

    def _filter(self, x: Tensor, weights: Tensor, size: int) -> Tensor:
        bins = self.kept(size)
        spectrum = torch.fft.rfft(x, dim=-1)[..., :bins]
        product = torch.einsum("bihk,iok->bohk", spectrum, weights[..., :bins])
        y: Tensor = torch.fft.irfft(product, n=size, dim=-1)
        return y
