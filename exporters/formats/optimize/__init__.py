"""Exact rewrites of an exported ONNX graph: the same numbers to rounding, in operations that runtimes do faster or more accurately.

Each is kept because a measurement says so (`ptycho-export bench --rewrites` leaves out one after the other; docs/speed.md has the
figures). TorchScript files stay as traced, so that parity still compares two expressions of every model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import Final

import onnx_ir as ir
from onnx_ir.passes import common

from exporters.formats.optimize.pixel_blocks import rewrite_wide_kernels
from exporters.formats.optimize.sigmoid import write_out_sigmoids
from exporters.formats.optimize.subpixel import rewrite_upsampling

REWRITES: Final = MappingProxyType[str, Callable[[ir.Graph], int]](
    {"sub-pixel": rewrite_upsampling, "pixel blocks": rewrite_wide_kernels, "sigmoids": write_out_sigmoids}
)


def optimize(model: ir.Model, rewrites: Iterable[str] = REWRITES) -> None:
    """Rewrite a model in place; what no node needs any more is removed.

    Args:
        model: float32, with the shapes of its values but for dynamic axes, as `torch.onnx.export` gives it.
        rewrites: names of those to apply, of `REWRITES`.
    """
    for name in rewrites:
        REWRITES[name](model.graph)
    common.RemoveUnusedNodesPass()(model)


__all__ = ["REWRITES", "optimize"]
