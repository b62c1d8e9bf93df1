"""The U-shaped neural operator as the neuraloperator library 2.0 builds it (Rahman et al., TMLR 2023): `neuralop_uno`.

Its filters keep the 12 row frequencies −6…5 and the column frequencies 0…6. Where a layer changes the image's size, the
product is laid into a spectrum of the input's size and the inverse transform cuts or zero-pads that spectrum's rows at
the end. So 128 → 64 pixels drops the negative row frequencies, and after 64 → 128 they act as +58…+63.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptycho_torch.models.spectral import ComplexWeights
from ptycho_torch.spec import ModelSpec

HIDDEN = 32
MLP_HIDDEN = 128
N = 128
MODES = 12
# Input channels, output channels, input and output pixels of each block.
BLOCKS = ((32, 32, N, N), (32, 64, N, N // 2), (128, 64, N // 2, N // 2), (96, 32, N // 2, N))


class BicubicResize(nn.Module):
    """Bicubic resizing with aligned corners, of images of one fixed size to another; nothing where the sizes agree."""

    def __init__(self, in_px: int, out_px: int) -> None:
        super().__init__()
        self.in_px, self.out_px = in_px, out_px

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, in_px, in_px) to (B, channels, out_px, out_px)."""
        if self.in_px == self.out_px:
            return x
        return F.interpolate(x, size=(self.out_px, self.out_px), mode="bicubic", align_corners=True)


class Pointwise(nn.Module):
    """A linear map of the channels of each pixel; its weight has the shape of a 1-d convolution's, (out, in, 1)."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool) -> None:
        super().__init__()
        layer = nn.Conv1d(in_channels, out_channels, 1, bias=bias)
        self.weight = layer.weight
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, n, n) to (B, out, n, n)."""
        return F.conv2d(x, self.weight.unsqueeze(-1), self.bias)


class ChannelMLP(nn.Module):
    """Two pointwise layers with GELU between them."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int) -> None:
        super().__init__()
        layers = (Pointwise(in_channels, hidden, bias=True), Pointwise(hidden, out_channels, bias=True))
        self.fcs = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, n, n) to (B, out, n, n)."""
        y: Tensor = self.fcs[1](F.gelu(self.fcs[0](x)))
        return y


class Lifting(ChannelMLP):
    """The channel perceptron over each pixel's diffraction, row coordinate and column coordinate, in that order."""

    grid: Tensor

    def __init__(self) -> None:
        super().__init__(3, MLP_HIDDEN, HIDDEN)
        # Coordinates 0 … 127/128. On the CPU even under a meta-device context: no weights bring them.
        axis = torch.arange(N, dtype=torch.float32, device="cpu") / N
        grid = torch.stack((axis[:, None].expand(N, N), axis[None, :].expand(N, N)))[None]
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 1, N, N) to (B, HIDDEN, N, N)."""
        return super().forward(torch.cat((x, self.grid.expand(x.shape[0], -1, -1, -1)), dim=1))


class Skip(nn.Module):
    """A pointwise layer without bias, stored under `conv`, and the resizing that its block does."""

    def __init__(self, in_channels: int, out_channels: int, in_px: int, out_px: int) -> None:
        super().__init__()
        self.conv = Pointwise(in_channels, out_channels, bias=False)
        self.resize = BicubicResize(in_px, out_px)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, in_px, in_px) to (B, out, out_px, out_px)."""
        y: Tensor = self.resize(self.conv(x))
        return y


class DenseTensor(ComplexWeights):
    """Holder of a spectral weight under the key `tensor`."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        scale = (2.0 / (shape[0] + shape[1])) ** 0.5
        self.tensor = nn.Parameter(scale * torch.randn(shape, dtype=torch.complex64))


class CentredSpectralConv(nn.Module):
    """A channel matrix for each of the central 12 × 7 Fourier modes, plus a bias; it may change the image's size."""

    def __init__(self, in_channels: int, out_channels: int, in_px: int, out_px: int) -> None:
        super().__init__()
        self.weight = DenseTensor((in_channels, out_channels, MODES, MODES // 2 + 1))
        self.bias = nn.Parameter(torch.zeros(out_channels, 1, 1))
        self.in_px, self.out_px = in_px, out_px

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, in_px, in_px) to (B, out, out_px, out_px)."""
        weights = self.weight.tensor
        rows = slice((self.in_px - MODES) // 2, (self.in_px + MODES) // 2)
        columns = weights.shape[3]
        spectrum = torch.fft.fftshift(torch.fft.rfft2(x, norm="forward"), dim=2)
        product = spectrum.new_zeros(spectrum.shape[0], weights.shape[1], *spectrum.shape[2:])
        product[:, :, rows, :columns] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, rows, :columns], weights)
        product = torch.fft.ifftshift(product, dim=2)
        y: Tensor = torch.fft.irfft2(product, s=(self.out_px, self.out_px), norm="forward") + self.bias
        return y


class UNOBlock(nn.Module):
    """Spectral filter plus skip, then channel perceptron plus skip; both skips start from the block's input."""

    def __init__(self, in_channels: int, out_channels: int, in_px: int, out_px: int) -> None:
        super().__init__()
        shape = (in_channels, out_channels, in_px, out_px)
        # Lists of one, as the library's blocks could hold several layers.
        self.convs = nn.ModuleList([CentredSpectralConv(*shape)])
        self.fno_skips = nn.ModuleList([Skip(*shape)])
        self.channel_mlp = nn.ModuleList([ChannelMLP(out_channels, out_channels // 2, out_channels)])
        self.channel_mlp_skips = nn.ModuleList([Skip(*shape)])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, in_px, in_px) to (B, out, out_px, out_px)."""
        filtered = self.convs[0](x) + self.fno_skips[0](x)
        y: Tensor = self.channel_mlp[0](filtered) + self.channel_mlp_skips[0](x)
        return y


class UNO(nn.Module):
    """Lifting, four blocks in a U with two horizontal skips, projection; 1,257,858 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.lifting = Lifting()
        self.fno_blocks = nn.ModuleList(UNOBlock(*shape) for shape in BLOCKS)
        # From block i to block 3 − i, resized to the size at which the latter works.
        self.horizontal_skips = nn.ModuleDict(
            {str(i): Skip(BLOCKS[i][1], BLOCKS[i][1], BLOCKS[i][3], BLOCKS[3 - i][2]) for i in (0, 1)}
        )
        self.projection = ChannelMLP(HIDDEN, MLP_HIDDEN, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 1, N, N) to (B, 2, N, N)."""
        x = self.fno_blocks[0](self.lifting(x))
        skip0 = self.horizontal_skips["0"](x)
        x = self.fno_blocks[1](x)
        skip1 = self.horizontal_skips["1"](x)
        x = self.fno_blocks[2](torch.cat((x, skip1), dim=1))
        x = self.fno_blocks[3](torch.cat((x, skip0), dim=1))
        y: Tensor = self.projection(x)
        return y


class NeuralOperatorUNO(nn.Module):
    """The operator under the key `uno`, giving real and imaginary parts."""

    def __init__(self, spec: ModelSpec) -> None:
        """Build for the only spec there is: N = 128, gridsize 1 (the registry refuses others)."""
        super().__init__()
        self.uno = UNO()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct object patches from scaled diffraction.

        Args:
            x: (B, 1, 128, 128), diffraction after the input scale.

        Returns:
            Real and imaginary parts, (B, 1, 128, 128) each.
        """
        both = self.uno(x)
        return both[:, :1], both[:, 1:]
