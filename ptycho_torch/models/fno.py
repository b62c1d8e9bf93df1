"""The Fourier generators `fno` (with local refinement) and `fno_vanilla` (without)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ptycho_torch.models.lifter import SpectralGenerator
from ptycho_torch.models.spectral import SpectralConv2d
from ptycho_torch.spec import ModelSpec


class FNOBlock(nn.Module):
    """Spectral filter beside a 3×3 convolution, GELU of their sum added to the input."""

    def __init__(self, width: int, modes: int, size_px: int) -> None:
        super().__init__()
        self.spectral = SpectralConv2d(width, modes, size_px)
        self.local_conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, N, N) to the same shape."""
        return x + F.gelu(self.spectral(x) + self.local_conv(x))


def fno_blocks(spec: ModelSpec) -> nn.Sequential:
    """Return the Fourier blocks one after another."""
    return nn.Sequential(*(FNOBlock(spec.fno_width, spec.fno_modes, spec.N) for _ in range(spec.fno_blocks)))


class VanillaFNO(SpectralGenerator):
    """Lifter, Fourier blocks, head."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.blocks = fno_blocks(spec)

    def body(self, x: Tensor) -> Tensor:
        """Map the lifted (B, width, N, N) through the blocks."""
        y: Tensor = self.blocks(x)
        return y


class CascadedFNO(SpectralGenerator):
    """Lifter, Fourier blocks, a 1×1 layer, 3×3 layers with GELU, head."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        width = spec.fno_width
        self.fno_blocks = fno_blocks(spec)
        self.intermediate = nn.Conv2d(width, width, 1)
        self.cnn_refiner = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GELU()) for _ in range(spec.fno_cnn_blocks))
        )

    def body(self, x: Tensor) -> Tensor:
        """Map the lifted (B, width, N, N) through blocks and refiner."""
        y: Tensor = self.cnn_refiner(self.intermediate(self.fno_blocks(x)))
        return y
