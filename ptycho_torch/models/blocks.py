"""What the convolutional networks of every era are made of: encoder, up blocks, output heads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptycho_torch.models.attention import build_attention
from ptycho_torch.spec import ModelSpec

Activation = Callable[[Tensor], Tensor]

BATCH_NORM_EPS = 1e-5


def identity(x: Tensor) -> Tensor:
    """Leave `x` as it is."""
    return x


def bounded_phase(x: Tensor) -> Tensor:
    """Phase in rad, within ±π."""
    return math.pi * torch.tanh(x)


def bounded_real(x: Tensor) -> Tensor:
    """Real part of a patch, within −0.8 … 1.2."""
    return 0.2 + torch.tanh(x)


def bounded_imag(x: Tensor) -> Tensor:
    """Imaginary part of a patch, within ±1.2."""
    return 1.2 * torch.tanh(x)


def output_activations(spec: ModelSpec) -> tuple[Activation, Activation]:
    """Return the activations of the (amplitude, phase) or (real, imaginary) halves of a network's output."""
    if spec.output_mode == "real_imag":
        return bounded_real, bounded_imag
    return (torch.sigmoid if spec.amp_activation == "sigmoid" else F.silu), bounded_phase


def encoder_channels(spec: ModelSpec) -> list[int]:
    """Return the encoder's channels after its input: 3, 4 or 5 levels for N = 64, 128 or 256, ending at 128·scale."""
    levels = int(math.log2(spec.N)) - 3
    return [128 * spec.n_filters_scale >> (levels - 1 - i) for i in range(levels)]


def decoder_channels(spec: ModelSpec) -> list[int]:
    """Return the output channels of the decoder's up blocks; they all end at 32·scale."""
    levels = int(math.log2(spec.N)) - 4
    return [32 * spec.n_filters_scale << (levels - 1 - i) for i in range(levels)]


class ConvPair(nn.Module):
    """Two 3×3 convolutions, each followed by batch normalisation (where asked for) and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(out_channels, eps=BATCH_NORM_EPS) if batch_norm else None
        self.bn2 = nn.BatchNorm2d(out_channels, eps=BATCH_NORM_EPS) if batch_norm else None

    def features(self, x: Tensor) -> Tensor:
        """Return the feature maps of `x` at its own size."""
        x = self.conv1(x)
        x = F.relu(x if self.bn1 is None else self.bn1(x))
        x = self.conv2(x)
        return F.relu(x if self.bn2 is None else self.bn2(x))


class UpBlock(ConvPair):
    """Two convolutions at the input's size, then nearest-neighbour doubling."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, n, n) to (B, out, 2n, 2n)."""
        return F.interpolate(self.features(x), scale_factor=2.0, mode="nearest")


class PoolBlock(ConvPair):
    """Two convolutions, attention, then 2×2 maximum pooling.

    `attention` may hold weights without acting: several PtychoPINN releases store an attention that they never apply.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        batch_norm: bool,
        attention: nn.Module | None,
        attention_active: bool,
    ) -> None:
        super().__init__(in_channels, out_channels, batch_norm=batch_norm)
        self.attention = attention
        self.attention_active = attention_active and attention is not None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled maps (B, out, n/2, n/2) and the maps before pooling (B, out, n, n)."""
        x = self.features(x)
        if self.attention is not None and self.attention_active:
            x = self.attention(x)
        return F.max_pool2d(x, 2), x


class Encoder(nn.Module):
    """Pool blocks from the patterns down to 8×8 maps of 128·scale channels."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        # ECA in the encoder acts in the UNet era only; elsewhere its weights are stored and never used.
        kind = spec.encoder_attention
        active = kind == "cbam" or spec.generator == "unet"
        widths = [spec.in_channels, *encoder_channels(spec)]
        self.blocks = nn.ModuleList(
            PoolBlock(
                below,
                above,
                batch_norm=spec.batch_norm,
                attention=None if kind == "none" else build_attention(kind, above),
                attention_active=active,
            )
            for below, above in pairwise(widths)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the deepest maps (B, 128·scale, 8, 8) and every level's maps before pooling, shallowest first."""
        before_pooling = []
        for block in self.blocks:
            x, skip = block(x)
            before_pooling.append(skip)
        return x, before_pooling


class RefinementBlock(nn.Module):
    """Three 3×3 convolutions around a residual, as shared decoders have after each level."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ReLU(x + block(x)), same shape."""
        return F.relu(x + self.block(x))


def refinement_blocks(channels: list[int]) -> nn.ModuleList:
    """Return one refinement block per decoder level; the last has twice the hidden channels."""
    last = len(channels) - 1
    return nn.ModuleList(RefinementBlock(c, 2 * c if i == last else c) for i, c in enumerate(channels))


@dataclass(frozen=True)
class HeadActivations:
    """What follows each path of an output head, and their sum."""

    inner: Activation
    """After path 1, before padding."""
    outer: Activation
    """After path 2."""
    whole: Activation = identity
    """After the sum of both."""


class OutputHead(nn.Module):
    """The last stage: the object inside the probe's support (path 1) plus what surrounds it (path 2).

    Path 1 works at N/2 and fills the central half of the frame; path 2 doubles a few channels to the whole frame.
    """

    border: Tensor | None

    def __init__(
        self,
        spec: ModelSpec,
        out_channels: int,
        *,
        batch_norm: bool,
        activations: HeadActivations,
        use_outer: bool = True,
    ) -> None:
        """Build the head.

        Args:
            spec: supplies N, the width of the last decoder level, `c_outer` and `border_mask`.
            out_channels: channels of the result.
            batch_norm: normalise after both heads' convolutions and in the up block of path 2.
            activations: what follows each path and their sum.
            use_outer: False leaves path 2 out of the sum; its weights are stored all the same.
        """
        super().__init__()
        width = 32 * spec.n_filters_scale
        self.c_outer = spec.c_outer
        self.pad_px = spec.N // 4
        self.conv1 = nn.Conv2d(width - spec.c_outer, out_channels, 3, padding=1)
        self.conv_up_block = UpBlock(spec.c_outer, width, batch_norm=batch_norm)
        self.conv2 = nn.Conv2d(width, out_channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(out_channels, eps=BATCH_NORM_EPS) if batch_norm else None
        self.bn2 = nn.BatchNorm2d(out_channels, eps=BATCH_NORM_EPS) if batch_norm else None
        self.inner, self.outer, self.whole = activations.inner, activations.outer, activations.whole
        self.use_outer = use_outer
        border = None
        if spec.border_mask:
            # On the CPU even under a meta-device context: the mask is no weight, and no state_dict brings it.
            border = torch.ones(1, 1, spec.N, spec.N, device="cpu")
            border[:, :, self.pad_px : -self.pad_px, self.pad_px : -self.pad_px] = 0.0
        self.register_buffer("border", border, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 32·scale, N/2, N/2) to (B, out_channels, N, N)."""
        y = self.conv1(x[:, : -self.c_outer])
        y = self.inner(y if self.bn1 is None else self.bn1(y))
        y = F.pad(y, (self.pad_px,) * 4)
        if self.use_outer:
            z = self.conv2(self.conv_up_block(x[:, -self.c_outer :]))
            z = self.outer(z if self.bn2 is None else self.bn2(z))
            y = y + (z if self.border is None else z * self.border)
        return self.whole(y)
