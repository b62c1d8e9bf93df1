"""Channel and spatial attention: CBAM (Woo et al., ECCV 2018) and ECA (Wang et al., CVPR 2020)."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

CHANNEL_GATE_REDUCTION = 16
SPATIAL_GATE_KERNEL = 7
ECA_KERNEL = 3


class ChannelGate(nn.Module):
    """Weights each channel by a shared perceptron of its global mean and its global maximum.

    With fewer than 16 channels the hidden layer has no units at all, and the gate depends on the last bias alone.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // CHANNEL_GATE_REDUCTION
        with warnings.catch_warnings():
            # PyTorch remarks that a layer without units has nothing to initialise.
            warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
            # Flatten and ReLU hold places 0 and 2, so that the layers are stored as mlp.1 and mlp.3.
            self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (B, channels, rows, columns) with every channel scaled by its gate."""
        gate: Tensor = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        return x * torch.sigmoid(gate).reshape(-1, self.channels, 1, 1)


class SpatialGate(nn.Module):
    """Weights each pixel by one convolution of the channels' maximum and mean, in that order."""

    def __init__(self, kernel: int = SPATIAL_GATE_KERNEL) -> None:
        super().__init__()
        self.compress = nn.Conv2d(2, 1, kernel, padding=(kernel - 1) // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (B, channels, rows, columns) with every pixel scaled by its gate."""
        gate = self.compress(torch.cat((x.amax(1, keepdim=True), x.mean(1, keepdim=True)), dim=1))
        return x * torch.sigmoid(gate)


class CBAM(nn.Module):
    """Channel gate, then spatial gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ChannelGate = ChannelGate(channels)
        self.SpatialGate = SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated `x`, same shape."""
        y: Tensor = self.SpatialGate(self.ChannelGate(x))
        return y


class ECA(nn.Module):
    """Weights each channel by a short convolution along the sequence of channel means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, ECA_KERNEL, padding=ECA_KERNEL // 2, bias=False)
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (B, channels, rows, columns) with every channel scaled by its gate."""
        means = x.mean((2, 3)).reshape(-1, 1, self.channels)
        return x * torch.sigmoid(self.conv(means)).reshape(-1, self.channels, 1, 1)


class SpatialAttention(nn.Module):
    """A spatial gate by itself, as decoders may have it."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.spatial_gate = SpatialGate(kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated `x`, same shape."""
        y: Tensor = self.spatial_gate(x)
        return y


def build_attention(kind: str, channels: int, spatial_kernel: int = SPATIAL_GATE_KERNEL) -> nn.Module:
    """Return the attention named `kind` ('cbam', 'eca' or 'spatial') for so many channels."""
    if kind == "cbam":
        return CBAM(channels)
    if kind == "eca":
        return ECA(channels)
    return SpatialAttention(spatial_kernel)
