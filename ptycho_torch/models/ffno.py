"""The factorised Fourier generator (`ffno`): one-dimensional filters shared by all blocks, then local refiners."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptycho_torch.models.lifter import SpectralGenerator
from ptycho_torch.models.spectral import FactorizedSpectralConv
from ptycho_torch.spec import ModelSpec

EXPANSION = 2
INITIAL_GATE = 0.1


class FFNOBlock(nn.Module):
    """Spectral filter, instance norm and a pointwise perceptron; the stack adds the result to its input, gated."""

    def __init__(self, width: int, shared_spectral: FactorizedSpectralConv) -> None:
        super().__init__()
        self.shared_spectral = shared_spectral  # one module in every block, stored once per block by PtychoPINN
        self.norm = nn.InstanceNorm2d(width, eps=1e-5, affine=True)
        self.expand = nn.Conv2d(width, EXPANSION * width, 1)
        self.project = nn.Conv2d(EXPANSION * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the update of `x` (B, width, N, N), same shape."""
        y: Tensor = self.project(F.gelu(self.expand(self.norm(self.shared_spectral(x)))))
        return y


class FFNOStack(nn.Module):
    """Blocks that share their spectral weights and one scalar gate."""

    def __init__(self, width: int, modes: int, blocks: int, size_px: int) -> None:
        super().__init__()
        self.shared_gate = nn.Parameter(torch.tensor(INITIAL_GATE))
        self.shared_spectral = FactorizedSpectralConv(width, modes, size_px)
        self.blocks = nn.ModuleList(FFNOBlock(width, self.shared_spectral) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, N, N) to the same shape."""
        for block in self.blocks:
            x = x + block(x) * self.shared_gate
        return x


class RefinerBlock(nn.Module):
    """Two 3×3 convolutions with GELU between them, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Refine `x` (B, width, N, N), same shape."""
        y: Tensor = x + self.conv2(F.gelu(self.conv1(x)))
        return y


class FFNO(SpectralGenerator):
    """Lifter, stack, refiners, head. The stack's blocks are registered a second time as `blocks`, as in PtychoPINN."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.ffno_stack = FFNOStack(spec.fno_width, spec.fno_modes, spec.fno_blocks, spec.N)
        self.blocks = self.ffno_stack.blocks
        self.refiners = nn.ModuleList(RefinerBlock(spec.fno_width) for _ in range(spec.fno_cnn_blocks))

    def body(self, x: Tensor) -> Tensor:
        """Map the lifted (B, width, N, N) through stack and refiners."""
        x = self.ffno_stack(x)
        for refiner in self.refiners:
            x = refiner(x)
        return x
