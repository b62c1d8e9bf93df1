"""Protobuf's wire format: a message's fields, strictly; what another reader could read differently is refused."""

from __future__ import annotations

from collections.abc import Iterator

Field = int | memoryview
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_TAG = (1 << 32) - 1
_MAX_PACKED_BYTES = 1 << 16


def fields(view: memoryview) -> Iterator[tuple[int, Field]]:
    """Yield (field number, content) of a message: a number for varints, bytes for everything else.

    Raises `IndexError` for what is cut short or is no message.
    """
    at, end = 0, len(view)
    while at < end:
        tag, at = _varint(view, at)
        kind = tag & 7
        if tag > _MAX_TAG or tag >> 3 == 0:
            raise IndexError(f"the field number {tag >> 3}")
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
            if value >> 64:
                raise IndexError("a number of more than 64 bits")
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError("a number of more than 64 bits")


def message(value: Field) -> memoryview:
    """Return a field's bytes; raises `TypeError` for a number."""
    if isinstance(value, int):
        raise TypeError("a number where a message is expected")
    return value


def text(value: Field) -> str:
    """Return a field's text; raises `TypeError` for a number and `UnicodeDecodeError` for what is no UTF-8."""
    return str(message(value), "utf-8")


def number(value: Field) -> int:
    """Return a field's number, negative ones as such; raises `TypeError` for a message."""
    if not isinstance(value, int):
        raise TypeError("a message where a number is expected")
    return value - (1 << 64) if value >> 63 else value


def numbers(value: Field) -> list[int]:
    """Return the numbers of a repeated field's entry, whether it is packed or one alone."""
    if isinstance(value, int):
        return [number(value)]
    if len(value) > _MAX_PACKED_BYTES:
        raise IndexError(f"a list of {len(value)} bytes where a few numbers are expected")
    found, at = [], 0
    while at < len(value):
        entry, at = _varint(value, at)
        found.append(number(entry))
    return found
