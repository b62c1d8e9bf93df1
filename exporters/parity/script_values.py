"""Values inside a TorchScript file that may be run: made outputs of a copy of its program."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from exporters.parity.reference import one_thread
from exporters.parity.runners import Outputs
from ptycho_runtime import contract

_OF_PHYSICS = (
    contract.POSITIONS,
    contract.PROBE_REAL,
    contract.PROBE_IMAG,
)  # nothing before the physics is computed from them
_STEPS = tuple(f"aten::{name}" for name in ("matmul", "mul", "add", "sub", "div", "neg"))
# What a network begins with: it brings pixels together, or takes them to more channels.
_FIRST_LAYERS = tuple(f"aten::{name}" for name in ("_convolution", "conv2d", "linear", "matmul", "bmm", "einsum"))
_SIZES = ("aten::size", "prim::shape", "aten::zeros_like", "aten::ones_like")


def values_of_physics(data: bytes, feed: Mapping[str, np.ndarray]) -> Outputs:
    """Return what a file computes from positions and probe, by the values' names in its program, in order.

    Args:
        data: a TorchScript file that may be run.
        feed: its inputs by name.
    """
    program = _Program(data)
    return program.values(list(_behind(program.graph, _OF_PHYSICS, _STEPS)), feed)


def value_before_first_layer(data: bytes, feed: Mapping[str, np.ndarray], shape: Sequence[int]) -> np.ndarray | None:
    """Return what a file hands its network's first layer: the last value of a shape that is made of the patterns before it.

    Args:
        data: a TorchScript file that may be run.
        feed: its inputs by name.
        shape: of what is looked for.

    Returns:
        None where nothing of that shape is there.
    """
    program = _Program(data)
    found = program.values(list(_before_first_layer(program.graph)), feed)
    fitting = [value for value in found.values() if value.shape == tuple(shape)]
    return fitting[-1] if fitting else None


class _Program:
    """A file's program in one piece."""

    def __init__(self, data: bytes) -> None:
        """Read a file; norms are not folded into convolutions, so that every value is as the file computes it."""
        module = torch.jit.load(io.BytesIO(data)).eval()  # type: ignore[no-untyped-call]
        self.module = torch.jit.freeze(module, optimize_numerics=False)
        self.graph: torch.Graph = self.module.graph

    def values(self, wanted: Sequence[torch.Value], feed: Mapping[str, np.ndarray]) -> Outputs:
        """Return values by name; the program keeps them as outputs, so it can be asked once."""
        _, *inputs = self.graph.inputs()
        names = [value.debugName().partition(".")[0] for value in inputs]
        for value in wanted:
            self.graph.registerOutput(value)
        self.graph.makeMultiOutputIntoTuple()
        run = torch._C._create_function_from_graph("values", self.graph)
        with torch.no_grad(), one_thread():
            _, *found = run(self.module._c, *(torch.from_numpy(feed[name]) for name in names))
        return {value.debugName(): tensor.numpy() for value, tensor in zip(wanted, found, strict=True)}


def _behind(program: torch.Graph, inputs: tuple[str, ...], kinds: Sequence[str]) -> Iterator[torch.Value]:
    """Yield tensors that inputs of such names have a part in, and that nodes of such kinds make, in order."""
    for node in _nodes_behind(program, inputs):
        if node.kind() in kinds:
            yield from _tensors(node)


def _before_first_layer(program: torch.Graph) -> Iterator[torch.Value]:
    for node in _nodes_behind(program, (contract.DIFFRACTION,)):
        if node.kind() in _FIRST_LAYERS:
            return
        yield from _tensors(node)


def _nodes_behind(program: torch.Graph, inputs: tuple[str, ...]) -> Iterator[torch.Node]:
    """Yield the nodes that the numbers of inputs of such names have a part in, in order; their sizes do not count, nor 0 times them."""
    reached = {value.debugName() for value in program.inputs() if value.debugName().startswith(inputs)}
    for node in program.nodes():
        if node.kind() in _SIZES or _is_zero(node):
            continue
        if not reached.isdisjoint(value.debugName() for value in node.inputs()):
            reached.update(value.debugName() for value in node.outputs())
            yield node


def _tensors(node: torch.Node) -> Iterator[torch.Value]:
    return (value for value in node.outputs() if isinstance(value.type(), torch.TensorType))


def _is_zero(node: torch.Node) -> bool:
    """Say whether a node multiplies by a constant 0, as what takes but the size of something does."""
    if node.kind() != "aten::mul":
        return False
    factors = [value.toIValue() for value in node.inputs() if value.node().kind() == "prim::Constant"]
    return any(isinstance(factor, int | float | torch.Tensor) and not np.any(np.asarray(factor)) for factor in factors)
