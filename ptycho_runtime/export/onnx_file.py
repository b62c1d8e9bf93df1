"""The one gate before every session: an ONNX file holds all of itself, and nothing but what exports are made of.

It is read by this project's own walk over every field, without the onnx package, and what is not known is refused; the bytes that
were looked at are the bytes that a session gets (`CheckedModel`). Field numbers are those of `onnx.proto` (ONNX specification).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn, Self

from ptycho_runtime import contract as c
from ptycho_runtime.errors import DamagedExportError, UnsafeGraphError
from ptycho_runtime.export.protobuf import Field, fields, message, number, numbers, text
from ptycho_runtime.files import printable

STANDARD_DOMAINS = ("", "ai.onnx")
# What this project's graphs are made of (docs/operators.md), before and after their rewrites and in reduced precision. None of
# them branches, loops, draws random numbers, or takes the size of what it makes from a number that the graph computes.
OPERATORS = frozenset({
    "Abs", "Add", "And", "Atan", "AveragePool", "BatchNormalization", "Cast", "CastLike", "Ceil", "Clip", "Concat", "Constant", "Conv",
    "ConvTranspose", "Cos", "DepthToSpace", "DequantizeLinear", "Div", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor",
    "Gather", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "HardSigmoid",
    "Identity", "InstanceNormalization", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "MatMul", "Max", "MaxPool", "Mean", "Min",
    "Mod", "Mul", "Neg", "Not", "Or", "Pad", "Pow", "QuantizeLinear", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare", "ReduceL2", "Relu", "Reshape", "Resize", "Round", "Shape", "Sigmoid", "Sign", "Sin",
    "Slice", "Softmax", "Softplus", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tan", "Tanh", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
# Which of their inputs say how large the result is; these must stand in the file as constants, and be small: (input, largest
# number, largest product of the numbers).
_SIZED_BY = {
    "Expand": ((1, 1 << 16, 1 << 26),),
    "Pad": ((1, 1 << 12, 1 << 48),),
    "Resize": ((2, 64, 256), (3, 1 << 16, 1 << 26)),
    "Reshape": ((1, 1 << 31, 1 << 31),),
}
# The same of attributes.
_GROWING = {
    "pads": 1 << 12, "strides": 64, "dilations": 1 << 12, "output_padding": 64, "output_shape": 1 << 12, "kernel_shape": 1 << 12,
    "blocksize": 64,
}  # fmt: skip
MAX_ELEMENTS = 1 << 26  # of an input or output, beside its dynamic axes
MAX_FIELDS = 4_000_000  # of the whole file; exports have some thousands
_ORT_MARK = b"ORTM"  # by which onnxruntime knows its own format, which has other rules
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}  # by data_type
_TYPES = {1: "float32", 7: "int64"}
_INT64, _FLOAT = 7, 1

# What a message may hold, by field number. Everything else, known to the specification or not, is refused.
_MODEL = {1, 2, 3, 4, 5, 6, 7, 8, 14}
_GRAPH = {1, 2, 5, 10, 11, 12, 13, 16}
_NODE = {1, 2, 3, 4, 5, 6, 7, 9}
_ATTRIBUTE = {1, 2, 3, 4, 5, 7, 8, 9, 13, 20}
_TENSOR = {1, 2, 4, 5, 7, 8, 9, 10, 11, 12, 14, 16}
_NAMED = {
    ("the file", 20): "training steps",
    ("the file", 25): "functions of its own",
    ("the file", 26): "a configuration of devices",
    ("the graph", 14): "annotations of quantisation",
    ("the graph", 15): "sparse weights",
    ("a node", 10): "a configuration of devices",
    ("an attribute", 6): "a graph inside a node (a loop or a branch)",
    ("an attribute", 11): "graphs inside a node (a loop or a branch)",
    ("an attribute", 10): "a list of tensors",
    ("an attribute", 22): "a sparse constant",
    ("an attribute", 23): "sparse constants",
    ("an attribute", 21): "a reference to a function's attribute",
    ("a tensor", 3): "a tensor in segments",
    ("a tensor", 6): "a tensor of text",
    ("a tensor", 13): "weights in another file",
}


@dataclass
class GraphFile:
    """What a file says of itself."""

    opsets: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    inputs: list[c.TensorInfo] = field(default_factory=list)
    outputs: list[c.TensorInfo] = field(default_factory=list)


class CheckedModel(bytes):
    """An ONNX file that may be opened: making one looks through it, so there is none that was not looked through."""

    told: GraphFile

    def __new__(cls, data: bytes, label: str = "the graph") -> Self:
        """Look through a file.

        Args:
            data: its content; a `CheckedModel` is returned as it is.
            label: its name, for messages.

        Raises:
            DamagedExportError: it is no ONNX file, or is cut short.
            UnsafeGraphError: it asks for other files, for operators that no export has, or for memory out of all proportion.
        """
        if isinstance(data, cls):
            return data
        made = super().__new__(cls, data)
        made.told = _Walk(label).model(made)
        return made


def look_into(data: bytes, label: str) -> GraphFile:
    """Return what an ONNX file says of itself; raises as `CheckedModel` does."""
    return CheckedModel(data, label).told


@dataclass
class _Tensor:
    """A constant: its size, and its numbers where they are few enough to say how large something is."""

    dims: tuple[int, ...]
    values: tuple[float, ...] | None


class _Walk:
    """One walk over one file."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.found = GraphFile()
        self.constants: dict[str, _Tensor] = {}
        self.sized: list[tuple[str, str, int, int]] = []  # operator, what says how large its result is, limits of that
        self.fields_left = MAX_FIELDS

    def model(self, data: bytes) -> GraphFile:
        if data[4:8] == _ORT_MARK or data[:4] == _ORT_MARK:
            raise UnsafeGraphError(f"{self.label}: is in onnxruntime's own format (ORT); expected ONNX")
        graphs = 0
        try:
            for key, value in self._fields(memoryview(data)):
                self._known("the file", key, _MODEL)
                if key == 8:
                    entry = dict(self._fields(message(value)))
                    self.found.opsets[text(entry.get(1, memoryview(b"")))] = number(entry.get(2, 0))
                elif key == 14:
                    entry = dict(self._fields(message(value)))
                    empty = memoryview(b"")
                    self.found.metadata[text(entry.get(1, empty))] = text(entry.get(2, empty))
                elif key == 7:
                    graphs += 1
                    self._graph(message(value))
        except (IndexError, UnicodeDecodeError, TypeError) as error:
            raise DamagedExportError(f"{self.label}: is no ONNX file, or is cut short ({error})") from error
        if graphs != 1 or not self.found.inputs or not self.found.outputs:
            raise DamagedExportError(
                f"{self.label}: is no ONNX file, or is cut short (no graph with inputs and outputs in it)"
            )
        strangers = sorted(set(self.found.opsets) - set(STANDARD_DOMAINS))
        if strangers:
            self._refuse(f"asks for custom operators of {', '.join(map(printable, strangers))}")
        self._sizes()
        return self.found

    def _fields(self, view: memoryview) -> Iterator[tuple[int, Field]]:
        for item in fields(view):
            self.fields_left -= 1
            if self.fields_left < 0:
                self._refuse(f"has more than {MAX_FIELDS} fields")
            yield item

    def _refuse(self, what: str) -> NoReturn:
        raise UnsafeGraphError(
            f"{self.label}: {what}; expected an ONNX file of standard operators with all it needs inside it"
        )

    def _known(self, where: str, key: int, known: set[int]) -> None:
        if key not in known:
            self._refuse(f"holds {_NAMED.get((where, key), f'the field {key} in {where}')}, which no export has")

    def _graph(self, view: memoryview) -> None:
        for key, value in self._fields(view):
            self._known("the graph", key, _GRAPH)
            if key == 1:
                self._node(message(value))
            elif key == 5:
                self._tensor(message(value))
            elif key in (11, 12):
                info = self._value_info(message(value))
                (self.found.inputs if key == 11 else self.found.outputs).append(info)

    def _node(self, view: memoryview) -> None:
        kind, domain = "", ""
        inputs: list[str] = []
        outputs: list[str] = []
        attributes: list[memoryview] = []
        for key, value in self._fields(view):
            if key == 10 or key not in {*_NODE, 8}:
                self._known("a node", key, _NODE)
            elif key == 1:
                inputs.append(text(value))
            elif key == 2:
                outputs.append(text(value))
            elif key == 4:
                kind = text(value)
            elif key == 7:
                domain = text(value)
            elif key == 8 and text(value):
                self._refuse("holds a call of a function of its own")
            elif key == 5:
                attributes.append(message(value))
        if domain not in STANDARD_DOMAINS:
            self._refuse(f"holds the custom operator {printable(domain)}.{printable(kind)}")
        if kind not in OPERATORS:
            self._refuse(f"holds the operator {printable(kind)}, which no export has")
        for attribute in attributes:
            self._attribute(attribute, kind, outputs)
        for at, largest, most in _SIZED_BY.get(kind, ()):
            if at < len(inputs) and inputs[at]:
                self.sized.append((kind, inputs[at], largest, most))

    def _attribute(self, view: memoryview, kind: str, outputs: list[str]) -> None:
        name = ""
        whole: list[int] = []
        for key, value in self._fields(view):
            self._known("an attribute", key, _ATTRIBUTE)
            if key == 1:
                name = text(value)
            elif key == 5:
                self._tensor(message(value), outputs[0] if kind == "Constant" and outputs else "")
            elif key == 8 or key == 3:
                given = numbers(value)
                whole += given
        if kind == "Constant" and outputs and whole and name.startswith("value_int"):
            self._constant(outputs[0], _Tensor((len(whole),), tuple(whole)))
        if any(abs(size) > _GROWING.get(name, 1 << 62) for size in whole):
            self._refuse(f"holds a {kind} with {name} {max(whole, key=abs)}")
        if name in ("shape", "repeats", "scales") or (name == "value" and kind != "Constant"):
            self._refuse(f"holds a {kind} of an operator set before 13")

    def _constant(self, name: str, constant: _Tensor) -> None:
        if name in self.constants:
            self._refuse(f"gives the name {printable(name)} to two constants")
        self.constants[name] = constant

    def _tensor(self, view: memoryview, given_name: str = "") -> None:
        dims: list[int] = []
        kind, name, raw, listed_bytes = 0, given_name, None, 0
        values: tuple[float, ...] | None = None
        for key, value in self._fields(view):
            self._known("a tensor", key, _TENSOR)
            if key == 1:
                dims += numbers(value)
            elif key == 2:
                kind = number(value)
            elif key == 14 and number(value) != 0:
                self._refuse("keeps weights in another file")
            elif key == 8:
                name = name or text(value)
            elif key == 9:
                raw = message(value)
            elif key in (4, 5, 7, 10, 11):
                listed_bytes += 10 if isinstance(value, int) else len(value)
                if key == 7:
                    values = (*(values or ()), *numbers(value)) if listed_bytes <= 640 else None
        if any(size < 0 for size in dims) or kind not in _ITEM_BYTES:
            self._refuse(f"holds a tensor of type {kind} and size {dims[:8]}")
        count = math.prod(dims)
        if raw is not None and len(raw) != count * _ITEM_BYTES[kind]:
            raise DamagedExportError(
                f"{self.label}: a tensor has {len(raw)} bytes; expected {count * _ITEM_BYTES[kind]} for its size {dims[:8]}"
            )
        if raw is None and count > listed_bytes:
            raise DamagedExportError(f"{self.label}: a tensor of size {dims[:8]} has no more than {listed_bytes} bytes")
        if raw is not None and kind in (_INT64, _FLOAT) and count <= 64:
            values = tuple(raw.cast("B").cast("q" if kind == _INT64 else "f"))
        if name:
            self._constant(name, _Tensor(tuple(dims), values))

    def _sizes(self) -> None:
        """Refuse constants that make something out of all proportion, and sizes that are no constants."""
        for operator, name, largest, most in self.sized:
            constant = self.constants.get(name)
            if constant is None:
                self._refuse(f"holds a {operator} whose size is no constant of the file")
            values = constant.values
            if values is None:
                if math.prod(constant.dims):
                    self._refuse(f"holds a {operator} whose size cannot be read")
                continue
            in_bounds = all(math.isfinite(value) and abs(value) <= largest for value in values)
            if not in_bounds or math.prod(max(abs(value), 1.0) for value in values) > most:
                self._refuse(f"holds a {operator} to {', '.join(f'{v:g}' for v in values[:8])}, gigabytes of memory")

    def _value_info(self, view: memoryview) -> c.TensorInfo:
        name, dtype = "", "other"
        shape: list[int | str] = []
        for key, value in self._fields(view):
            if key == 1:
                name = text(value)
            elif key == 2:
                for inner, content in self._fields(message(dict(self._fields(message(value))).get(1, memoryview(b"")))):
                    if inner == 1:
                        dtype = _TYPES.get(number(content), "other")
                    elif inner == 2:
                        shape += [self._dimension(message(entry)) for _, entry in self._fields(message(content))]
        if math.prod(max(size, 1) for size in shape if isinstance(size, int)) > MAX_ELEMENTS:
            self._refuse(f"has the input or output {printable(name)} of size {shape[:8]}")
        return {"name": name, "shape": shape, "dtype": dtype}

    def _dimension(self, view: memoryview) -> int | str:
        sizes = dict(self._fields(view))
        return text(sizes[2]) if 2 in sizes else number(sizes.get(1, 0))
