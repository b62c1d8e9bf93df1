"""Plain values from pickles: followed by a machine of our own that can build data and nothing else, within limits."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptycho_torch.bundle import limits
from ptycho_torch.bundle.pickle.allowed import PLAIN_GLOBALS, Array, Dtype, Function, Global, Record
from ptycho_torch.bundle.pickle.findings import Findings, Nothing
from ptycho_torch.bundle.pickle.machine import Machine
from ptycho_torch.errors import BundleError, DamagedBundleError, LimitExceededError, UnsafeContentError

Finish = Callable[[Any], np.ndarray | None]


@dataclass(frozen=True)
class Reader:
    """What a kind of pickle may hold beyond plain values."""

    extra: Mapping[Global, Any] = field(default_factory=dict)
    """Further allowed globals and what they stand for."""
    load_storage: Callable[[Any], Any] | None = None
    """Turns a persistent id into a tensor storage; None where persistent ids are refused."""
    finish: Finish | None = None
    """Turns a further kind of stand-in into an array; returns None for what it does not know."""
    skippable: Callable[[Global], bool] | None = None
    """Which unknown globals may stand for nothing, as long as nobody wants what is made of them."""

    def machine(self, data: bytes, findings: Findings, *, judge: bool) -> Machine:
        """Return a machine at the front of a pickle."""
        table = {**PLAIN_GLOBALS, **self.extra}
        return Machine(data, table, self.load_storage, findings, judge=judge, skippable=self.skippable)


_PLAIN = Reader()


def look_through(data: bytes, reader: Reader = _PLAIN) -> Findings:
    """Return what a pickle asks for, the refused included; `refusal` is the first thing that ends a load."""
    findings = Findings()
    try:
        reader.machine(data, findings, judge=False).run()
    except BundleError as error:
        findings.refusal = findings.refusal or error
    return findings


def load_plain(
    data: bytes,
    where: str,
    reader: Reader = _PLAIN,
    *,
    findings: Findings | None = None,
    want: Callable[[Any], bool] | None = None,
) -> Any:
    """Return the plain value in a pickle.

    Args:
        data: the pickle's bytes.
        where: archive and member, for messages.
        reader: what it may hold beyond plain values.
        findings: is told what the pickle asks for.
        want: says which keys of the outermost dictionary are wanted; the others are left out.

    Raises:
        UnsafeContentError: an opcode, global or value that no model needs; the message names it and the member.
        DamagedBundleError: bytes that are no pickle, or values that contradict themselves.
        LimitExceededError: a value far larger than any model's parameters.
    """
    try:
        value = reader.machine(data, Findings() if findings is None else findings, judge=True).run()
        if want is not None and isinstance(value, dict):
            value = {key: item for key, item in value.items() if want(key)}
        return _Settling(reader.finish).settle(value, 0)
    except BundleError as error:
        if str(error).startswith(f"{where}: "):
            raise  # the archive's own reader has said where
        raise type(error)(f"{where}: holds {error}; refused, nothing in it was run") from error


class _Settling:
    """Turns stand-ins into values, counting every value as often as it occurs."""

    def __init__(self, finish: Finish | None) -> None:
        self._finish = finish
        self._left = limits.MAX_PICKLE_ITEMS

    def _count(self, items: int) -> None:
        self._left -= items
        if self._left < 0:
            raise LimitExceededError(f"more than {limits.MAX_PICKLE_ITEMS} values, shared ones counted each time")

    def settle(self, value: Any, depth: int) -> Any:
        """Return the value without stand-ins; refuse depth, size and types that no model's parameters have."""
        if depth > limits.MAX_PICKLE_DEPTH:
            raise LimitExceededError(f"values nested more than {limits.MAX_PICKLE_DEPTH} deep")
        self._count(1)
        if isinstance(value, (str, bytes)):
            self._count(len(value) // 16)
            return value
        if value is None or isinstance(value, (bool, int, float, complex, np.generic, pathlib.PurePath)):
            return value
        if isinstance(value, dict):
            for key in value:
                if type(key) is str:
                    self._count(1 + len(key) // 16)
                else:
                    self.settle(key, depth + 1)
            return {key: self.settle(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return type(value)(self.settle(item, depth + 1) for item in value)
        if isinstance(value, Record):
            return self.settle(value.values, depth + 1)
        if isinstance(value, Nothing):
            raise UnsafeContentError(value.name)
        if isinstance(value, Array):
            if value.array is None:
                raise DamagedBundleError("a numpy array without data")
            self._count(value.array.size // 4)
            return value.array
        made = None if self._finish is None else self._finish(value)
        if made is not None:
            return made
        kind = value.name if isinstance(value, Function) else "numpy.dtype" if isinstance(value, Dtype) else None
        raise UnsafeContentError(f"a value of type {kind or type(value).__name__}; expected plain numbers and text")
