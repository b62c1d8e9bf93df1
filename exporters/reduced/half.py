"""Graphs in float16 for CUDA: weights and values take half the memory, and tensor cores multiply them faster.

float16 has 5 bits of exponent: below 6e-5 it loses digits, above 65504 it ends. Layers whose values come near either end, measured on
a scan's patterns, stay in float32. Inputs and outputs of the graph stay float32 too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common
from onnxruntime.transformers.float16 import convert_float_to_float16

from exporters.reduced.quantize import Feed, run

SMALLEST, LARGEST = 2.0**-14, 65504.0  # of float16's normal numbers
ROOM = 16.0  # between a layer's values and either end
_MEASURED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Mul", "Add", "MaxPool", "Relu")


def magnitudes(model: bytes, feed: Feed) -> dict[str, tuple[float, float]]:
    """Return (median of what is not zero, largest) magnitude of each layer's values over a feed, by node name."""
    graph_model = onnx.load_from_string(model)
    nodes = {node.output[0]: node.name for node in graph_model.graph.node if node.op_type in _MEASURED}
    present = {value.name for value in graph_model.graph.output}
    graph_model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in nodes if name not in present)
    found = {}
    for tensor, values in run(graph_model.SerializeToString(), feed).items():
        if tensor in nodes:
            sizes = np.abs(values)
            some = sizes[sizes > 0.0]
            found[nodes[tensor]] = (float(np.median(some)) if len(some) else 1.0, float(sizes.max(initial=0.0)))
    return found


def kept_in_float32(found: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the nodes whose values come near an end of float16."""
    return [name for name, (median, largest) in found.items() if median < ROOM * SMALLEST or largest > LARGEST / ROOM]


def half(model: bytes, keep: list[str]) -> bytes:
    """Return a graph in float16 with float32 inputs and outputs; the nodes in `keep` compute in float32."""
    graph_model = onnx.load_from_string(model)
    _give_each_node_its_own_constants(graph_model.graph)
    # It infers shapes first: without them it would leave out casts around the nodes that are kept.
    converted = convert_float_to_float16(graph_model, keep_io_types=True, node_block_list=keep)
    ordered = ir.from_proto(converted)
    common.TopologicalSortPass()(ordered)
    found = ir.to_proto(ordered)
    onnx.checker.check_model(found)
    return bytes(found.SerializeToString(deterministic=True))


def _give_each_node_its_own_constants(graph: onnx.GraphProto) -> None:
    """Copy constants that several nodes share: the converter would cast one twice under one name where only some nodes are kept."""
    tensors = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    seen: set[str] = set()
    for number, node in enumerate(graph.node):
        for place, name in enumerate(node.input):
            if name in tensors and name in seen:
                copy = graph.initializer.add()
                copy.CopyFrom(tensors[name])
                copy.name = node.input[place] = f"{name}_{number}_{place}"
            seen.add(name)
