"""Reductions that become pools in files for a GPU: the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.reduced.pools import as_pools


def reduction(operator: str, axes: list[int], keepdims: int = 1, shape: tuple[int, ...] = (6, 32, 48)) -> bytes:
    """Return a graph of one reduction over (batch, *shape), whose output's shape is left open."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node(operator, ["x", "axes"], ["y"], name="only", keepdims=keepdims)
    graph = helper.make_graph(
        [node], "g", [given], [result], [numpy_helper.from_array(np.array(axes, np.int64), "axes")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())


def run(model: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def operators(model: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


@pytest.mark.parametrize(
    ("operator", "axes", "keepdims", "becomes"),
    [
        ("ReduceMax", [1], 1, ["Reshape", "MaxPool", "Reshape"]),
        ("ReduceMean", [1], 1, ["Reshape", "AveragePool", "Reshape"]),
        ("ReduceMean", [-3], 1, ["Reshape", "AveragePool", "Reshape"]),
        ("ReduceMax", [2, 3], 0, ["MaxPool", "ReduceMax"]),
        ("ReduceMax", [3, 2], 1, ["MaxPool", "ReduceMax"]),
    ],
)
@pytest.mark.parametrize("batch", [1, 5])
def test_numbers_stay(operator: str, axes: list[int], keepdims: int, becomes: list[str], batch: int) -> None:
    plain = reduction(operator, axes, keepdims)
    pooled = as_pools(plain)
    assert operators(pooled) == becomes
    x = np.random.default_rng(batch).normal(size=(batch, 6, 32, 48)).astype(np.float32) - 5.0
    wanted, found = run(plain, x), run(pooled, x)
    assert found.shape == wanted.shape
    if operator == "ReduceMax":
        np.testing.assert_array_equal(found, wanted)
    else:
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("operator", "axes", "keepdims", "shape"),
    [
        ("ReduceMean", [2, 3], 1, (6, 32, 48)),  # a sum in float16 over blocks would round twice
        ("ReduceMax", [1], 0, (6, 32, 48)),
        ("ReduceMax", [2, 3], 1, (6, 9, 16)),  # no block divides both sides
        ("ReduceSum", [1], 1, (6, 32, 48)),
    ],
)
def test_what_is_no_pool_stays(operator: str, axes: list[int], keepdims: int, shape: tuple[int, ...]) -> None:
    assert operators(as_pools(reduction(operator, axes, keepdims, shape))) == [operator]
