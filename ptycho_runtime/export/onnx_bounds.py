"""What a graph takes of a host, from its file alone: memory at its fullest, work, and how both grow with the batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ptycho_runtime import contract
from ptycho_runtime.export.onnx_nodes import Constant, Given, Node, Shape, ShapeError
from ptycho_runtime.export.onnx_shapes import result_shapes, work
from ptycho_runtime.files import printable

# Of one group with one probe mode: for each number that goes in, in any case, and at most. Of the exports in the tests, U-NO at
# 128 px has most for each number that goes in: 256 live at once, and 57 000 multiplications.
LIVE_AN_INPUT, LIVE_ANYWAY, LIVE_AT_MOST = 1 << 12, 1 << 23, 1 << 28
WORK_AN_INPUT, WORK_ANYWAY, WORK_AT_MOST = 1 << 24, 1 << 34, 1 << 42
# Opening a file takes time that grows with the square of its nodes; exports have some hundreds.
MAX_NODES, MAX_CONSTANTS = 5_000, 20_000
# (groups, modes): what a host runs if nobody asks, the most that it runs, and many modes. They are primes, so that no axis is as
# long by chance.
_LARGER = ((17, 1), (4093, 1), (1, 31))


class TooLargeError(ValueError):
    """A graph that takes memory or time out of all proportion; the message says which node and why, without the file's name."""


@dataclass(frozen=True)
class _Graph:
    """What is run."""

    inputs: Sequence[contract.TensorInfo]
    outputs: Sequence[str]
    nodes: Sequence[Node]
    constants: Mapping[str, Constant]


@dataclass(frozen=True)
class _Run:
    """One run on sizes alone."""

    sizes: Mapping[str, Shape]
    elements: tuple[int, ...]
    """Of each node's results together."""
    work: int


def refuse_excess(
    inputs: Sequence[contract.TensorInfo],
    outputs: Sequence[str],
    nodes: Sequence[Node],
    constants: Mapping[str, Constant],
) -> None:
    """Refuse a graph that is too large for any host, or whose results grow faster than its batch.

    Args:
        inputs: of the graph; an axis with the name `modes` has one entry a probe mode, any other name is the batch.
        outputs: their names.
        nodes: in the order in which they run.
        constants: by name.

    Raises:
        TooLargeError: it is.
    """
    graph = _Graph(inputs, outputs, nodes, constants)
    if len(nodes) > MAX_NODES:
        raise TooLargeError(f"has {len(nodes)} nodes")
    if len(constants) > MAX_CONSTANTS:
        raise TooLargeError(f"has {len(constants)} constants")
    names = [*(info["name"] for info in inputs), *constants, *(name for node in nodes for name in node.outputs)]
    if len(set(names)) != len(names):
        raise TooLargeError("gives one name to two things")
    smallest = _run(graph, 1, 1)
    given = sum(math.prod(smallest.sizes[info["name"]]) for info in inputs)
    live, where = _most_live(graph, smallest)
    if live > min(max(LIVE_AN_INPUT * given, LIVE_ANYWAY), LIVE_AT_MOST):
        raise TooLargeError(
            f"takes {4 * live / 2**20:.0f} megabytes of memory for one group of {given} numbers, fullest at {where}"
        )
    if smallest.work > min(max(WORK_AN_INPUT * given, WORK_ANYWAY), WORK_AT_MOST):
        raise TooLargeError(f"takes {smallest.work:.0e} multiplications for one group of {given} numbers")
    with_modes = any(contract.MODES_AXIS in info["shape"] for info in inputs)
    for groups, modes in _LARGER if with_modes else _LARGER[:-1]:
        larger = _run(graph, groups, modes)
        for node, before, after in zip(nodes, smallest.elements, larger.elements, strict=True):
            if after > groups * modes * before:
                raise TooLargeError(f"holds a {printable(node.kind)} whose result grows faster than the batch")
        if larger.work > groups * modes * smallest.work:
            raise TooLargeError("takes time that grows faster than the batch")


def _run(graph: _Graph, groups: int, modes: int) -> _Run:
    sizes = {name: constant.shape for name, constant in graph.constants.items()}
    for info in graph.inputs:
        sizes[info["name"]] = tuple(_side(side, groups, modes) for side in info["shape"])
    elements, total_work = [], 0
    for node in graph.nodes:
        try:
            given = Given(node, sizes, graph.constants)
            shapes = result_shapes(node, given)
            total_work += work(node, given, shapes)
        except ShapeError as error:
            raise TooLargeError(f"holds a {node.kind} that {printable(error, 200)}") from None
        sizes.update(zip(node.outputs, shapes, strict=True))
        elements.append(sum(map(math.prod, shapes)))
    return _Run(sizes, tuple(elements), total_work)


def _side(side: int | str, groups: int, modes: int) -> int:
    if isinstance(side, int) and side > 0:
        return side
    return modes if side == contract.MODES_AXIS else groups


def _most_live(graph: _Graph, run: _Run) -> tuple[int, str]:
    """Return how many numbers there are at the fullest moment, beside those that the file and the host bring, and the operator then."""
    last_use = {name: at for at, node in enumerate(graph.nodes) for name in node.inputs}
    # onnxruntime computes what follows from constants alone when it opens the file, and keeps it.
    kept = {*graph.constants}
    never_freed = {*graph.outputs, *(info["name"] for info in graph.inputs)}
    live, most, where = 0, 0, ""
    for at, node in enumerate(graph.nodes):
        live += run.elements[at]
        if live > most:
            most, where = live, node.kind
        if all(name in kept for name in node.inputs if name):
            kept.update(node.outputs)
        ended = {name for name in node.inputs if name and last_use[name] == at}
        ended.update(name for name in node.outputs if name not in last_use)
        live -= sum(math.prod(run.sizes[name]) for name in ended if name not in kept and name not in never_freed)
    return most, where
