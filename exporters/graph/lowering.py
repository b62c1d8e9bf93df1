"""Networks as real-valued layers that every ONNX runtime has kernels for.

`lower` copies a network and swaps what does not export well: Fourier layers become small matrix products with constant
matrices, bicubic resizing two matrix products, and so on. The mathematics is the same to rounding; the original stays
as it was and remains the reference. Nothing in the lowered copy asks for a tensor's shape, so that the exported graph
has no shape arithmetic, which onnxruntime would put on the CPU.

Constants are computed in float64 and rounded once to the precision that the network has when it is lowered.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Final, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exporters.graph.fourier_layers import AxisFilter, Float64Array, PlaneFilter, constant
from ptycho_torch.models.attention import ChannelGate
from ptycho_torch.models.blocks import OutputHead, PoolBlock
from ptycho_torch.models.cnn import Decoder, SharedDecoder
from ptycho_torch.models.lifter import INPUT_NORM_EPS, InputTransform
from ptycho_torch.models.spectral import FactorizedSpectralConv, SpectralConv2d
from ptycho_torch.models.uno import CentredSpectralConv, Lifting, Pointwise, Skip

BICUBIC_A: Final = -0.75  # PyTorch's cubic convolution coefficient


def lower(network: nn.Module) -> nn.Module:
    """Return a copy of `network`, in eval mode and without gradients, built of exportable layers only.

    Layers that hold weights without acting (an attention that PtychoPINN stores and never applies, the outer path of a
    network trained with `probe_big` off) are left out of the copy.

    Args:
        network: a network of `ptycho_torch.models`, or any module that contains one; float32 or float64.
    """
    return _lower(copy.deepcopy(network).eval().requires_grad_(False), {})


def _lower(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """Lower `module` and what it contains; `done` keeps layers shared that were shared before."""
    if module not in done:
        replace = REPLACEMENTS.get(type(module))
        lowered = done[module] = module if replace is None else replace(module)
        for name, child in list(lowered.named_children()):
            lowered.register_module(name, _lower(child, done))
    return done[module]


# Fourier layers


class FactorizedFilter(nn.Module):
    """Filters along the width and along the height, summed."""

    def __init__(self, layer: FactorizedSpectralConv) -> None:
        super().__init__()
        self.x = AxisFilter(layer.weights_x[..., : layer.bins], layer.size_px, along_rows=True)
        self.y = AxisFilter(layer.weights_y[..., : layer.bins], layer.size_px, along_rows=False)

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x` (B, in, N, N)."""
        y: Tensor = self.x(x) + self.y(x)
        return y


def _lower_spectral(layer: SpectralConv2d) -> nn.Module:
    weights = layer.weights[:, :, : layer.rows, : layer.columns]
    rows = list(range(layer.rows))
    return PlaneFilter(weights, rows, rows, layer.size_px, layer.size_px, 1.0 / layer.size_px**2)


def _lower_centred_spectral(layer: CentredSpectralConv) -> nn.Module:
    weights = layer.weight.tensor
    half = weights.shape[2] // 2
    # Row i of the weights is frequency i − half, held at that place modulo the input's size. Places beyond the output's
    # size are cut off; the others keep their place, whatever frequency it means at the output's size.
    kept = [(i, i - half, (i - half) % layer.in_px) for i in range(weights.shape[2])]
    kept = [row for row in kept if row[2] < layer.out_px]
    plane = PlaneFilter(
        weights[:, :, [i for i, _, _ in kept]],
        [frequency for _, frequency, _ in kept],
        [place for _, _, place in kept],
        layer.in_px,
        layer.out_px,
        1.0 / layer.in_px**2,
    )
    return nn.Sequential(plane, Offset(layer.bias.detach()))


class Offset(nn.Module):
    """Adds a constant."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` plus the constant."""
        return x + self.value


# Resizing and coordinates


class MatrixResize(nn.Module):
    """Resizing of images of one fixed size by one matrix, applied to rows and to columns."""

    rows: Tensor
    columns: Tensor

    def __init__(self, matrix: Tensor) -> None:
        """Take the matrix (out, in)."""
        super().__init__()
        self.register_buffer("rows", matrix)
        self.register_buffer("columns", matrix.T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, in, in) to (B, channels, out, out)."""
        return self.rows @ (x @ self.columns)


def bicubic_matrix(in_px: int, out_px: int) -> Float64Array:
    """Return the matrix (out_px, in_px) of bicubic interpolation with aligned corners (Keys 1981, a = −0.75).

    Taps beyond the edge fall on the edge pixel.
    """
    matrix = np.zeros((out_px, in_px))
    for i in range(out_px):
        position = i * (in_px - 1) / (out_px - 1)
        first = int(np.floor(position))
        for tap in range(first - 1, first + 3):
            matrix[i, min(max(tap, 0), in_px - 1)] += _cubic(abs(position - tap))
    return matrix


def _cubic(distance: float) -> float:
    a = BICUBIC_A
    if distance <= 1.0:
        return ((a + 2.0) * distance - (a + 3.0)) * distance**2 + 1.0
    if distance < 2.0:
        return ((a * distance - 5.0 * a) * distance + 8.0 * a) * distance - 4.0 * a
    return 0.0


def _lower_skip(layer: Skip) -> nn.Module:
    conv, sizes = _lower_pointwise(layer.conv), layer.resize
    if sizes.in_px == sizes.out_px:
        return conv
    resize = MatrixResize(constant(bicubic_matrix(sizes.in_px, sizes.out_px), conv.weight))
    # A pointwise layer without bias and a resizing may change places: the layer is put where there are fewer pixels.
    return nn.Sequential(resize, conv) if sizes.out_px < sizes.in_px else nn.Sequential(conv, resize)


class LiftingWithGrid(nn.Module):
    """The pointwise perceptron over diffraction and pixel coordinates, which are constants of the graph."""

    grid: Tensor

    def __init__(self, layer: Lifting) -> None:
        super().__init__()
        self.fcs = layer.fcs
        self.register_buffer("grid", layer.grid.to(cast(Pointwise, layer.fcs[0]).weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 1, N, N) to (B, HIDDEN, N, N)."""
        # 0·x gives the coordinates the patterns' axis without asking for its size.
        y: Tensor = self.fcs[1](F.gelu(self.fcs[0](torch.cat((x, 0.0 * x + self.grid), dim=1))))
        return y


# Pointwise layers, norms, gates


class ImageNorm(nn.Module):
    """Instance norm written out: per image and channel, biased variance, then weight and bias."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.register_buffer("weight", layer.weight.detach()[:, None, None])
        self.register_buffer("bias", layer.bias.detach()[:, None, None])
        self.eps = layer.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (B, channels, N, N)."""
        centred = x - image_mean(x)
        variance = image_mean(centred * centred)
        return centred * (self.weight / torch.sqrt(variance + self.eps)) + self.bias


class NormalisedInput(nn.Module):
    """The `instancenorm` input transform with means that stay accurate."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (B, channels, N, N)."""
        centred = x - image_mean(x)
        return centred / torch.sqrt(image_mean(centred * centred) + INPUT_NORM_EPS)


def image_mean(x: Tensor) -> Tensor:
    """Return each image's mean, (B, channels, 1, 1): along rows, then along columns.

    Runtimes add up all N² numbers one after the other in float32; of a diffraction pattern, where few pixels hold nearly
    everything, that loses a digit.
    """
    return x.mean(3, keepdim=True).mean(2, keepdim=True)


def _lower_input_transform(layer: InputTransform) -> nn.Module:
    return NormalisedInput() if layer.kind == "instancenorm" else layer


class ConstantGate(nn.Module):
    """A channel gate that no longer depends on its input."""

    gate: Tensor

    def __init__(self, gate: Tensor) -> None:
        super().__init__()
        self.register_buffer("gate", gate)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (B, channels, n, n) with every channel scaled by its gate."""
        return x * self.gate


def _lower_pointwise(layer: Pointwise) -> nn.Conv2d:
    return _pointwise_conv(layer.weight.detach().unsqueeze(-1), cast("nn.Parameter | None", layer.bias))


def _pointwise_conv(weight: Tensor, bias: nn.Parameter | None) -> nn.Conv2d:
    # On the meta device: no initial values are drawn, so the random generators stay as they were.
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None, device="meta")
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = bias
    return conv


def _lower_channel_gate(layer: ChannelGate) -> nn.Module:
    hidden, last = cast(nn.Linear, layer.mlp[1]), cast(nn.Linear, layer.mlp[3])
    if hidden.out_features > 0:
        return layer
    # No hidden units: both branches of the perceptron are its last bias. ONNX has no use for zero-size weights.
    return ConstantGate(torch.sigmoid(2.0 * last.bias.detach())[:, None, None])


# Layers that hold weights without acting


def _without_idle_attention(layer: Decoder | SharedDecoder) -> nn.Module:
    layer.attention_blocks = None
    return layer


def _prune_pool_block(layer: PoolBlock) -> nn.Module:
    if not layer.attention_active:
        layer.attention = None
    return layer


def _prune_head(layer: OutputHead) -> nn.Module:
    if not layer.use_outer:
        del layer.conv_up_block, layer.conv2, layer.bn2
        layer.border = None
    return layer


REPLACEMENTS: Final[dict[type[nn.Module], Callable[..., nn.Module]]] = {
    FactorizedSpectralConv: FactorizedFilter,
    SpectralConv2d: _lower_spectral,
    CentredSpectralConv: _lower_centred_spectral,
    Lifting: LiftingWithGrid,
    Skip: _lower_skip,
    Pointwise: _lower_pointwise,
    nn.InstanceNorm2d: ImageNorm,
    InputTransform: _lower_input_transform,
    ChannelGate: _lower_channel_gate,
    Decoder: _without_idle_attention,
    SharedDecoder: _without_idle_attention,
    PoolBlock: _prune_pool_block,
    OutputHead: _prune_head,
}
