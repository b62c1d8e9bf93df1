"""What TensorFloat-32 costs, computed on any host: the graph in float64 with the operands of its products rounded.

TF32 keeps 10 of float32's 23 mantissa bits of both factors of a convolution or matrix product and adds up in float32
(NVIDIA A100 architecture white paper, 2020). What a row in TF32 may err follows from that, not from a tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from exporters.graph.graphs import build_graph, graph_io
from exporters.parity.inputs import Pool
from exporters.parity.runners import EagerRunner, Outputs
from ptycho_torch.models.module import PtychoModel

TF32_BITS = 11  # significant, the leading one included
_CHUNK = 8
_PRODUCTS: frozenset[Callable[..., Any]] = frozenset({
    torch.conv1d, torch.conv2d, torch.conv_transpose2d, torch.nn.functional.linear, torch.matmul, torch.bmm, torch.mm,
    torch.einsum, Tensor.matmul, Tensor.__matmul__, Tensor.bmm, Tensor.mm,
})  # fmt: skip


class RoundedOperands(TorchFunctionMode):
    """While active, factors of convolutions and matrix products are rounded to so many significant bits."""

    def __init__(self, bits: int = TF32_BITS) -> None:
        """Take the number of significant bits."""
        super().__init__()
        self.bits = bits

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, with its first two tensors rounded where it is a product."""
        if func in _PRODUCTS:
            args = tuple(
                rounded(arg, self.bits) if isinstance(arg, Tensor) and place < 2 else arg
                for place, arg in enumerate(args)
            )
        return func(*args, **(kwargs or {}))


def rounded(x: Tensor, bits: int) -> Tensor:
    """Return `x` rounded to so many significant bits, half to even."""
    if not x.is_floating_point():
        return x
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp(torch.round(mantissa * 2.0**bits) * 2.0**-bits, exponent)


def tf32_eager(model: PtychoModel, graph: str, pool: Pool, reference: Mapping[str, np.ndarray]) -> Outputs:
    """Return what stands for eager's outputs in the budget of TF32 rows: the reference plus the effect of rounding alone.

    The effect is taken between two runs of the exportable graph in float64, so a graph that computes something else than
    the model gains nothing by it.
    """
    double = EagerRunner(model, graph, dtype=torch.float64).model
    module = build_graph(double, graph)
    inputs, outputs = graph_io(model.spec, graph)
    parts = []
    for start in range(0, len(pool), _CHUNK):
        feed = pool.slice(start, min(start + _CHUNK, len(pool)))
        tensors = [torch.from_numpy(np.ascontiguousarray(feed[info["name"]])) for info in inputs]
        tensors = [t.double() if t.is_floating_point() else t for t in tensors]
        with torch.no_grad():
            plain = module(*tensors)
            with RoundedOperands():
                coarse = module(*tensors)
        parts.append([(b - a).numpy() for a, b in zip(plain, coarse, strict=True)])
    names = [info["name"] for info in outputs]
    return {name: reference[name] + np.concatenate([part[i] for part in parts]) for i, name in enumerate(names)}
