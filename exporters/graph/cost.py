"""What a graph must compute at least: the multiply-adds of its products, from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx
from onnx import shape_inference

from exporters.errors import ExportError
from ptycho_runtime import contract

_FREE = {contract.BATCH_AXIS: 1, contract.MODES_AXIS: 1}


def multiply_adds(model: bytes, sizes: Mapping[str, int] = _FREE) -> int:
    """Return the multiply-adds of one run; arguments and errors are those of `multiply_adds_by_node`."""
    return sum(multiply_adds_by_node(model, sizes).values())


def multiply_adds_by_node(model: bytes, sizes: Mapping[str, int] = _FREE) -> dict[str, int]:
    """Return the multiply-adds of each convolution and matrix product in one run, by node name.

    A convolution has one for each output value and each weight that acts on it, zero padding included; a transposed one
    likewise for each input value. Element-wise operations are left out: they are few, and bound by memory.

    Args:
        model: an ONNX file's content.
        sizes: the size of each dynamic axis by name.

    Raises:
        ExportError: a product whose shape the file leaves open, or of a kind that has no rule here.
    """
    graph_model = onnx.load_from_string(model)
    for value in graph_model.graph.input:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_value = sizes[dimension.dim_param]
    # Shapes with the axes still open are in the way of inferring the closed ones.
    del graph_model.graph.value_info[:]
    for value in graph_model.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = shape_inference.infer_shapes(graph_model, data_prop=True).graph
    shapes = {v.name: _shape(v) for v in (*graph.input, *graph.value_info, *graph.output)}
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    counts = {node.name: _node(node, shapes) for node in graph.node}
    return {name: count for name, count in counts.items() if count}


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def _node(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> int:
    if node.op_type in ("Einsum", "Attention", "LSTM", "GRU", "RNN", "DFT"):
        raise ExportError(f"{node.name}: the multiply-adds of {node.op_type} have no rule")
    if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return 0
    names = (node.input[0], node.input[1], node.output[0])
    first, second, out = (shapes.get(name, []) for name in names)
    if not all((first, second, out)) or 0 in (*first, *second, *out):
        raise ExportError(f"{node.name}: the shapes of {node.op_type} are open ({first}, {second} -> {out})")
    if node.op_type == "Conv":  # weights: (out, in / groups, …)
        return math.prod(out) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":  # weights: (in, out / groups, …)
        return math.prod(first) * math.prod(second[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    inner = first[-2] if transposed else first[-1]
    return math.prod(out) * inner
