"""The convolutional autoencoder without skip connections: every era but the UNet's, supervised models included."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ptycho_torch.models.attention import CBAM, ECA, build_attention
from ptycho_torch.models.blocks import (
    Activation,
    Encoder,
    HeadActivations,
    OutputHead,
    UpBlock,
    decoder_channels,
    encoder_channels,
    identity,
    output_activations,
    refinement_blocks,
)
from ptycho_torch.spec import ModelSpec


def up_blocks(spec: ModelSpec, *, batch_norm: bool) -> nn.ModuleList:
    """Return the decoder's up blocks, deepest first."""
    widths = [encoder_channels(spec)[-1], *decoder_channels(spec)]
    return nn.ModuleList(UpBlock(a, b, batch_norm=batch_norm) for a, b in pairwise(widths))


def decoder_attention(spec: ModelSpec) -> nn.ModuleList | None:
    """Return one attention per decoder level, or None."""
    if spec.decoder_attention == "none":
        return None
    kernel = spec.decoder_spatial_kernel
    return nn.ModuleList(build_attention(spec.decoder_attention, c, kernel) for c in decoder_channels(spec))


class Decoder(nn.Module):
    """Up blocks and one output head, stored under the name of what it gives (`amp` or `phase`)."""

    def __init__(
        self, spec: ModelSpec, head_name: str, out_channels: int, activation: Activation, *, batch_norm: bool
    ) -> None:
        super().__init__()
        self.blocks = up_blocks(spec, batch_norm=batch_norm)
        # Stored by PtychoPINN and never applied outside the UNet era.
        self.attention_blocks = decoder_attention(spec)
        self.head_name = head_name
        head = OutputHead(
            spec,
            out_channels,
            batch_norm=batch_norm,
            activations=HeadActivations(inner=activation, outer=F.silu),
            use_outer=spec.probe_big,
        )
        self.add_module(head_name, head)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 128·scale, 8, 8) to (B, out_channels, N, N)."""
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.get_submodule(self.head_name)(x)
        return y


class SharedDecoder(nn.Module):
    """One decoder for both halves of the output, with refinement after each level and ECA before the head."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        channels = decoder_channels(spec)
        self.blocks = up_blocks(spec, batch_norm=spec.batch_norm)
        self.attention_blocks = decoder_attention(spec)  # as in `Decoder`: stored, not applied
        self.refinement_blocks = refinement_blocks(channels)
        self.eca = ECA(channels[-1])
        self.half_channels = spec.amp_channels
        self.head = OutputHead(
            spec,
            2 * spec.amp_channels,
            batch_norm=spec.batch_norm,
            activations=HeadActivations(inner=identity, outer=F.silu),
            use_outer=spec.probe_big,
        )
        self.activations = output_activations(spec)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 128·scale, 8, 8) to both halves, (B, amp_channels, N, N) each."""
        for block, refine in zip(self.blocks, self.refinement_blocks, strict=True):
            x = refine(block(x))
        x = self.head(self.eca(x))
        first, second = self.activations
        return first(x[:, : self.half_channels]), second(x[:, self.half_channels :])


class CNN(nn.Module):
    """Encoder, optional bottleneck attention, and two decoders or a shared one."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.encoder = Encoder(spec)
        self.bottleneck_cbam = CBAM(encoder_channels(spec)[-1]) if spec.bottleneck_cbam else None
        if spec.shared_decoder:
            self.decoder_shared: SharedDecoder | None = SharedDecoder(spec)
        else:
            self.decoder_shared = None
            first, second = output_activations(spec)
            # PtychoPINN never normalises in the amplitude decoder.
            self.decoder_amp = Decoder(spec, "amp", spec.amp_channels, first, batch_norm=False)
            self.decoder_phase = Decoder(spec, "phase", spec.out_channels, second, batch_norm=spec.batch_norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct object patches from scaled diffraction.

        Args:
            x: (B, in_channels, N, N), diffraction after the input scale.

        Returns:
            (amplitude, phase in rad) or (real, imaginary), by the spec's output mode: (B, amp_channels, N, N) and
            (B, out_channels, N, N), or (B, amp_channels, N, N) twice with a shared decoder.
        """
        x, _ = self.encoder(x)
        if self.bottleneck_cbam is not None:
            x = self.bottleneck_cbam(x)
        if self.decoder_shared is not None:
            both: tuple[Tensor, Tensor] = self.decoder_shared(x)
            return both
        return self.decoder_amp(x), self.decoder_phase(x)
