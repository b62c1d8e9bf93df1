"""Convolutions in int8: what their inputs range over, and a graph in which some of them are quantised.

Inputs get 8 bits over one range for all channels, weights 8 bits over a range of their own for each output. Diffraction
makes that hard: a few channels and the pixels around the beam hold numbers a hundred times those that matter elsewhere. So the
channels of an input may be brought to like ranges first, with weights that undo it (Xiao et al., SmoothQuant, 2023).
Outputs stay in floating point, where the next convolution needs no range of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from exporters.formats.optimize.nodes import add_initializer, constant, new_node
from exporters.graph.cost import multiply_adds_by_node
from ptycho_runtime.engine.onnx_session import OnnxSession
from ptycho_runtime.engine.opening import open_session
from ptycho_runtime.engine.options import RunOptions

Feed = Mapping[str, np.ndarray]
WORTH = 0.005  # of the graph's multiply-adds: smaller convolutions are left alone
_DEAD = 1e-3  # of the largest channel: channels below count as this large, for next time they may be
_BATCH = 16


@dataclass(frozen=True)
class Range:
    """What a convolution's input ranged over, by channel."""

    low: np.ndarray  # (channels,)
    high: np.ndarray


def candidates(model: bytes) -> dict[str, int]:
    """Return the multiply-adds of the convolutions that are worth quantising, by node name, in the graph's order."""
    counts = multiply_adds_by_node(model)
    convolutions = {node.name for node in onnx.load_from_string(model).graph.node if node.op_type == "Conv"}
    least = WORTH * sum(counts.values())
    return {name: count for name, count in counts.items() if name in convolutions and count >= least}


def calibrate(model: bytes, names: Iterable[str], feed: Feed) -> dict[str, Range]:
    """Return the range of the input of each convolution named, over a feed."""
    graph_model = onnx.load_from_string(model)
    wanted = set(names)
    sources = {node.name: node.input[0] for node in graph_model.graph.node if node.name in wanted}
    tensors = list(dict.fromkeys(sources.values()))
    inner = [name for name in tensors if name not in feed]
    present = {value.name for value in graph_model.graph.output}
    graph_model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner if name not in present)
    ranges: dict[str, Range] = {}
    with _open(graph_model.SerializeToString()) as session:
        for part in _parts(feed):
            found = part | session.run(part)
            for name in tensors:
                low, high = found[name].min((0, 2, 3)), found[name].max((0, 2, 3))
                held = ranges.get(name)
                ranges[name] = (
                    Range(low, high) if held is None else Range(np.minimum(held.low, low), np.maximum(held.high, high))
                )
    return {name: ranges[tensor] for name, tensor in sources.items()}


def quantized(model: bytes, plan: Mapping[str, float], ranges: Mapping[str, Range]) -> bytes:
    """Return a graph in which the convolutions of a plan are quantised.

    Args:
        model: float32 ONNX file.
        plan: by node name how far channels are brought to like ranges: 0 not at all, 1 wholly.
        ranges: of their inputs.
    """
    changed = ir.from_proto(onnx.load_from_string(model))
    for node in tuple(changed.graph):
        if node.name is not None and node.name in plan:
            _quantize(changed.graph, node, plan[node.name], ranges[node.name])
    ir.passes.common.RemoveUnusedNodesPass()(changed)
    found = ir.to_proto(changed)
    onnx.checker.check_model(found)
    return bytes(found.SerializeToString(deterministic=True))


def _quantize(graph: ir.Graph, node: ir.Node, evenness: float, found: Range) -> None:
    weights = constant(node.inputs[1])
    given = node.inputs[0]
    assert weights is not None and given is not None and node.name is not None
    low, high = np.minimum(found.low, 0.0).astype(np.float64), np.maximum(found.high, 0.0).astype(np.float64)
    weights = weights.astype(np.float64)
    source = given
    chain: list[ir.Node] = []
    if evenness > 0.0:
        reach = np.maximum(-low, high)
        factor = np.maximum(reach, _DEAD * max(float(reach.max()), 1e-30)) ** evenness
        shrink = (1.0 / factor).astype(np.float32)
        chain.append(
            new_node(node, "Mul", [source, add_initializer(graph, f"{node.name}_shrink", shrink[None, :, None, None])])
        )
        source = chain[-1].outputs[0]
        weights = weights * factor[None, :, None, None]
        low, high = low * shrink, high * shrink
    step = max(float(high.max() - low.min()), 1e-30) / 255.0
    zero = np.round(-float(low.min()) / step).astype(np.uint8)
    scale = add_initializer(graph, f"{node.name}_step", np.array(step, np.float32))
    zero_point = add_initializer(graph, f"{node.name}_zero", np.array(zero))
    chain.append(new_node(node, "QuantizeLinear", [source, scale, zero_point]))
    chain[-1].outputs[0].dtype = ir.DataType.UINT8
    chain.append(new_node(node, "DequantizeLinear", [chain[-1].outputs[0], scale, zero_point]))
    steps = np.abs(weights).max((1, 2, 3)) / 127.0
    steps = np.where(steps > 0.0, steps, 1.0).astype(np.float32)
    whole = np.clip(np.round(weights / steps[:, None, None, None]), -127, 127).astype(np.int8)
    weight = new_node(
        node,
        "DequantizeLinear",
        [
            add_initializer(graph, f"{node.name}_weight_int8", whole),
            add_initializer(graph, f"{node.name}_weight_steps", steps),
            add_initializer(graph, f"{node.name}_weight_zero", np.zeros(len(steps), np.int8)),
        ],
        axis=0,
    )
    weight.name = weight.outputs[0].name = f"{node.name}_weight"
    graph.insert_before(node, [*chain, weight])
    node.replace_input_with(0, chain[-1].outputs[0])
    node.replace_input_with(1, weight.outputs[0])


def _open(model: bytes) -> OnnxSession:
    return open_session(model, RunOptions("cpu"), whole=True)


def run(model: bytes, feed: Feed) -> dict[str, np.ndarray]:
    """Return a graph's outputs by name, computed by onnxruntime on the CPU."""
    with _open(model) as session:
        parts = [session.run(part) for part in _parts(feed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _parts(feed: Feed) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, len(next(iter(feed.values()))), _BATCH):
        yield {name: value[start : start + _BATCH] for name, value in feed.items()}
