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

    def __init__(self, width: int, modes: int, size_px: int) -> None:
        super().__init__()
        self.weights = _random_weights(width, width, modes, modes)
        self.size_px = size_px
        self.rows, self.columns = min(modes, size_px), min(modes, size_px // 2 + 1)

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x` (B, width, N, N)."""
        spectrum = torch.fft.rfft2(x)
        weights = self.weights[:, :, : self.rows, : self.columns]
        kept = spectrum[:, :, : self.rows, : self.columns]
        product = torch.zeros_like(spectrum)
        product[:, :, : self.rows, : self.columns] = torch.einsum("bixy,ioxy->boxy", kept, weights)
        y: Tensor = torch.fft.irfft2(product, s=(self.size_px, self.size_px))
        return y


class FactorizedSpectralConv(ComplexWeights):
    """One-dimensional filters along rows and along columns, summed (`ffno`)."""

    def __init__(self, width: int, modes: int, size_px: int) -> None:
        super().__init__()
        self.weights_x = _random_weights(width, width, modes)
        self.weights_y = _random_weights(width, width, modes)
        self.size_px = size_px
        self.bins = min(modes, size_px // 2 + 1)

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x` (B, width, N, N): `weights_x` along the width, `weights_y` along the height."""
        along_x = self._filter(x, self.weights_x)
        along_y = self._filter(x.transpose(2, 3), self.weights_y).transpose(2, 3)
        return along_x + along_y

    def _filter(self, x: Tensor, weights: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x, dim=-1)[..., : self.bins]
        product = torch.einsum("bihk,iok->bohk", spectrum, weights[..., : self.bins])
        y: Tensor = torch.fft.irfft(product, n=self.size_px, dim=-1)
        return y
