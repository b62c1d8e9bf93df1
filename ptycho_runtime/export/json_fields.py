"""JSON from a file by anybody, read strictly: what is missing, of another kind or beyond its bounds is named with its place."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ptycho_runtime.errors import DamagedExportError
from ptycho_runtime.files import printable

MAX_JSON_BYTES = 64 << 20
MAX_DEPTH = 32
MAX_TEXT = 4096
MAX_ITEMS = 100_000
# Beyond it float32 ends.
MAX_NUMBER = 1e38


def strict_json(data: bytes, label: str) -> Any:
    """Return the value of a JSON document.

    Args:
        data: UTF-8 text.
        label: the file's name, for messages.

    Raises:
        DamagedExportError: it is too large or too deep, no JSON, holds NaN or infinity, or says one thing twice.
    """
    if len(data) > MAX_JSON_BYTES:
        raise DamagedExportError(f"{label}: has {len(data)} bytes; expected {MAX_JSON_BYTES} at most")
    try:
        value = json.loads(data, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except RecursionError:
        raise DamagedExportError(f"{label}: is nested deeper than {MAX_DEPTH}; it is no file of this project") from None
    except ValueError as error:
        raise DamagedExportError(f"{label}: is no JSON as expected ({printable(error, 200)}); copy it again") from error
    _refuse_depth(value, label)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"holds {name}; expected finite numbers")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"says {twice!r} twice")
    return made


def _refuse_depth(value: Any, label: str) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise DamagedExportError(f"{label}: is nested deeper than {MAX_DEPTH}; it is no file of this project")
        inner: list[Any] = []
        for item in level:
            if isinstance(item, Mapping):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        level = inner


@dataclass(frozen=True)
class Field:
    """One value of a document with its place in it; every method raises `DamagedExportError` that names the place."""

    value: Any
    label: str
    path: str = ""

    def fault(self, expected: str) -> DamagedExportError:
        """Return the error that says what stands here and what should."""
        where = self.path or "the document"
        return DamagedExportError(
            f"{self.label}: {where} is {printable(repr(self.value))}; expected {expected}; export the bundle again"
        )

    def _inner(self, key: str | int, value: Any) -> Field:
        name = f"[{key}]" if isinstance(key, int) else f".{printable(key)}" if self.path else printable(key)
        return Field(value, self.label, self.path + name)

    def mapping(self) -> Mapping[str, Any]:
        """Return an object's entries."""
        if not isinstance(self.value, Mapping) or not all(isinstance(key, str) for key in self.value):
            raise self.fault("an object")
        if len(self.value) > MAX_ITEMS:
            raise DamagedExportError(f"{self.label}: {self.path} has {len(self.value)} entries; expected {MAX_ITEMS}")
        return self.value

    def __getitem__(self, key: str) -> Field:
        """Return an entry that must be there."""
        entries = self.mapping()
        if key not in entries:
            place = f"{self.path}.{key}" if self.path else key
            raise DamagedExportError(f"{self.label}: lacks {printable(place)}; export the bundle again")
        return self._inner(key, entries[key])

    def get(self, key: str) -> Field | None:
        """Return an entry that may be there; null is absent."""
        return None if self.mapping().get(key) is None else self[key]

    def items(self) -> Iterator[tuple[str, Field]]:
        """Give the entries of an object."""
        for key, value in self.mapping().items():
            yield key, self._inner(key, value)

    def each(self) -> Iterator[Field]:
        """Give the items of a list."""
        if not isinstance(self.value, (list, tuple)):
            raise self.fault("a list")
        if len(self.value) > MAX_ITEMS:
            raise DamagedExportError(f"{self.label}: {self.path} has {len(self.value)} items; expected {MAX_ITEMS}")
        for index, value in enumerate(self.value):
            yield self._inner(index, value)

    def text(self, limit: int = MAX_TEXT) -> str:
        """Return a text."""
        if not isinstance(self.value, str) or len(self.value) > limit:
            raise self.fault(f"a text of {limit} characters at most")
        return self.value

    def one_of(self, known: Collection[str]) -> str:
        """Return a text that is one of the known ones."""
        if not isinstance(self.value, str) or self.value not in known:
            raise self.fault(" or ".join(repr(name) for name in known))
        return self.value

    def digest(self) -> str:
        """Return a SHA-256 in hexadecimal."""
        text = self.value
        if not isinstance(text, str) or len(text) != 64 or not set(text) <= set("0123456789abcdef"):
            raise self.fault("a SHA-256 of 64 hexadecimal digits")
        return text

    def whole(self, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not least <= self.value <= most:
            raise self.fault(f"a whole number from {least} to {most}")
        return self.value

    def number(self, least: float = -MAX_NUMBER, most: float = MAX_NUMBER) -> float:
        """Return a finite number within bounds."""
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)) or not least <= self.value <= most:
            raise self.fault(f"a number from {least:g} to {most:g}")
        return float(self.value)

    def positive(self, most: float = MAX_NUMBER) -> float:
        """Return a finite number above zero."""
        number = self.number(0.0, most)
        if not number > 0.0:
            raise self.fault("a number above zero")
        return number

    def plain(self) -> Any:
        """Return the value as it is, once nothing in it is beyond a number's bounds (a mapping may come from a caller)."""
        if isinstance(self.value, Mapping):
            return {key: field.plain() for key, field in self.items()}
        if isinstance(self.value, (list, tuple)):
            return [field.plain() for field in self.each()]
        if isinstance(self.value, float):
            if not abs(self.value) < float("inf"):
                raise self.fault("a finite number")
        elif self.value is not None and not isinstance(self.value, (bool, int, str)):
            raise self.fault("a JSON value")
        return self.value
