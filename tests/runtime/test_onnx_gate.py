"""The gate before every session: wherever an ONNX file hides something, it is found and named."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from ptycho_runtime.engine.opening import open_session  # noqa: E402
from ptycho_runtime.engine.options import RunOptions  # noqa: E402
from ptycho_runtime.errors import DamagedExportError, UnsafeGraphError  # noqa: E402
from ptycho_runtime.export.onnx_file import CheckedModel  # noqa: E402

h = onnx.helper
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def external(name: str = "w") -> Any:
    tensor = h.make_tensor(name, FLOAT, [2], [1.0, 2.0])
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    return tensor


def info(name: str, shape: Any = ("batch", 4)) -> Any:
    return h.make_tensor_value_info(name, FLOAT, shape)


def model(nodes: list[Any], initializers: list[Any] = (), **more: Any) -> Any:  # type: ignore[assignment]
    graph = h.make_graph(nodes, "g", [info("x")], [info("y", None)], initializer=list(initializers), **more)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 20)], ir_version=10)


def plain(kind: str = "Identity", *inputs: str, **attributes: Any) -> Any:
    return h.make_node(kind, ["x", *inputs], ["y"], **attributes)


def body() -> Any:
    return h.make_graph([h.make_node("Identity", ["x"], ["z"])], "b", [], [info("z")], initializer=[external()])


def sparse() -> Any:
    indices = h.make_tensor("i", INT64, [1], [0])
    return h.make_sparse_tensor(external(), indices, [4])


def whole(name: str, *values: int) -> Any:
    return onnx.numpy_helper.from_array(np.array(values, np.int64), name)


def with_field(change: Callable[[Any], Any]) -> Any:
    made = model([plain()])
    change(made)
    return made


HIDDEN: dict[str, tuple[Any, str]] = {
    "initializer": (model([plain()], [external()]), "weights in another file"),
    "Constant": (model([plain(), h.make_node("Constant", [], ["c"], value=external())]), "weights in another file"),
    "another attribute": (model([plain("Cast", to=1, other=external())]), "weights in another file"),
    "list of tensors": (model([plain("Cast", to=1, other=[external()])]), "a list of tensors"),
    "sparse constant": (model([plain(), h.make_node("Constant", [], ["c"], sparse_value=sparse())]), "a sparse constant"),
    "sparse weights": (model([plain()], sparse_initializer=[sparse()]), "sparse weights"),
    "branch": (model([plain("If", then_branch=body(), else_branch=body())]), "operator If"),
    "branch of another operator": (model([plain("Cast", to=1, hidden=body())]), "a graph inside a node"),
    "loop": (model([plain("Loop", "", "x", body=body())]), "operator Loop"),
    "scan": (model([plain("Scan", body=body(), num_scan_inputs=1)]), "operator Scan"),
    "function": (with_field(lambda m: m.functions.append(h.make_function("own", "F", [], [], [], []))), "functions of its own"),
    "training": (with_field(lambda m: m.training_info.add().initialization.CopyFrom(body())), "training steps"),
    "custom domain": (model([plain("Gelu", domain="com.microsoft")]), r"custom operator com\.microsoft\.Gelu"),
    "custom set": (with_field(lambda m: m.opset_import.append(h.make_opsetid("evil", 1))), "custom operators of evil"),
    "random numbers": (model([plain("RandomNormalLike")]), "operator RandomNormalLike"),
    "ConstantOfShape": (model([plain("ConstantOfShape")]), "operator ConstantOfShape"),
    "Tile": (model([plain("Tile", "n")], [whole("n", 1, 10**6)]), "operator Tile"),
    "Expand": (model([plain("Expand", "n")], [whole("n", 1 << 15, 1 << 15, 4)]), "takes 16384 megabytes of memory for one group of 4 num"),
    "Expand to a negative size": (model([plain("Expand", "n")], [whole("n", -(2**62))]), "Expand that takes the sizes .*, which do not fit"),
    "Expand to a computed size": (model([plain("Abs"), h.make_node("Expand", ["x", "y"], ["z"])]), "no constant of the file"),
    "Pad": (model([plain("Pad", "n")], [whole("n", 0, 0, 0, 1 << 30)]), "takes 4096 megabytes of memory for one group .* fullest at Pad"),
    "Resize": (
        model([plain("Resize", "", "n")], [onnx.numpy_helper.from_array(np.array([1, 1e8], np.float32), "n")]),
        "takes 1526 megabytes of memory .* fullest at Resize",
    ),
    "huge input": (
        h.make_model(h.make_graph([plain()], "g", [info("x", ["batch", 1 << 20, 1 << 20])], [info("y")])),
        "input or output x of size",
    ),
    "quantisation annotations": (with_field(lambda m: m.graph.quantization_annotation.add()), "annotations of quantisation"),
}  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_hidden_is_found(name: str) -> None:
    made, why = HIDDEN[name]
    with pytest.raises(UnsafeGraphError, match=why):
        CheckedModel(made.SerializeToString(), "m.onnx")


def test_the_format_of_onnxruntime_is_refused() -> None:
    with pytest.raises(UnsafeGraphError, match=r"onnxruntime's own format"):
        CheckedModel(b"\x08\x0a\x12\x04ORTM" + model([plain()]).SerializeToString(), "m.onnx")


def test_a_tensor_of_another_size_than_its_bytes() -> None:
    made = model([plain()], [whole("n", 1, 2)])
    made.graph.initializer[0].dims[0] = 1 << 40
    with pytest.raises(DamagedExportError, match="has 16 bytes; expected 8796093022208"):
        CheckedModel(made.SerializeToString(), "m.onnx")


def test_two_graphs_that_a_parser_would_merge() -> None:
    made = model([plain()])
    data = made.SerializeToString()
    del made.opset_import[:]
    with pytest.raises(DamagedExportError, match="no graph with inputs and outputs"):
        CheckedModel(data + made.SerializeToString(), "m.onnx")


def test_operator_sets_of_another_form_or_two_of_them() -> None:
    for versions in ((13,), (20, 20), (99,)):
        made = with_field(
            lambda m, versions=versions: m.opset_import.extend(h.make_opsetid("", v) for v in versions[1:])
        )
        made.opset_import[0].version = versions[0]
        with pytest.raises(UnsafeGraphError, match=f"asks for the operator set {versions[-1]}, or for two"):
            CheckedModel(made.SerializeToString(), "m.onnx")


def test_an_attribute_that_says_another_type_than_it_has() -> None:
    made = model([plain("Concat", axis=1)])
    made.graph.node[0].attribute[0].type = onnx.AttributeProto.INTS
    with pytest.raises(UnsafeGraphError, match="the attribute axis, which is not of the type that it says"):
        CheckedModel(made.SerializeToString(), "m.onnx")


def test_an_attribute_that_stands_twice() -> None:
    made = model([plain("Concat", axis=1)])
    made.graph.node[0].attribute.append(h.make_attribute("axis", 0))
    with pytest.raises(UnsafeGraphError, match="a Concat with two attributes axis"):
        CheckedModel(made.SerializeToString(), "m.onnx")


def chain(kind: str, length: int, **attributes: Any) -> Any:
    """Return a model in which a result is taken twice by the next node."""
    names = ["x", *(f"t{at}" for at in range(1, length)), "y"]
    return model(
        [
            h.make_node(kind, [a, a] if kind == "Concat" else [a], [b], **attributes)
            for a, b in itertools.pairwise(names)
        ]
    )


GROWING: dict[str, tuple[Any, str]] = {
    "doubled thirty times": (chain("Concat", 30, axis=1), "gigabytes|megabytes of memory for one group of 4 numbers, fullest at Concat"),
    "doubled along the batch": (chain("Concat", 30, axis=0), "megabytes of memory for one group of 4 numbers, fullest at Concat"),
    "each with each other": (
        model([plain("Transpose", perm=[1, 0]), h.make_node("MatMul", ["x", "y"], ["z"])]), "a MatMul whose result grows faster than the batch"
    ),
    "broadcast along the batch": (
        model([plain("Unsqueeze", "n"), h.make_node("Add", ["x", "y"], ["z"])], [whole("n", 1)]), "a Add whose result grows faster than"
    ),
    "constants that are kept": (
        model(
            [h.make_node("Expand", ["one", "n"], [f"t{at}"]) for at in range(9)] + [plain()],
            [whole("n", 1 << 20), onnx.numpy_helper.from_array(np.ones(1, np.float32), "one")],
        ),
        "takes 36 megabytes of memory",
    ),
    "a long chain of large products": (
        model(
            [plain("Expand", "n"), *(h.make_node("MatMul", [f"t{at}" if at else "y", f"t{at}" if at else "y"], [f"t{at + 1}"]) for at in range(9))],
            [whole("n", 1, 1448, 1448)],
        ),
        "multiplications for one group|do not fit",
    ),
    "more nodes than a file opens with": (chain("Relu", 5_001), "has 5001 nodes"),
    "more inputs than a node has": (model([h.make_node("Sum", ["x"] * 2000, ["y"])]), "a Sum of 2000 inputs and 1 outputs"),
    "a name that stands for two things": (model([plain(), plain("Relu")]), "gives one name to two things"),
    "what no node gives": (model([h.make_node("Add", ["x", "nobody"], ["y"])]), "a Add that takes what no node before it gives"),
    "a batch that vanishes until it is large": (
        model([plain("Slice", "from", "to", "axis")], [whole("from", 8), whole("to", 1 << 40), whole("axis", 0)]),
        r"a Slice that gives something of the size \[0, 4\]",
    ),
    "a second result": (model([h.make_node("LayerNormalization", ["x", "x"], ["y", "z"])]), "a LayerNormalization that has 2 results"),
}  # fmt: skip


@pytest.mark.parametrize("name", GROWING)
def test_growth_that_no_single_node_shows(name: str) -> None:
    made, why = GROWING[name]
    with pytest.raises(UnsafeGraphError, match=why):
        CheckedModel(made.SerializeToString(), "m.onnx")


def test_a_field_that_nobody_knows() -> None:
    with pytest.raises(UnsafeGraphError, match="the field 99 in the file"):
        CheckedModel(model([plain()]).SerializeToString() + b"\x98\x06\x01", "m.onnx")


def test_a_session_opens_what_was_looked_through_and_nothing_else() -> None:
    checked = CheckedModel(model([plain("Relu")]).SerializeToString(), "m.onnx")
    assert CheckedModel(checked) is checked
    session = open_session(checked, RunOptions("cpu")).session
    assert session.run(None, {"x": np.full((1, 4), -1.0, np.float32)})[0].tolist() == [[0.0] * 4]
    with pytest.raises(UnsafeGraphError, match="weights in another file"):
        open_session(model([plain()], [external()]).SerializeToString(), RunOptions("cpu"))
