"""Look into an ONNX file without the onnx package: enough of protobuf's wire format to see what a session would open.

Field numbers are those of `onnx.proto` (ONNX specification).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ptycho_runtime import contract as c
from ptycho_runtime.errors import DamagedExportError, UnsafeGraphError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_STANDARD = ("", "ai.onnx")
_MAX_DEPTH = 8
_TYPES = {1: "float32", 7: "int64"}


@dataclass
class GraphFile:
    """What a file says of itself."""

    opsets: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    inputs: list[c.TensorInfo] = field(default_factory=list)
    outputs: list[c.TensorInfo] = field(default_factory=list)


def look_into(data: bytes, label: str) -> GraphFile:
    """Return what an ONNX file says of itself.

    Raises:
        DamagedExportError: it is no ONNX file, or is cut short.
        UnsafeGraphError: weights outside the file, custom operators or functions.
    """
    found = GraphFile()
    graphs = 0
    try:
        for number, value in _fields(memoryview(data)):
            if number == 8:
                entry = dict(_fields(_view(value)))
                found.opsets[_text(entry.get(1, b""))] = _int(entry.get(2, 0))
            elif number == 14:
                entry = dict(_fields(_view(value)))
                found.metadata[_text(entry.get(1, b""))] = _text(entry.get(2, b""))
            elif number == 25:
                raise UnsafeGraphError(f"{label}: holds functions of its own; expected standard operators only")
            elif number == 7:
                graphs += 1
                _graph(_view(value), label, found, 0)
    except (IndexError, UnicodeDecodeError, TypeError) as error:
        raise DamagedExportError(f"{label}: is no ONNX file, or is cut short ({error})") from error
    if graphs != 1 or not found.inputs or not found.outputs:
        raise DamagedExportError(f"{label}: is no ONNX file, or is cut short (no graph with inputs and outputs in it)")
    strangers = sorted(set(found.opsets) - set(_STANDARD))
    if strangers:
        raise UnsafeGraphError(
            f"{label}: asks for operators of {', '.join(strangers)}; expected standard operators only"
        )
    return found


def _graph(view: memoryview, label: str, found: GraphFile | None, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise UnsafeGraphError(f"{label}: graphs are nested deeper than {_MAX_DEPTH}")
    for number, value in _fields(view):
        if number == 1:
            _node(_view(value), label, depth)
        elif number == 5:
            for inner, content in _fields(_view(value)):
                if inner == 13 or (inner == 14 and _int(content) != 0):
                    raise UnsafeGraphError(f"{label}: keeps weights in another file; expected all of them inside")
        elif number == 15:
            raise UnsafeGraphError(f"{label}: holds sparse weights; expected dense ones")
        elif number in (11, 12) and found is not None:
            (found.inputs if number == 11 else found.outputs).append(_value_info(_view(value)))


def _node(view: memoryview, label: str, depth: int) -> None:
    kind, domain = "", ""
    for number, value in _fields(view):
        if number == 4:
            kind = _text(value)
        elif number == 7:
            domain = _text(value)
        elif number == 5:
            for inner, content in _fields(_view(value)):
                if inner == 5:
                    for name, item in _fields(_view(content)):
                        if name == 13 or (name == 14 and _int(item) != 0):
                            raise UnsafeGraphError(
                                f"{label}: keeps a constant in another file; expected all of them inside"
                            )
                elif inner in (6, 11):
                    _graph(_view(content), label, None, depth + 1)
    if domain not in _STANDARD:
        raise UnsafeGraphError(f"{label}: holds the custom operator {domain}.{kind}; expected standard operators only")


def _value_info(view: memoryview) -> c.TensorInfo:
    name, dtype = "", "other"
    shape: list[int | str] = []
    for number, value in _fields(view):
        if number == 1:
            name = _text(value)
        elif number == 2:
            tensor = _view(dict(_fields(_view(value))).get(1, b""))
            for inner, content in _fields(tensor):
                if inner == 1:
                    dtype = _TYPES.get(_int(content), "other")
                elif inner == 2:
                    for _, dimension in _fields(_view(content)):
                        sizes = dict(_fields(_view(dimension)))
                        shape.append(_text(sizes[2]) if 2 in sizes else _int(sizes.get(1, 0)))
    return {"name": name, "shape": shape, "dtype": dtype}


def _fields(view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at, end = 0, len(view)
    while at < end:
        tag, at = _varint(view, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(view, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            length, at = _varint(view, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise IndexError(f"wire type {kind}")
        if at + length > end:
            raise IndexError("a field reaches beyond the end")
        yield tag >> 3, view[at : at + length]
        at += length


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError("a number of more than 64 bits")


def _view(value: int | bytes | memoryview) -> memoryview:
    if isinstance(value, int):
        raise TypeError("a number where a message is expected")
    return memoryview(value)


def _text(value: int | bytes | memoryview) -> str:
    return str(_view(value), "utf-8")


def _int(value: int | bytes | memoryview) -> int:
    if not isinstance(value, int):
        raise TypeError("a message where a number is expected")
    return value
