"""Layers of an exported file, cut out and put side by side in a file of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx

from exporters.parity.layers import scopes


@dataclass(frozen=True)
class Cut:
    """The nodes of one layer in a file."""

    path: str
    entering: str
    leaving: str
    nodes: tuple[int, ...]
    """Positions in the file, in order."""
    weights: tuple[str, ...] = ()
    """What of the file's own they take."""


def layer_cuts(model: onnx.ModelProto, matches: Iterable[tuple[str, int, str]]) -> list[Cut]:
    """Return the nodes of each layer that takes one value.

    Args:
        model: an exported file.
        matches: from `match_layers`.
    """
    producers = {value: k for k, node in enumerate(model.graph.node) for value in node.output}
    inside = [scopes(node) for node in model.graph.node]
    weights = {tensor.name for tensor in model.graph.initializer}
    cuts = []
    for path, _, leaving in matches:
        nodes: set[int] = set()
        entering: set[str] = set()
        queue = [leaving]
        while queue:
            value = queue.pop()
            at = producers.get(value)
            if at is None or path not in inside[at]:
                entering |= {value} if value and value not in weights else set()
            elif at not in nodes:
                nodes.add(at)
                queue += model.graph.node[at].input
        if len(entering) == 1 and nodes:
            order = tuple(sorted(nodes))
            used = dict.fromkeys(name for at in order for name in model.graph.node[at].input if name in weights)
            cuts.append(Cut(path, entering.pop(), leaving, order, tuple(used)))
    return cuts


def cut_out(model: onnx.ModelProto, cuts: Mapping[Cut, tuple[int, ...]]) -> bytes:
    """Return a file of layers side by side, each with the shape of its input: layer `k` takes `k.in` and gives `k.out`."""
    made = onnx.ModelProto(ir_version=model.ir_version)
    made.opset_import.extend(model.opset_import)
    made.graph.name = "layers"
    weights = {tensor.name for tensor in model.graph.initializer}
    needed: set[str] = set()
    for number, (cut, shape) in enumerate(cuts.items()):
        names = {cut.entering: f"{number}.in", cut.leaving: f"{number}.out"}
        for position in cut.nodes:
            node = onnx.NodeProto()
            node.CopyFrom(model.graph.node[position])
            needed |= weights & set(node.input)
            node.name = f"{number}.{position - cut.nodes[0]}"
            del node.metadata_props[:]
            # Numbered, so that the same layers of two graphs are the same file.
            for part in (node.input, node.output):
                part[:] = [n if n in weights or not n else names.setdefault(n, f"{number}.{len(names)}") for n in part]
            made.graph.node.append(node)
        made.graph.input.append(onnx.helper.make_tensor_value_info(f"{number}.in", onnx.TensorProto.FLOAT, shape))
        made.graph.output.append(onnx.ValueInfoProto(name=f"{number}.out"))
    made.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    return bytes(made.SerializeToString())
