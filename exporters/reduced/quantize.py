"""Convolutions in int8: what their inputs range over, and a graph in which some of them are quantised.

Inputs get 8 bits over one range for all channels, weights 8 bits over a range of their own for each output. Diffraction
makes that hard: a few channels and the pixels around the beam hold numbers a hundred times those that matter elsewhere. So the
channels of an input may be brought to like ranges first, with weights that undo it (Xiao et al., SmoothQuant, 2023).
Ends of a range that few numbers reach are cut off where that errs less in all, and what rounding shifts an output by on
average is taken off its bias. Outputs stay in floating point, where the next convolution needs no range of theirs.
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
_SAMPLES = 4096  # pixels of each batch that are kept of each input
_CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)  # of the range, beyond which numbers are cut off


@dataclass(frozen=True)
class Range:
    """What a convolution's input ranged over, by channel."""

    low: np.ndarray  # (channels,)
    high: np.ndarray
    samples: np.ndarray  # (channels, pixels) float32: some of its numbers

    def joined(self, other: Range) -> Range:
        """Return the range of both."""
        return Range(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            np.concatenate([self.samples, other.samples], axis=1),
        )


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
    random = np.random.default_rng(0)
    with _open(graph_model.SerializeToString()) as session:
        for part in _parts(feed):
            found = part | session.run(part)
            for name in tensors:
                values = np.moveaxis(found[name], 1, 0).reshape(found[name].shape[1], -1)
                chosen = random.choice(values.shape[1], min(_SAMPLES, values.shape[1]), replace=False)
                held, new = ranges.get(name), Range(values.min(1), values.max(1), values[:, chosen])
                ranges[name] = new if held is None else held.joined(new)
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
    samples = found.samples.astype(np.float64)
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
        low, high, samples = low * shrink, high * shrink, samples * shrink[:, None]
    step, zero = _steps(float(low.min()), float(high.max()), samples, np.square(weights).sum((0, 2, 3)))
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
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        # What rounding shifts an output by on average is taken off (Nagel et al., Data-Free Quantization, 2019).
        means = _rounded(samples, step, int(zero)).mean(1)
        shift = (whole * steps[:, None, None, None]).sum((2, 3)) @ means - weights.sum((2, 3)) @ samples.mean(1)
        node.replace_input_with(2, add_initializer(graph, f"{node.name}_bias", (bias - shift).astype(np.float32)))


def _steps(low: float, high: float, samples: np.ndarray, importance: np.ndarray) -> tuple[float, np.ndarray]:
    """Return (size of a step, zero point) of an input: of ranges cut off at both ends, the one that errs least.

    Args:
        low: smallest number, 0 or less.
        high: largest.
        samples: (channels, pixels) of its numbers.
        importance: (channels,) by which an error of each counts: its weights, squared and added up.
    """
    tried = []
    for clip in _CLIPS:
        step = max(clip * (high - low), 1e-30) / 255.0
        zero = int(np.clip(np.round(-clip * low / step), 0, 255))
        error = np.square(_rounded(samples, step, zero) - samples).mean(1) @ importance
        tried.append((float(error), step, zero))
    _, step, zero = min(tried)
    return step, np.array(zero, np.uint8)


def _rounded(values: np.ndarray, step: float, zero: int) -> np.ndarray:
    """Return what 8 bits make of values."""
    whole: np.ndarray = (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step
    return whole


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
