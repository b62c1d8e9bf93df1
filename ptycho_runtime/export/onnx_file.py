"""The one gate before every session: an ONNX file holds all of itself, and nothing but what exports are made of.

It is read by this project's own walk over every field, without the onnx package, and what is not known is refused; the bytes that
were looked at are the bytes that a session gets (`CheckedModel`). Field numbers are those of `onnx.proto` (ONNX specification).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn, Self

from ptycho_runtime import contract
from ptycho_runtime.errors import DamagedExportError, UnsafeGraphError
from ptycho_runtime.export.onnx_bounds import TooLargeError, refuse_excess
from ptycho_runtime.export.onnx_nodes import Constant, Node, Value
from ptycho_runtime.export.onnx_shapes import RULES
from ptycho_runtime.export.protobuf import Field, fields, message, number, numbers, text
from ptycho_runtime.files import printable

STANDARD_DOMAINS = ("", "ai.onnx")
OPERATORS = frozenset({*RULES, "Constant"})
OPERATOR_SETS = range(18, 23)  # in which the operators have the form that `onnx_shapes` knows
MAX_ELEMENTS = 1 << 26  # of an input or output, beside its dynamic axes
MAX_FIELDS = 500_000  # of the whole file; exports have some thousands
MAX_ENDS = 1_000  # inputs and outputs of one node
_ORT_MARK = b"ORTM"  # by which onnxruntime knows its own format, which has other rules
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}  # by data_type
_TYPES = {1: "float32", 7: "int64"}
_INT64, _FLOAT = 7, 1
_VALUE_FIELDS = {1: 2, 2: 3, 3: 4, 4: 5, 6: 7, 7: 8, 8: 9}  # of an attribute, by its type
_EMPTY = memoryview(b"")

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
    inputs: list[contract.TensorInfo] = field(default_factory=list)
    outputs: list[contract.TensorInfo] = field(default_factory=list)


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


class _Walk:
    """One walk over one file."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.found = GraphFile()
        self.constants: dict[str, Constant] = {}
        self.nodes: list[Node] = []
        self.fields_left = MAX_FIELDS

    def model(self, data: bytes) -> GraphFile:
        if data[4:8] == _ORT_MARK or data[:4] == _ORT_MARK:
            raise UnsafeGraphError(f"{self.label}: is in onnxruntime's own format (ORT); expected ONNX")
        graphs = 0
        try:
            for key, value in self._fields(memoryview(data)):
                self._known("the file", key, _MODEL)
                if key == 8:
                    entry = self._single(value)
                    self._operator_set(text(entry.get(1, _EMPTY)), number(entry.get(2, 0)))
                elif key == 14:
                    entry = self._single(value)
                    self._metadata(text(entry.get(1, _EMPTY)), text(entry.get(2, _EMPTY)))
                elif key == 7:
                    graphs += 1
                    self._graph(message(value))
        except (IndexError, UnicodeDecodeError, TypeError) as error:
            raise DamagedExportError(f"{self.label}: is no ONNX file, or is cut short ({error})") from error
        if graphs != 1 or not self.found.inputs or not self.found.outputs:
            raise DamagedExportError(
                f"{self.label}: is no ONNX file, or is cut short (no graph with inputs and outputs in it)"
            )
        if not self.found.opsets:
            raise DamagedExportError(f"{self.label}: is no ONNX file, or is cut short (it names no operator set)")
        try:
            outputs = [info["name"] for info in self.found.outputs]
            refuse_excess(self.found.inputs, outputs, self.nodes, self.constants)
        except TooLargeError as error:
            self._refuse(str(error))
        return self.found

    def _operator_set(self, domain: str, version: int) -> None:
        if domain not in STANDARD_DOMAINS:
            self._refuse(f"asks for custom operators of {printable(domain)}")
        if self.found.opsets or version not in OPERATOR_SETS:
            self._refuse(f"asks for the operator set {version}, or for two")
        self.found.opsets[domain] = version

    def _metadata(self, key: str, value: str) -> None:
        if key in self.found.metadata:
            self._refuse(f"says {printable(key)} twice")
        self.found.metadata[key] = value

    def _fields(self, view: memoryview) -> Iterator[tuple[int, Field]]:
        for item in fields(view):
            self.fields_left -= 1
            if self.fields_left < 0:
                self._refuse(f"has more than {MAX_FIELDS} fields")
            yield item

    def _single(self, value: Field) -> dict[int, Field]:
        """Return the fields of a message that has each of them once at most: another reader would merge two."""
        found: dict[int, Field] = {}
        for key, content in self._fields(message(value)):
            if key in found:
                self._refuse(f"says the field {key} of a message twice")
            found[key] = content
        return found

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
                name, tensor = self._tensor(message(value))
                self._constant(name, tensor)
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
        if len(inputs) + len(outputs) > MAX_ENDS:
            self._refuse(f"holds a {kind} of {len(inputs)} inputs and {len(outputs)} outputs")
        values: dict[str, Value | Constant] = {}
        for attribute in attributes:
            name, found = self._attribute(attribute)
            if name in values:
                self._refuse(f"holds a {kind} with two attributes {printable(name)}")
            values[name] = found
        if kind == "Constant":
            self._constant_node(inputs, outputs, values)
            return
        # A tensor in an attribute says nothing of sizes.
        plain = {name: found for name, found in values.items() if not isinstance(found, Constant)}
        self.nodes.append(Node(kind, tuple(inputs), tuple(outputs), plain))

    def _constant_node(self, inputs: list[str], outputs: list[str], values: dict[str, Value | Constant]) -> None:
        name, value = next(iter(values.items()), ("", ""))
        if inputs or len(outputs) != 1 or len(values) != 1 or not name.startswith("value"):
            self._refuse("holds a Constant that is none")
        if isinstance(value, (int, float)):
            value = Constant((), (value,))
        elif isinstance(value, tuple):
            value = Constant((len(value),), value)
        elif isinstance(value, str):
            self._refuse("holds a Constant of text")
        self._constant(outputs[0], value)

    def _attribute(self, view: memoryview) -> tuple[str, Value | Constant]:
        """Return an attribute's name and value; one that says another type than it has would be passed over when it runs."""
        name, kind = "", 0
        held: set[int] = set()
        value: Value | Constant = ()
        numbers_of: list[int] = []
        floats_of: list[float] = []
        for key, content in self._fields(view):
            self._known("an attribute", key, _ATTRIBUTE)
            if key in _VALUE_FIELDS.values():
                if key in held and key not in (7, 8, 9):
                    self._refuse("holds an attribute with two values")
                held.add(key)
            if key == 1:
                name = text(content)
            elif key == 20:
                kind = number(content)
            elif key == 2:
                value = float(message(content).cast("B").cast("f")[0])
            elif key == 3:
                value = number(content)
            elif key == 4:
                value = bytes(message(content)).decode("latin-1")
            elif key == 5:
                value = self._tensor(message(content))[1]
            elif key == 7:
                floats_of += message(content).cast("B").cast("f") if len(message(content)) % 4 == 0 else _no_floats()
            elif key == 8:
                numbers_of += numbers(content)
        field_of_type = _VALUE_FIELDS.get(kind)
        if field_of_type is None or not held <= {field_of_type} or (not held and field_of_type not in (7, 8, 9)):
            self._refuse(f"holds the attribute {printable(name)}, which is not of the type that it says")
        if field_of_type == 7:
            value = tuple(floats_of)
        elif field_of_type == 8:
            value = tuple(numbers_of)
        return name, value

    def _constant(self, name: str, constant: Constant) -> None:
        if name in self.constants:
            self._refuse(f"gives the name {printable(name)} to two constants")
        self.constants[name] = constant

    def _tensor(self, view: memoryview) -> tuple[str, Constant]:
        dims: list[int] = []
        kind, name, raw, listed_bytes = 0, "", None, 0
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
                name = text(value)
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
        if raw is not None and listed_bytes:
            self._refuse("holds a tensor that says its numbers twice")
        if raw is None and count > listed_bytes:
            raise DamagedExportError(f"{self.label}: a tensor of size {dims[:8]} has no more than {listed_bytes} bytes")
        if raw is not None and kind in (_INT64, _FLOAT) and count <= 64:
            values = tuple(raw.cast("B").cast("q" if kind == _INT64 else "f"))
        if values is not None and len(values) != count:
            raise DamagedExportError(f"{self.label}: a tensor of size {dims[:8]} has {len(values)} numbers")
        return name, Constant(tuple(dims), values)

    def _value_info(self, view: memoryview) -> contract.TensorInfo:
        name, dtype = "", "other"
        shape: list[int | str] = []
        for key, value in self._fields(view):
            if key == 1:
                name = text(value)
            elif key == 2:
                held = self._single(value)
                if set(held) != {1}:
                    self._refuse(f"has the input or output {printable(name)}, which is no tensor")
                tensor = self._single(held[1])
                dtype = _TYPES.get(number(tensor.get(1, 0)), "other")
                shape += [self._dimension(entry) for _, entry in self._fields(message(tensor.get(2, _EMPTY)))]
        if math.prod(max(size, 1) for size in shape if isinstance(size, int)) > MAX_ELEMENTS:
            self._refuse(f"has the input or output {printable(name)} of size {shape[:8]}")
        return {"name": name, "shape": shape, "dtype": dtype}

    def _dimension(self, value: Field) -> int | str:
        sizes = self._single(value)
        if {1, 2} <= set(sizes):
            self._refuse("has an axis with a size and a name")
        return text(sizes[2]) if 2 in sizes else number(sizes.get(1, 0))


def _no_floats() -> NoReturn:
    raise IndexError("numbers that are cut short")
