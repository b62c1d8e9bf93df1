"""What the spectral generators share: the lifter in front and the head behind."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptycho_torch.models.blocks import bounded_phase
from ptycho_torch.spec import ModelSpec

INPUT_NORM_EPS = 1e-6


class InputTransform(nn.Module):
    """Compresses the range of the scaled diffraction; it has no parameters."""

    def __init__(self, kind: str) -> None:
        """Take `kind`, one of 'none', 'sqrt', 'log1p' and 'instancenorm'."""
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Transform `x` (B, channels, N, N), same shape."""
        if self.kind == "sqrt":
            return torch.sqrt(F.relu(x))
        if self.kind == "log1p":
            return torch.log1p(F.relu(x))
        if self.kind == "instancenorm":
            # Per image and channel, biased variance.
            centred = x - x.mean((2, 3), keepdim=True)
            variance = (centred * centred).mean((2, 3), keepdim=True)
            return centred / torch.sqrt(variance + INPUT_NORM_EPS)
        return x


class Lifter(nn.Module):
    """Input transform, then two 3×3 convolutions with GELU between them."""

    def __init__(self, in_channels: int, width: int, input_transform: str) -> None:
        super().__init__()
        self.input_transform = InputTransform(input_transform)
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, N, N) to (B, width, N, N)."""
        y: Tensor = self.conv2(F.gelu(self.conv1(self.input_transform(x))))
        return y


class SpectralGenerator(nn.Module):
    """Lifter, a body of Fourier layers, 1×1 head; the families differ in `body`."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.output_mode = spec.output_mode
        self.patches = spec.C
        self.lifter = Lifter(spec.in_channels, spec.fno_width, spec.input_transform)
        if spec.output_mode == "amp_phase":
            self.output_amp = nn.Conv2d(spec.fno_width, spec.C, 1)
            self.output_phase = nn.Conv2d(spec.fno_width, spec.C, 1)
        else:
            self.output_proj = nn.Conv2d(spec.fno_width, 2 * spec.C, 1)

    def body(self, x: Tensor) -> Tensor:
        """Map the lifted (B, width, N, N) to what the head reads, same shape; a plain generator leaves it as it is."""
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct object patches from scaled diffraction.

        Args:
            x: (B, learned_input_channels·C, N, N), diffraction after the input scale.

        Returns:
            (amplitude, phase in rad) or (real, imaginary), by the spec's output mode; (B, C, N, N) each.
        """
        x = self.body(self.lifter(x))
        if self.output_mode == "amp_phase":
            return torch.sigmoid(self.output_amp(x)), bounded_phase(self.output_phase(x))
        both = self.output_proj(x)
        first, second = both[:, : self.patches], both[:, self.patches :]
        if self.output_mode == "amp_phase_logits":
            return torch.sigmoid(first), bounded_phase(second)
        return first, second
