"""Exported files with something wrong in them."""

from __future__ import annotations

import ast

import numpy as np
import onnx
from onnx import numpy_helper

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def with_flipped_weight(data: bytes) -> bytes:
    """Return an ONNX file in which the largest number of its largest weight has the other sign."""
    model = onnx.load_from_string(data)
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[np.abs(values).argmax()] *= -1
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model.SerializeToString()


def weighted_layers(data: bytes) -> list[str]:
    """Return the modules of the network that have weights in an ONNX file, in the order they are computed."""
    nodes = onnx.load_from_string(data).graph.node
    found = [_module(node) for node in nodes if node.op_type in _PRODUCTS]
    return list(dict.fromkeys(module for module in found if module.startswith("network.")))


def with_scaled_weight(data: bytes, layer: str, factor: float = 1.05) -> bytes:
    """Return an ONNX file in which the first weight of a layer is multiplied by a factor."""
    model = onnx.load_from_string(data)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        weights = [tensors[name] for name in node.input if name in tensors]
        if node.op_type in _PRODUCTS and _module(node) == layer and weights:
            values = numpy_helper.to_array(weights[0]) * np.float32(factor)
            weights[0].CopyFrom(numpy_helper.from_array(values, weights[0].name))
            return model.SerializeToString()
    raise AssertionError(f"{layer} has no weights")


def _module(node: onnx.NodeProto) -> str:
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            return str(ast.literal_eval(entry.value)[-2])
    return ""
