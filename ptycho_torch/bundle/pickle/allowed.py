"""What an allowed pickle global stands for: functions and values of our own, none of which can do more than build data."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ptycho_runtime.files import printable
from ptycho_torch.bundle import limits
from ptycho_torch.errors import DamagedBundleError, LimitExceededError, UnsafeContentError

Global = tuple[str, str]

# Fixed-width numbers and short text: no objects, no fields, no sub-arrays, nothing whose width depends on the machine.
_DTYPE = re.compile(r"[<>|=]?(\?|b1|[iu][1248]|f[248]|c8|c16|[SU][1-9][0-9]{0,2})")
_SCALARS = (str, int, float, complex, bool, bytes, type(None))


class Function:
    """A callable that a pickle may call; the pickle sees the name, never the Python function."""

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        """Take the name for messages and what to do when called."""
        self.name = name
        self.call = call


class Dtype:
    """Stands for `numpy.dtype`; only plain numbers and text come out of it."""

    def __init__(self, code: str) -> None:
        """Take numpy's code, such as `f8`."""
        if not _DTYPE.fullmatch(code):
            raise UnsafeContentError(f"the numpy dtype {printable(repr(code))}; expected plain numbers")
        self.dtype = np.dtype(code)

    def set_state(self, state: Any) -> None:
        """Take the byte order; refuse fields, sub-arrays and metadata."""
        if not isinstance(state, tuple) or len(state) not in (8, 9) or any(part is not None for part in state[2:5]):
            raise UnsafeContentError("a structured numpy dtype; expected plain numbers")
        if not isinstance(state[1], str) or state[1] not in "<>|=" or len(state) == 9:
            raise UnsafeContentError("a numpy dtype with metadata or an unknown byte order; expected plain numbers")
        if state[1] in "<>":
            self.dtype = self.dtype.newbyteorder("<" if state[1] == "<" else ">")


class Array:
    """Stands for a numpy array until its state arrives."""

    def __init__(self) -> None:
        """Start without data."""
        self.array: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        """Take the layout and the data."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise UnsafeContentError("a numpy array in an unknown layout; expected plain numbers")
        _, shape, dtype, fortran, data = state
        self.array = _array(data, dtype, shape, "F" if fortran else "C")


class Record:
    """Stands for a configuration object: the names and values in it, and nothing else."""

    def __init__(self) -> None:
        """Start without values."""
        self.values: dict[str, Any] = {}

    def set_state(self, state: Any) -> None:
        """Take the attributes."""
        if type(state) is not dict or not all(isinstance(key, str) for key in state):
            raise UnsafeContentError("a configuration object whose state is no dictionary with text keys")
        self.values = state


class RecordType(Function):
    """The class of a configuration object; an instance of it is a `Record`."""

    def __init__(self, name: str) -> None:
        """Take the name for messages."""
        super().__init__(name, Record)


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, Dtype) or not isinstance(data, bytes) or order not in ("C", "F"):
        raise UnsafeContentError("a numpy array of objects or in an unknown layout; expected plain numbers")
    if not isinstance(shape, tuple) or len(shape) > limits.MAX_TENSOR_AXES:
        raise UnsafeContentError("a numpy array whose shape is no short tuple")
    if not all(type(n) is int and 0 <= n <= limits.MAX_AXIS_LENGTH for n in shape):
        raise UnsafeContentError("a numpy array with a shape that is no tuple of whole numbers")
    count = 1
    for n in shape:
        count *= n
    if count * dtype.dtype.itemsize != len(data):
        raise DamagedBundleError(f"a numpy array of shape {shape} with {len(data)} bytes of data")
    try:
        return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)
    except ValueError as error:
        raise DamagedBundleError(f"a numpy array of shape {shape}, which does not fit its data") from error


def _reconstruct(_subtype: Any, _shape: Any, _kind: Any) -> Array:
    return Array()


def _dill_array(_function: Any, _arguments: Any, state: Any, extra: Any = None) -> Array:
    """Stand for dill's own way to store an array: `_reconstruct` and its state in one call."""
    if extra:
        raise UnsafeContentError("a numpy array with attributes; expected plain numbers")
    made = Array()
    made.set_state(state)
    return made


def _dill_type(name: Any = None) -> Function:
    """Stand for dill's own way to name a builtin type."""
    if name not in ("bytes", "complex", "set", "frozenset"):
        raise UnsafeContentError(f"the type {printable(ascii(name))}")
    return Function(f"builtins.{name}", _FUNCTIONS[("builtins", name)])


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    made = Array()
    made.array = _array(data, dtype, shape, order)
    return made


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, Dtype) or not isinstance(data, bytes) or len(data) != dtype.dtype.itemsize:
        raise UnsafeContentError("a numpy scalar in an unknown layout; expected a plain number")
    return np.frombuffer(data, dtype.dtype)[0]


def _dtype(code: Any, *_flags: Any) -> Dtype:
    if not isinstance(code, str):
        raise UnsafeContentError("a numpy dtype without a code; expected plain numbers")
    return Dtype(code)


def _encode(text: Any, encoding: Any) -> bytes:
    """Stand for `_codecs.encode`, by which older pickle protocols store bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnsafeContentError("a text encoding other than latin1")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise DamagedBundleError("bytes that are no bytes") from error


def _complex(real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    if not all(type(part) in (int, float) for part in (real, imaginary)):
        raise UnsafeContentError("a complex number whose parts are no numbers")
    return complex(real, imaginary)


def _items(given: tuple[Any, ...]) -> list[Any]:
    if not given:
        return []
    if len(given) != 1 or not isinstance(given[0], (list, tuple)):
        raise UnsafeContentError("a collection made of something other than a list")
    for item in given[0]:
        check_key(item)
    if len(given[0]) > limits.MAX_OTHER_KEYS:
        raise LimitExceededError(f"a set of {len(given[0])} values; a bundle's has at most {limits.MAX_OTHER_KEYS}")
    return list(given[0])


def check_key(key: Any) -> None:
    """Refuse a dictionary key or set member whose hash or comparison could be made expensive, or that is no plain value."""
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) > limits.MAX_TENSOR_AXES or not all(isinstance(part, _SCALARS) for part in parts):
        raise UnsafeContentError(f"a dictionary key of type {type(key).__name__}; expected text or numbers")
    if any(isinstance(part, (str, bytes)) and len(part) > limits.MAX_KEY_LENGTH for part in parts):
        raise LimitExceededError(f"a dictionary key of more than {limits.MAX_KEY_LENGTH} characters")


def _ordered(*given: Any) -> dict[Any, Any]:
    """Stand for `OrderedDict`: a plain dictionary keeps its order as well."""
    if not given:
        return {}
    if len(given) != 1 or not isinstance(given[0], list):
        raise UnsafeContentError("an OrderedDict made of something other than a list of pairs")
    made: dict[Any, Any] = {}
    for pair in given[0]:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise UnsafeContentError("an OrderedDict made of something other than a list of pairs")
        if not isinstance(pair[0], str):
            raise UnsafeContentError("an OrderedDict made of pairs whose keys are no text")
        check_key(pair[0])
        made[pair[0]] = pair[1]
    return made


def _path(*parts: Any) -> pathlib.PurePath:
    if not all(isinstance(part, str) for part in parts):
        raise UnsafeContentError("a path whose parts are no text")
    return pathlib.PurePosixPath(*parts)


def _empty_bytes() -> bytes:
    return b""


_FUNCTIONS: dict[Global, Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _dtype,
    ("dill._dill", "_create_array"): _dill_array,
    ("dill._dill", "_load_type"): _dill_type,
    ("numpy", "ndarray"): _reconstruct,  # only ever an argument of _reconstruct, which ignores it
    **{(module, "set"): lambda *given: set(_items(given)) for module in ("builtins", "__builtin__")},
    **{(module, "frozenset"): lambda *given: frozenset(_items(given)) for module in ("builtins", "__builtin__")},
    **{(module, "complex"): _complex for module in ("builtins", "__builtin__")},
    **{(module, "bytes"): _empty_bytes for module in ("builtins", "__builtin__")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    **{
        (module, name): _path
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")
    },
}

PLAIN_GLOBALS: Mapping[Global, Any] = {
    name: Function(f"{name[0]}.{name[1]}", call) for name, call in _FUNCTIONS.items()
}

# The configuration classes that checkpoints of PtychoPINN's torchapi-devel branch pickle as objects.
CONFIGURATION_GLOBALS: Mapping[Global, Any] = {
    ("ptycho_torch.config_params", name): RecordType(f"ptycho_torch.config_params.{name}")
    for name in ("ModelConfig", "DataConfig", "TrainingConfig", "InferenceConfig")
}

# What optimisers, schedulers and callbacks keep their state in. None of it is ever made: it stands for nothing.
_TRAINING_ROOTS = frozenset(
    ("collections", "datetime", "lightning", "lightning_fabric", "numpy", "pytorch_lightning", "torch", "torchmetrics")
)
_TRAINING_GLOBALS = frozenset(
    {("argparse", "Namespace"), ("functools", "partial"), ("types", "SimpleNamespace")}
    | {
        (module, name)
        for module in ("builtins", "__builtin__")
        for name in ("dict", "float", "int", "list", "long", "object", "range", "slice", "str", "tuple", "xrange")
    }
)


def is_training_state(wanted: Global) -> bool:
    """Say whether a global is of the kind that the state of a training run is made of."""
    return wanted in _TRAINING_GLOBALS or wanted[0].partition(".")[0] in _TRAINING_ROOTS
