"""The sizes that the gate expects are those that onnxruntime gives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnxruntime
import pytest

onnx = pytest.importorskip("onnx")

from ptycho_runtime.export.onnx_nodes import Constant, Given, Node, ShapeError  # noqa: E402
from ptycho_runtime.export.onnx_shapes import RULES, result_shapes  # noqa: E402

h = onnx.helper
PX = (2, 8, 6, 5)
# Operator, sizes of what is fed, constants by position, attributes.
CASES: list[tuple[str, list[tuple[int, ...]], dict[int, Any], dict[str, Any]]] = [
    *((kind, [PX], {}, {}) for kind in (
        "Abs", "Atan", "Ceil", "Clip", "Cos", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "Identity", "LeakyRelu", "Log", "Neg", "Reciprocal",
        "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Sqrt", "Tan", "Tanh", "GlobalAveragePool", "GlobalMaxPool",
    )),
    *((kind, [PX, (6, 1)], {}, {}) for kind in ("Add", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mul", "Pow", "Sub")),
    *((kind, [PX, (6, 1), (2, 1, 1, 5)], {}, {}) for kind in ("Max", "Mean", "Min", "Sum")),
    *((kind, [PX], {1: np.array(axes)}, {"keepdims": keep}) for kind, axes, keep in (
        ("ReduceL2", [1], 1), ("ReduceMax", [-1, 1], 0), ("ReduceMean", [2, 3], 1), ("ReduceMin", [0], 0), ("ReduceProd", [1], 0),
        ("ReduceSum", [-2], 0), ("ReduceSumSquare", [3], 1),
    )),
    ("ReduceSum", [PX], {}, {"keepdims": 0}),
    ("ReduceSum", [PX], {}, {"noop_with_empty_axes": 1}),
    ("Cast", [PX], {}, {"to": 11}),
    ("Concat", [PX, (2, 3, 6, 5)], {}, {"axis": -3}),
    ("Conv", [PX, (4, 4, 3, 3)], {}, {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}),
    ("Conv", [PX, (3, 8, 1, 1)], {}, {}),
    ("ConvTranspose", [PX, (8, 3, 3, 2)], {}, {"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 0], "group": 2}),
    ("MaxPool", [PX], {}, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("AveragePool", [PX], {}, {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", [PX], {}, {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0], "dilations": [2, 1]}),
    ("DepthToSpace", [PX], {}, {"blocksize": 2}),
    ("SpaceToDepth", [(2, 3, 6, 4)], {}, {"blocksize": 2}),
    ("Expand", [(6, 1)], {1: np.array([2, 8, 1, 5])}, {}),
    ("Flatten", [PX], {}, {"axis": -2}),
    ("Flatten", [PX], {}, {"axis": 0}),
    ("Gather", [PX], {1: np.array([[0, 1, 1]])}, {"axis": 2}),
    ("Gather", [PX], {1: np.array(0)}, {"axis": -1}),
    ("GatherND", [PX], {1: np.array([[0, 1], [1, 2], [0, 0]])}, {}),
    ("GatherND", [PX], {1: np.array([[[0]], [[1]]])}, {"batch_dims": 1}),
    ("Gemm", [(3, 4), (5, 3), (5,)], {}, {"transA": 1, "transB": 1}),
    ("InstanceNormalization", [PX, (8,), (8,)], {}, {}),
    ("LayerNormalization", [PX, (5,)], {}, {}),
    ("BatchNormalization", [PX, (8,), (8,), (8,), (8,)], {}, {}),
    ("MatMul", [PX, (5, 7)], {}, {}),
    ("MatMul", [(5,), (2, 1, 5, 7)], {}, {}),
    ("MatMul", [PX, (5,)], {}, {}),
    ("MatMul", [(3, 1, 4, 5), (2, 5, 6)], {}, {}),
    ("Pad", [PX], {1: np.array([0, 0, 1, 2, 0, 0, 3, -1])}, {}),
    ("Pad", [PX], {1: np.array([0, 0, 1, 2, 0, 0, 3, 0])}, {"mode": "reflect"}),
    ("QuantizeLinear", [PX, ()], {}, {}),
    ("Reshape", [PX], {1: np.array([0, -1, 15])}, {}),
    ("Reshape", [PX], {1: np.array([4, 4, -1])}, {"allowzero": 1}),
    ("Resize", [PX], {2: np.array([1, 1, 2, 1.5], np.float32)}, {}),
    ("Resize", [PX], {3: np.array([2, 8, 3, 11])}, {"mode": "linear"}),
    ("Slice", [PX], {1: np.array([1, -1]), 2: np.array([1 << 62, -(1 << 62)]), 3: np.array([2, -1]), 4: np.array([2, -2])}, {}),
    ("Slice", [PX], {1: np.array([0, 1]), 2: np.array([1, -3])}, {}),
    ("Split", [PX], {}, {"axis": 1, "num_outputs": 3}),
    ("Split", [PX], {1: np.array([1, 2, 3])}, {"axis": 2}),
    ("Squeeze", [(2, 1, 6, 1)], {1: np.array([-1, 1])}, {}),
    ("Unsqueeze", [(6, 5)], {1: np.array([0, -1])}, {}),
    ("Transpose", [PX], {}, {"perm": [3, 0, 2, 1]}),
    ("Transpose", [PX], {}, {}),
]  # fmt: skip
THREE_RESULTS = "Split"
# Those of the rules for elements alone whose inputs are no plain float32.
OTHER_TYPES = {"And", "Or", "Not", "Mod", "Where", "CastLike", "DequantizeLinear"}


def test_every_rule_has_a_case() -> None:
    assert {case[0] for case in CASES} | OTHER_TYPES == set(RULES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_the_size_is_that_of_onnxruntime(
    case: tuple[str, list[tuple[int, ...]], dict[int, Any], dict[str, Any]],
) -> None:
    kind, fed, constants, attributes = case
    count = len(fed) + max((at + 1 - len(fed) for at in constants), default=0)
    names = ["" if at >= len(fed) and at not in constants else f"i{at}" for at in range(count)]
    outputs = [f"o{at}" for at in range(3 if kind == THREE_RESULTS else 1)]
    arrays = {f"i{at}": np.full(shape, 0.25, np.float32) for at, shape in enumerate(fed)}
    graph = h.make_graph(
        [h.make_node(kind, names, outputs, **attributes)],
        "g",
        [h.make_tensor_value_info(name, 1, array.shape) for name, array in arrays.items()],
        [h.make_empty_tensor_value_info(name) for name in outputs],
        [onnx.numpy_helper.from_array(value, f"i{at}") for at, value in constants.items()],
    )
    data = h.make_model(graph, opset_imports=[h.make_opsetid("", 20)], ir_version=10).SerializeToString()
    expected = [value.shape for value in onnxruntime.InferenceSession(data).run(None, arrays)]
    known = {f"i{at}": Constant(value.shape, tuple(value.ravel().tolist())) for at, value in constants.items()}
    shapes = {
        **{name: array.shape for name, array in arrays.items()},
        **{name: value.shape for name, value in known.items()},
    }
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()}
    node = Node(kind, tuple(names), tuple(outputs), plain)
    assert list(result_shapes(node, Given(node, shapes, known))) == expected
    assert math.prod(expected[0]) > 0


@pytest.mark.parametrize(
    ("kind", "shapes", "attributes", "why"),
    [
        ("Add", [(2, 3), (2, 4)], {}, "do not fit each other"),
        ("MatMul", [(2, 3), (2, 3)], {}, "do not fit each other"),
        ("Gemm", [(2, 3), (2, 3)], {}, "do not fit each other"),
        ("Conv", [(1, 2, 4, 4), (1, 3, 1, 1)], {}, "takes 2 channels with weights for 3"),
        ("Conv", [(1, 2, 4, 4), (1, 2, 5, 1)], {}, "a kernel that is larger than its 4 px"),
        ("Conv", [(1, 2, 4, 4), (1, 2, 1, 1)], {"auto_pad": "SAME_UPPER"}, "auto_pad = 'SAME_UPPER'"),
        ("Conv", [(1, 2, 4, 4), (1, 2, 1, 1)], {"strides": (0, 1)}, "no sizes"),
        ("Conv", [(1, 2, 4, 4), (1, 2, 1, 1)], {"strides": 2}, "strides, which is no list of 2"),
        ("MaxPool", [(1, 2, 4, 4)], {}, "lacks its kernel_shape"),
        ("Concat", [(1, 2), (2, 2)], {"axis": 1}, "do not fit each other"),
        ("Concat", [(1, 2)], {}, "has the axis"),
        ("Transpose", [(1, 2)], {"perm": (0, 0)}, "has the order"),
        ("DepthToSpace", [(1, 6, 4, 4)], {"blocksize": 2}, "6 channels in blocks of 2"),
        ("Relu", [()], {"x": 1}, ""),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    kind: str, shapes: list[tuple[int, ...]], attributes: dict[str, Any], why: str
) -> None:
    names = tuple(f"i{at}" for at in range(len(shapes)))
    node = Node(kind, names, ("o",), attributes)
    given = Given(node, dict(zip(names, shapes, strict=True)), {})
    if not why:
        assert result_shapes(node, given) == ((),)
        return
    with pytest.raises(ShapeError, match=why):
        result_shapes(node, given)
