"""Convolutions in float64 a group and a few rows at a time: what they unfold stays in the processor's cache.

PyTorch convolves float32 in blocks, but float64 by unfolding whole images, 9 MB for 32 channels of 64 × 64 pixels, of all groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

MOST_UNFOLDED_BYTES = 1 << 20  # at a time
_WHOLE_BYTES = 5 << 19  # what unfolds to less is left to PyTorch
_ONES = ((1,), (1, 1), 1)


class DoubleConvolutions(TorchFunctionMode):
    """While active, large convolutions in float64 on the CPU are computed in parts; every other call is as it was."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, or convolve in parts in its place."""
        if func is torch.conv2d and (found := _convolved(*args, **(kwargs or {}))) is not None:
            return found
        return func(*args, **(kwargs or {}))


def _convolved(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    *rest: Any,
    **more: Any,
) -> Tensor | None:
    """Return a convolution, None where it is of another kind, or small."""
    of_a_kind = image.dtype == torch.float64 and image.device.type == "cpu" and image.ndim == 4
    if not of_a_kind or more or isinstance(padding, str) or torch.is_grad_enabled():
        return None
    if any(value not in _ONES for value in (stride, *rest)):
        return None
    rows_px, columns_px = (padding, padding) if isinstance(padding, int) else tuple(padding)
    outputs, channels, high, wide = weight.shape
    height, width = image.shape[2] + 2 * rows_px - high + 1, image.shape[3] + 2 * columns_px - wide + 1
    row_bytes = channels * high * wide * width * image.element_size()
    if min(height, width) < 1 or len(image) * height * row_bytes <= _WHOLE_BYTES:
        return None
    result = image.new_empty(len(image), outputs, height, width)
    for number, into in enumerate(result):
        group = image[number : number + 1]
        if height * row_bytes <= _WHOLE_BYTES:
            into[:] = torch.conv2d(group, weight, bias, padding=(rows_px, columns_px))[0]
            continue
        padded = torch.nn.functional.pad(group, (columns_px, columns_px, rows_px, rows_px))[0]
        _in_strips(padded, weight, into, max(1, MOST_UNFOLDED_BYTES // row_bytes))
        if bias is not None:
            into += bias[:, None, None]
    return result


def _in_strips(group: Tensor, weight: Tensor, into: Tensor, strip: int) -> None:
    """Convolve one group, (channels, rows, columns) with its edge, into (outputs, rows, columns), so many rows at a time."""
    _, channels, high, wide = weight.shape
    outputs, height, width = into.shape
    matrix = weight.reshape(outputs, -1)
    of_channel, of_row, of_column = group.stride()
    for first in range(0, height, strip):
        count = min(strip, height - first)
        windows = group[:, first:].as_strided(
            (channels, high, wide, count, width), (of_channel, of_row, of_column, of_row, of_column)
        )
        into[:, first : first + count] = (matrix @ windows.reshape(-1, count * width)).view(outputs, count, width)
