"""The UNet of the 2026-04 releases: skip connections, real and imaginary heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptycho_torch.models.attention import CBAM, ECA
from ptycho_torch.models.blocks import (
    Activation,
    Encoder,
    HeadActivations,
    OutputHead,
    bounded_imag,
    bounded_real,
    decoder_channels,
    encoder_channels,
    identity,
    refinement_blocks,
)
from ptycho_torch.models.cnn import decoder_attention, up_blocks
from ptycho_torch.spec import ModelSpec


def skip_channels(spec: ModelSpec) -> list[int]:
    """Return the channels of the skips, in the order in which the decoder takes them (deepest first)."""
    return encoder_channels(spec)[-2::-1]


class Merge(nn.Sequential):
    """Two 3×3 convolutions with ReLU over a level's maps and its skip."""

    def __init__(self, channels: int, skip: int) -> None:
        super().__init__(
            nn.Conv2d(channels + skip, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
        )


class UNetDecoder(nn.Module):
    """Up block, merge with the skip, attention (and refinement in the shared decoder) per level; then the head."""

    def __init__(
        self, spec: ModelSpec, head_name: str, out_channels: int, activation: Activation, *, batch_norm: bool
    ) -> None:
        super().__init__()
        channels = decoder_channels(spec)
        self.blocks = up_blocks(spec, batch_norm=batch_norm)
        self.merge_blocks = nn.ModuleList(Merge(c, s) for c, s in zip(channels, skip_channels(spec), strict=True))
        self.attention_blocks = decoder_attention(spec)
        self.refinement_blocks = refinement_blocks(channels) if spec.shared_decoder else None
        self.eca = ECA(channels[-1]) if spec.shared_decoder else None
        self.head_name = head_name
        # One activation over the sum of both paths; the UNet's head ignores `probe_big`.
        activations = HeadActivations(inner=identity, outer=identity, whole=activation)
        head = OutputHead(spec, out_channels, batch_norm=batch_norm, activations=activations)
        self.add_module(head_name, head)

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """Map (B, 128·scale, 8, 8) and the skips, deepest first, to (B, out_channels, N, N)."""
        for level, (block, merge) in enumerate(zip(self.blocks, self.merge_blocks, strict=True)):
            # A skip is twice as large as the maps it joins: bilinear resizing without aligned corners is then the mean
            # over 2×2 pixels.
            x = merge(torch.cat((block(x), F.avg_pool2d(skips[level], 2)), dim=1))
            if self.attention_blocks is not None:
                x = self.attention_blocks[level](x)
            if self.refinement_blocks is not None:
                x = self.refinement_blocks[level](x)
        if self.eca is not None:
            x = self.eca(x)
        y: Tensor = self.get_submodule(self.head_name)(x)
        return y


class UNet(nn.Module):
    """Encoder, optional bottleneck attention, and two decoders with skips or a shared one."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.encoder = Encoder(spec)
        self.bottleneck_cbam = CBAM(encoder_channels(spec)[-1]) if spec.bottleneck_cbam else None
        self.half_channels = spec.amp_channels
        real, imag = (bounded_real, bounded_imag) if spec.unet_heads == "bounded" else (torch.tanh, torch.tanh)
        if spec.shared_decoder:
            # The shared head bounds both halves as an imaginary part.
            self.decoder: UNetDecoder | None = UNetDecoder(
                spec, "head", 2 * spec.amp_channels, imag, batch_norm=spec.batch_norm
            )
        else:
            self.decoder = None
            self.decoder_amp = UNetDecoder(spec, "amp", spec.amp_channels, real, batch_norm=False)
            self.decoder_phase = UNetDecoder(spec, "phase", spec.out_channels, imag, batch_norm=spec.batch_norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct object patches from scaled diffraction.

        Args:
            x: (B, in_channels, N, N), diffraction after the input scale.

        Returns:
            Real and imaginary parts: (B, amp_channels, N, N) and (B, out_channels, N, N), or (B, amp_channels, N, N)
            twice with a shared decoder.
        """
        x, before_pooling = self.encoder(x)
        if self.bottleneck_cbam is not None:
            x = self.bottleneck_cbam(x)
        # The deepest map is left out: the decoder starts from its pooled form.
        skips = before_pooling[-2::-1]
        if self.decoder is not None:
            both = self.decoder(x, skips)
            return both[:, : self.half_channels], both[:, self.half_channels :]
        return self.decoder_amp(x, skips), self.decoder_phase(x, skips)
