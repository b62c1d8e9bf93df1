"""The middle of the object patches alone: a stitching run uses nothing else, so nothing else is computed.

The last stage of a CNN or UNet adds two paths: one fills the central half of the frame, the other reaches the whole frame. Where a
mask keeps the second one out of the middle, its convolutions are left out; elsewhere they are computed on just the pixels
that the middle depends on. The middle is what the whole graph gives there, to rounding.
"""

from __future__ import annotations

from torch import Tensor, nn

from ptycho_torch.models.blocks import OutputHead

_REACH_PX = 3  # of the three convolutions of the second path, at half resolution


def keep_centre(network: nn.Module) -> None:
    """Replace the last stages of a lowered CNN or UNet by ones that compute their middle alone."""
    for name, module in list(network.named_modules()):
        if isinstance(module, OutputHead):
            network.set_submodule(name, CentreHead(module))


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
