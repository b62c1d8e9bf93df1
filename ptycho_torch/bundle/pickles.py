"""Unpickle plain values only: every opcode is looked at first, every global is on a list, growth is bounded.

Nothing is ever imported by name from a pickle: an allowed global stands for an object of our own choosing.
"""

from __future__ import annotations

import collections
import io
import pathlib
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ptycho_torch.bundle import limits
from ptycho_torch.errors import DamagedBundleError, LimitExceededError, UnsafeContentError

Global = tuple[str, str]

# What moves values onto the stack, into containers and into the memo. GLOBAL and REDUCE are allowed here and judged by
# the list of globals; what can set state, build instances or reach the extension registry is not.
_PLAIN_OPCODES = frozenset(
    [
        "PROTO",
        "FRAME",
        "STOP",
        "MARK",
        "POP",
        "POP_MARK",
        "DUP",
        "PUT",
        "BINPUT",
        "LONG_BINPUT",
        "GET",
        "BINGET",
        "LONG_BINGET",
        "MEMOIZE",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "EMPTY_LIST",
        "LIST",
        "APPEND",
        "APPENDS",
        "EMPTY_TUPLE",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "EMPTY_DICT",
        "DICT",
        "SETITEM",
        "SETITEMS",
        "EMPTY_SET",
        "ADDITEMS",
        "FROZENSET",
        "GLOBAL",
        "STACK_GLOBAL",
        "REDUCE",
        "BUILD",
        "NEWOBJ",
    ]
)
_TENSOR_OPCODES = _PLAIN_OPCODES | {"BINPERSID"}


def _numpy_array(_subtype: Any, _shape: Any, _kind: Any) -> _ArrayState:
    return _ArrayState()


def _numpy_scalar(dtype: _DtypeState, data: bytes) -> Any:
    return np.frombuffer(_as_bytes(data), dtype.value())[0]


def _as_bytes(data: Any) -> bytes:
    if isinstance(data, str):
        return data.encode("latin-1")
    if not isinstance(data, bytes):
        raise UnsafeContentError(f"array data of type {type(data).__name__}; expected bytes")
    return data


class _DtypeState:
    """Stands for `numpy.dtype`; only plain numbers and text come out of it."""

    def __init__(self, code: Any, *_flags: Any) -> None:
        self.code = str(code)
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        if (
            not isinstance(state, tuple)
            or len(state) < 2
            or (len(state) > 4 and any(s is not None for s in state[2:5]))
        ):
            raise UnsafeContentError("a structured numpy dtype; expected plain numbers")
        self.order = {"<": "<", ">": ">", "|": "|"}.get(str(state[1]), "=")

    def value(self) -> np.dtype[Any]:
        try:
            dtype = np.dtype(self.code)
        except (TypeError, ValueError) as error:
            raise UnsafeContentError(f"numpy dtype {self.code!r}; expected plain numbers") from error
        if dtype.kind not in "biufcSU" or dtype.subdtype is not None or dtype.itemsize > 4096:
            raise UnsafeContentError(f"numpy dtype {self.code!r}; expected plain numbers")
        if self.order == "<":
            return dtype.newbyteorder("<")
        return dtype.newbyteorder(">") if self.order == ">" else dtype


class _ArrayState:
    """Stands for a numpy array until its state arrives."""

    array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _DtypeState):
            raise UnsafeContentError("a numpy array in an unknown layout; expected plain numbers")
        _, shape, dtype, fortran, data = state
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise UnsafeContentError("a numpy array with a shape that is no tuple of whole numbers")
        flat = np.frombuffer(_as_bytes(data), dtype.value())
        try:
            self.array = flat.reshape(shape, order="F" if fortran else "C")
        except ValueError as error:
            raise DamagedBundleError(f"a numpy array of shape {shape} with {flat.size} values") from error


def _set_of(items: Any = ()) -> set[Any]:
    return set(items)


def _path(*parts: Any) -> pathlib.PurePath:
    if not all(isinstance(part, str) for part in parts):
        raise UnsafeContentError("a path whose parts are not text")
    return pathlib.PurePosixPath(*parts)


PLAIN_GLOBALS: Mapping[Global, Callable[..., Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): _set_of,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "complex"): complex,
    ("__builtin__", "set"): _set_of,
    ("__builtin__", "complex"): complex,
    ("numpy", "dtype"): _DtypeState,
    ("numpy", "ndarray"): type("ndarray", (), {}),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _numpy_array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _numpy_scalar for core in ("core", "_core")},
    **{
        (module, name): _path
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")
    },
}


class PickleFindings:
    """What one pickle contains, found without running it: globals, opcode counts, and what is refused."""

    def __init__(self) -> None:
        """Start empty."""
        self.globals: list[Global] = []
        self.opcodes: collections.Counter[str] = collections.Counter()
        self.refusal: str | None = None


def look_through(data: bytes, allowed: Mapping[Global, Any], *, tensors: bool = False) -> PickleFindings:
    """Return what a pickle would do, without doing it; `refusal` names the first thing that is not allowed."""
    found = PickleFindings()
    permitted = _TENSOR_OPCODES if tensors else _PLAIN_OPCODES
    if len(data) > limits.MAX_PICKLE_BYTES:
        found.refusal = f"a pickle of {len(data)} bytes; a bundle's has at most {limits.MAX_PICKLE_BYTES}"
        return found
    strings: list[str] = []
    memo: dict[int, str | None] = {}
    last: str | None = None
    try:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            found.opcodes[name] += 1
            if found.refusal is None and name not in permitted:
                found.refusal = f"the pickle opcode {name}, which no model needs"
            if found.refusal is None and found.opcodes.total() > limits.MAX_PICKLE_OPS:
                found.refusal = f"more than {limits.MAX_PICKLE_OPS} pickle opcodes"
            if "UNICODE" in name or "STRING" in name:
                last = str(argument)
                strings.append(last)
                continue
            if name in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[int(argument or 0)] = last
                continue
            if name == "MEMOIZE":
                memo[len(memo)] = last
                continue
            if name in ("GET", "BINGET", "LONG_BINGET"):
                last = memo.get(int(argument or 0))
                if last is not None:
                    strings.append(last)
                continue
            if name in ("GLOBAL", "INST", "STACK_GLOBAL"):
                if name == "STACK_GLOBAL":
                    wanted = (strings[-2], strings[-1]) if len(strings) > 1 else ("?", "?")
                else:
                    module, _, attribute = str(argument).partition(" ")
                    wanted = (module, attribute)
                found.globals.append(wanted)
                if found.refusal is None and wanted not in allowed:
                    found.refusal = f"the global {wanted[0]}.{wanted[1]}"
            last = None
    except (ValueError, IndexError, UnicodeDecodeError, OverflowError) as error:
        found.refusal = found.refusal or f"bytes that are no pickle ({error})"
    return found


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that hands out only what the given table holds."""

    def __init__(self, data: bytes, table: Mapping[Global, Any], load_storage: Callable[[Any], Any] | None) -> None:
        super().__init__(io.BytesIO(data))
        self._table = table
        self._load_storage = load_storage

    def find_class(self, module: str, name: str, /) -> Any:
        """Return our stand-in for an allowed global; refuse every other."""
        if (module, name) not in self._table:
            raise UnsafeContentError(f"the global {module}.{name}")
        return self._table[(module, name)]

    def persistent_load(self, pid: Any, /) -> Any:
        """Return the tensor storage a persistent id stands for."""
        if self._load_storage is None:
            raise UnsafeContentError("a persistent id outside a tensor file")
        return self._load_storage(pid)


def load_plain(
    data: bytes,
    where: str,
    *,
    extra: Mapping[Global, Any] | None = None,
    load_storage: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the plain value in a pickle.

    Args:
        data: the pickle's bytes.
        where: archive and member, for messages.
        extra: further allowed globals and their stand-ins.
        load_storage: turns a persistent id into a tensor storage; None where persistent ids are refused.

    Raises:
        UnsafeContentError: an opcode or global that no model needs; the message names it and the member.
        DamagedBundleError: bytes that are no pickle.
        LimitExceededError: a value far larger than any model's parameters.
    """
    table = {**PLAIN_GLOBALS, **(extra or {})}
    found = look_through(data, table, tensors=load_storage is not None)
    if found.refusal is not None:
        kind = DamagedBundleError if found.refusal.startswith("bytes that") else UnsafeContentError
        raise kind(f"{where}: holds {found.refusal}; refused, nothing in it was run")
    try:
        value = _PlainUnpickler(data, table, load_storage).load()
        return _settle(value, 0, [limits.MAX_PICKLE_ITEMS])
    except (UnsafeContentError, LimitExceededError, DamagedBundleError) as error:
        raise type(error)(f"{where}: holds {error}; refused") from error
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        KeyError,
        OverflowError,
        MemoryError,
        RecursionError,
    ) as error:
        raise DamagedBundleError(
            f"{where}: is corrupt ({type(error).__name__}: {error}); copy the bundle again"
        ) from error


def _settle(value: Any, depth: int, budget: list[int]) -> Any:
    """Return the value with stand-ins resolved, refusing depth, size and types that no model's parameters have."""
    budget[0] -= 1
    if budget[0] < 0:
        raise LimitExceededError(f"more than {limits.MAX_PICKLE_ITEMS} values, shared ones counted each time")
    if depth > limits.MAX_PICKLE_DEPTH:
        raise LimitExceededError(f"values nested more than {limits.MAX_PICKLE_DEPTH} deep")
    if isinstance(value, _ArrayState):
        if value.array is None:
            raise DamagedBundleError("a numpy array without data")
        return value.array
    if isinstance(value, dict):
        return {_settle(k, depth + 1, budget): _settle(v, depth + 1, budget) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(_settle(item, depth + 1, budget) for item in value)
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        raise LimitExceededError(f"a whole number of {value.bit_length()} bits")
    if value is None or isinstance(
        value, (bool, int, float, complex, str, bytes, np.ndarray, np.generic, pathlib.PurePath)
    ):
        return value
    raise UnsafeContentError(f"a value of type {type(value).__name__}")
