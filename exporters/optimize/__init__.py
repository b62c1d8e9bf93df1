"""Exact rewrites of an exported ONNX graph: the same numbers to rounding, in operations that runtimes do faster or more accurately.

Each is kept because a measurement says so; docs/speed.md has the figures. TorchScript files stay as traced, so that
parity still compares two expressions of every model.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from exporters.optimize.pixel_blocks import rewrite_wide_kernels
from exporters.optimize.sigmoid import write_out_sigmoids
from exporters.optimize.subpixel import rewrite_upsampling


def optimize(model: ir.Model) -> None:
    """Rewrite a model in place; what no node needs any more is removed.

    Args:
        model: float32, with the shapes of its values but for dynamic axes, as `torch.onnx.export` gives it.
    """
    rewrite_upsampling(model.graph)
    rewrite_wide_kernels(model.graph)
    write_out_sigmoids(model.graph)
    common.RemoveUnusedNodesPass()(model)


__all__ = ["optimize"]
