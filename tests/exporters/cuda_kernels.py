"""Which nodes of an ONNX model onnxruntime's CUDA provider would hand back to the CPU, found without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import onnx

TABLE = json.loads((Path(__file__).parent / "data" / "cuda_kernels.json").read_text())["operators"]

# These have CUDA kernels, but their results live in host memory, and onnxruntime moves them and what hangs on them.
SHAPE_ARITHMETIC = {"Shape", "Size"}


def left_to_the_cpu(model: onnx.ModelProto) -> list[str]:
    """Return one line for each node that the CUDA provider cannot take, with the reason."""
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    types |= {t.name: t.data_type for t in graph.initializer}
    found = []
    for node in graph.node:
        what = f"{node.op_type} ({node.name})"
        if node.domain not in ("", "ai.onnx"):
            found.append(f"{what}: domain {node.domain!r}")
        elif node.op_type in SHAPE_ARITHMETIC:
            found.append(f"{what}: shape arithmetic")
        elif node.op_type != "Constant" and not _has_kernel(node, types, opset):
            found.append(f"{what}: no kernel at opset {opset} for {[_name(types.get(i)) for i in node.input]}")
    return found


def _has_kernel(node: onnx.NodeProto, types: dict[str, int], opset: int) -> bool:
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    formal = [(p, name) for p, name in zip(schema.inputs, node.input, strict=False) if name]
    formal += [(p, name) for p, name in zip(schema.outputs, node.output, strict=False) if name]
    for kernel in TABLE.get(node.op_type, []):
        first, last = kernel["opset"]
        # As onnxruntime matches: a kernel without an upper bound is taken for exactly the version that it names.
        since = schema.since_version
        if since != first and (last is None or not first <= since <= last):
            continue
        wanted = kernel["types"]
        if all(_name(types.get(name)) in wanted[p.type_str] for p, name in formal if p.type_str in wanted):
            return True
    return False


def _name(elem_type: int | None) -> str:
    if elem_type is None:
        return "unknown"
    return onnx.TensorProto.DataType.Name(elem_type).lower()
