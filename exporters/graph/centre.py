"""The middle of the object patches alone: a stitching run uses nothing else, so nothing else is computed.

The last stage of a CNN or UNet adds two paths: one fills the central half of the frame, the other reaches the whole frame. Where a
mask keeps the second one out of the middle, its convolutions are left out; elsewhere they are computed on just the pixels
that the middle depends on. The middle is what the whole graph gives there, to rounding.

`keep_centre` makes a network of that kind; `add_centre` one that gives the whole and the middle in one run, for tracing both at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn

from ptycho_torch.models.blocks import OutputHead

_REACH_PX = 3  # of the three convolutions of the second path, at half resolution


def keep_centre(network: nn.Module) -> None:
    """Replace the last stages of a lowered CNN or UNet by ones that compute their middle alone."""
    for name, module in list(network.named_modules()):
        if isinstance(module, OutputHead):
            network.set_submodule(name, CentreHead(module))


# The part of a path that tells the second form of a last stage from the first, see `as_alone`.
MIDDLE = "in_the_middle"


def add_centre(network: nn.Module) -> None:
    """Let the last stages of a lowered CNN or UNet return both what they return and what `keep_centre` would have them return."""
    for module in list(network.modules()):
        if isinstance(module, OutputHead):
            # Its layers are copied, what they hold is not: an exporter then writes each weight once.
            held = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
            module.add_module(MIDDLE, CentreHead(copy.deepcopy(module, held)))
            module.register_forward_hook(_with_middle)


def as_alone(path: str) -> str:
    """Return the path that a layer in the middle, or what it holds, has in a network where `keep_centre` put it."""
    return ".".join(part for part in path.split(".") if part != MIDDLE)


def _with_middle(stage: nn.Module, inputs: tuple[Tensor, ...], whole: Tensor) -> WholeAndMiddle:
    return WholeAndMiddle(whole, stage.get_submodule(MIDDLE)(*inputs))


class WholeAndMiddle:
    """What a last stage gives over the whole frame and over its middle; what follows it is done to both.

    That is one function of a tensor after the other, adding or multiplying by a number, and taking some of the channels.
    """

    def __init__(self, whole: Tensor, middle: Tensor) -> None:
        """Take (B, channels, N, N) and (B, channels, N/2, N/2)."""
        self.whole, self.middle = whole, middle

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Tensor], types: Any, args: tuple[Self, ...] = (), kwargs: Any = None
    ) -> Self:
        (both,) = args
        return cls(*(function(view, **(kwargs or {})) for view in (both.whole, both.middle)))

    def __getitem__(self, channels: tuple[slice, slice]) -> Self:
        return type(self)(self.whole[channels], self.middle[channels])

    def __rmul__(self, factor: float) -> Self:
        return type(self)(factor * self.whole, factor * self.middle)

    def __radd__(self, offset: float) -> Self:
        return type(self)(offset + self.whole, offset + self.middle)


class CentreHead(nn.Module):
    """The central half of what an `OutputHead` returns."""

    def __init__(self, head: OutputHead) -> None:
        """Take over the layers of a head, which is not used any more."""
        super().__init__()
        self.c_outer = head.c_outer
        self.conv1, self.bn1 = head.conv1, head.bn1
        self.inner, self.outer, self.whole = head.inner, head.outer, head.whole
        self.second_path = head.use_outer and head.border is None
        # At half resolution the middle is N/4 pixels, of which a doubled pixel needs its neighbour on either side.
        self.start_px = head.pad_px // 2 - _REACH_PX
        self.stop_px = head.pad_px // 2 + head.pad_px + _REACH_PX
        if self.second_path:
            self.conv_up_block, self.conv2, self.bn2 = head.conv_up_block, head.conv2, head.bn2
            for convolution in (self.conv_up_block.conv1, self.conv_up_block.conv2, self.conv2):
                convolution.padding = (0, 0)  # what lies around are pixels of the frame, not its edge

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 32·scale, N/2, N/2) to (B, out_channels, N/2, N/2)."""
        y = self.conv1(x[:, : -self.c_outer])
        y = self.inner(y if self.bn1 is None else self.bn1(y))
        if self.second_path:
            near = slice(self.start_px, self.stop_px)
            z = self.conv2(self.conv_up_block(x[:, -self.c_outer :, near, near]))[..., 1:-1, 1:-1]
            y = y + self.outer(z if self.bn2 is None else self.bn2(z))
        return self.whole(y)
