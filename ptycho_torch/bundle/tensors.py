"""Read PyTorch's zip-based serialisation into numpy arrays, without PyTorch and without its unpickler.

The format (`torch.save` since 1.6): a zip with `NAME/data.pkl`, a pickle whose persistent ids name the storages, and
`NAME/data/KEY`, the storages' raw bytes, in the byte order of `NAME/byteorder`. Nothing in it is compressed.
"""

from __future__ import annotations

import bisect
import sys
from typing import Any, BinaryIO

import numpy as np

from ptycho_runtime.files import printable
from ptycho_torch.bundle import limits
from ptycho_torch.bundle.members import Members
from ptycho_torch.bundle.pickle.allowed import Function, Global
from ptycho_torch.bundle.pickle.load import load_plain, look_through
from ptycho_torch.bundle.pickle.machine import Findings
from ptycho_torch.bundle.zip_archive import open_zip
from ptycho_torch.errors import (
    DamagedBundleError,
    NotABundleError,
    UnsafeContentError,
    WeightMismatchError,
)

StateDict = dict[str, np.ndarray]
Source = memoryview | bytes | BinaryIO

_STORAGES: dict[str, np.dtype[Any]] = {
    name + "Storage": np.dtype(code)
    for name, code in {
        "Float": "f4", "Double": "f8", "Half": "f2", "Int": "i4", "Long": "i8", "Short": "i2", "Char": "i1",
        "Byte": "u1", "Bool": "?", "ComplexFloat": "c8", "ComplexDouble": "c16",
    }.items()
}  # fmt: skip
_DTYPE_NAMES = (
    "float16", "bfloat16", "float32", "float64", "complex64", "complex128", "int8", "int16", "int32", "int64", "uint8", "bool",
)  # fmt: skip
WEIGHT_DTYPES = (np.dtype("f4"), np.dtype("f8"), np.dtype("f2"), np.dtype("c8"), np.dtype("c16"), np.dtype("i8"))
_FINITE_CHUNK = 1 << 20  # values looked at in one go


class _StorageType:
    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype


class _Storage:
    """The raw values behind one or more tensors, read when the first tensor is wanted."""

    def __init__(self, parts: Members, name: str, dtype: np.dtype[Any], size: int) -> None:
        self._parts = parts
        self._name = name
        self.dtype = dtype
        self.size = size
        self._views: list[tuple[int, int]] = []
        self._values: np.ndarray | None = None

    def claim(self, start: int, end: int) -> None:
        """Note that a tensor uses these values; the same ones may be used again, but none in part."""
        at = bisect.bisect_left(self._views, (start, end))
        if at < len(self._views) and self._views[at] == (start, end):
            return
        if (at and self._views[at - 1][1] > start) or (at < len(self._views) and self._views[at][0] < end):
            raise UnsafeContentError("two tensors that overlap in part of one storage")
        self._views.insert(at, (start, end))

    def values(self) -> np.ndarray:
        """Return the values, read-only."""
        if self._values is None:
            raw = self._parts.buffer(self._name)
            if len(raw) != self.size * self.dtype.itemsize:
                raise DamagedBundleError(
                    f"a storage of {len(raw)} bytes where {self.size * self.dtype.itemsize} are said"
                )
            self._values = np.frombuffer(raw, self.dtype)
        return self._values


class _Tensor:
    """One tensor, checked and not yet read."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self._storage = storage
        self._offset = offset
        self._shape = shape
        self._stride = stride

    def array(self) -> np.ndarray:
        """Return the values, read-only; tensors of one storage share its memory."""
        itemsize = self._storage.dtype.itemsize
        if 0 not in self._shape:
            return np.lib.stride_tricks.as_strided(
                self._storage.values()[self._offset :],
                shape=self._shape,
                strides=tuple(s * itemsize for s in self._stride),
                writeable=False,
            )
        try:
            return np.zeros(self._shape, self._storage.dtype)
        except ValueError as error:
            raise DamagedBundleError(f"a tensor of shape {self._shape}, which no machine can hold") from error


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, requires_grad: Any = False, hooks: Any = None, *rest: Any
) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise UnsafeContentError("a tensor without a storage")
    numbers = (offset, *shape, *stride) if isinstance(shape, tuple) and isinstance(stride, tuple) else (None,)
    if (
        not all(type(n) is int and 0 <= n <= limits.MAX_AXIS_LENGTH for n in numbers)
        or len(shape) != len(stride)
        or len(shape) > limits.MAX_TENSOR_AXES
        or hooks
        or any(rest)
    ):
        raise UnsafeContentError("a tensor whose offset, shape, strides or hooks are no plain numbers")
    count = 1
    for n in shape:
        count *= n
    if count:
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        if count > storage.size or last >= storage.size:
            raise DamagedBundleError(
                f"a tensor of shape {shape} that needs more than the {storage.size} values stored for it"
            )
        step = 1
        for s, n in sorted((s, n) for n, s in zip(shape, stride, strict=True) if n > 1):
            if s != step:
                raise UnsafeContentError(
                    f"a tensor of shape {shape} with strides {stride}, which overlaps itself or skips values"
                )
            step *= n
        storage.claim(offset, offset + count)
    return _Tensor(storage, offset, shape, stride)


def _rebuild_parameter(data: Any, requires_grad: Any = False, hooks: Any = None) -> Any:
    if not isinstance(data, _Tensor) or hooks:
        raise UnsafeContentError("a parameter that is no tensor")
    return data


def _size(*given: Any) -> tuple[Any, ...]:
    if len(given) > 1 or not all(isinstance(sizes, (tuple, list)) for sizes in given):
        raise UnsafeContentError("a torch.Size of something other than numbers")
    return tuple(given[0]) if given else ()


def _device(*given: Any) -> str:
    if not 1 <= len(given) <= 2 or not isinstance(given[0], str):
        raise UnsafeContentError("a torch.device without a name")
    return ":".join(map(str, given))


TENSOR_GLOBALS: dict[Global, Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): Function("torch._utils._rebuild_tensor_v2", _rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): Function("torch._utils._rebuild_parameter", _rebuild_parameter),
    ("torch", "Size"): Function("torch.Size", _size),
    ("torch", "device"): Function("torch.device", _device),
    **{("torch", name): f"torch.{name}" for name in _DTYPE_NAMES},
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGES.items()},
}


def _finish(value: Any) -> np.ndarray | None:
    return value.array() if isinstance(value, _Tensor) else None


class TensorFile:
    """One PyTorch file: its pickle, and the storages the pickle names."""

    def __init__(self, source: Source, where: str) -> None:
        """Open it; raises `NotABundleError`, `DamagedBundleError` or `UnsafeContentError` for what is no such file."""
        head = _head(source)
        if head[:2] != b"PK":
            if head[:1] == b"\x80":
                raise NotABundleError(
                    f"{where}: saved in PyTorch's format from before 1.6; open and save it again with a newer PyTorch"
                )
            raise DamagedBundleError(f"{where}: is no PyTorch file; copy it again")
        self.where = where
        self._parts = open_zip(source, where, plain=True)
        pickles = [name for name in self._parts if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise DamagedBundleError(f"{where}: holds {len(pickles)} data.pkl; a PyTorch file has one")
        self._prefix = pickles[0].removesuffix("data.pkl")
        self._storages: dict[str, _Storage] = {}

    def look_through(self) -> Findings:
        """Return what its pickle asks for, without reading the tensors."""
        return look_through(self._pickle(), extra=TENSOR_GLOBALS, load_storage=self._load_storage)

    def load(self, without: tuple[str, ...] = ()) -> Any:
        """Return its value with tensors as read-only arrays; `without` names outermost keys whose tensors stay unread."""
        order = self._small("byteorder", b"little")
        if order != sys.byteorder.encode():
            raise DamagedBundleError(
                f"{self.where}: stored in {printable(ascii(order))} byte order; expected {sys.byteorder!r}"
            )
        return load_plain(
            self._pickle(),
            self.where,
            extra=TENSOR_GLOBALS,
            load_storage=self._load_storage,
            finish=_finish,
            without=without,
        )

    def _small(self, name: str, default: bytes) -> bytes:
        name = self._prefix + name
        if name not in self._parts:
            return default
        return bytes(self._parts.buffer(name)[:100]).strip() if self._parts.sizes_bytes[name] <= 100 else b"?"

    def _pickle(self) -> bytes:
        name = self._prefix + "data.pkl"
        if self._parts.sizes_bytes[name] > limits.MAX_PICKLE_BYTES:
            raise DamagedBundleError(
                f"{self.where}: its pickle has {self._parts.sizes_bytes[name]} bytes; expected at most {limits.MAX_PICKLE_BYTES}"
            )
        return bytes(self._parts.buffer(name))

    def _load_storage(self, pid: Any) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[1], _StorageType)):
            raise UnsafeContentError("a persistent id that names no tensor storage")
        _, kind, key, _, size = pid
        if not isinstance(key, str) or type(size) is not int or size < 0:
            raise UnsafeContentError("a persistent id that names no tensor storage")
        if key not in self._storages:
            name = f"{self._prefix}data/{key}"
            if name not in self._parts:
                raise DamagedBundleError(f"a tensor whose storage {printable(ascii(key))} is missing")
            said, there = size * kind.dtype.itemsize, self._parts.sizes_bytes[name]
            if said != there:
                raise DamagedBundleError(f"a storage {printable(ascii(key))} of {there} bytes where {said} are said")
            self._storages[key] = _Storage(self._parts, name, kind.dtype, size)
        storage = self._storages[key]
        if storage.dtype != kind.dtype or storage.size != size:
            raise UnsafeContentError(f"a storage {printable(ascii(key))} used with two dtypes or sizes")
        return storage


def _head(source: Source) -> bytes:
    if isinstance(source, (bytes, memoryview)):
        return bytes(source[:4])
    source.seek(0)
    return source.read(4)


def load_tensors(source: Source, where: str, *, without: tuple[str, ...] = ()) -> Any:
    """Return the value in a PyTorch file with tensors as read-only numpy arrays.

    Tensors that share one whole storage share memory here too.

    Args:
        source: the file's bytes, or the open file.
        where: its name for messages.
        without: keys of the outermost dictionary to leave out; their tensors are not read.

    Raises:
        UnsafeContentError: a global, opcode or tensor layout that no model needs.
        DamagedBundleError: a storage that is missing, cut short or of another size than the tensors say.
        LimitExceededError: more than any model has.
        NotABundleError: a file in PyTorch's format from before 1.6.
    """
    return TensorFile(source, where).load(without)


def check_weights(weights: Any, where: str) -> StateDict:
    """Return a state_dict whose every entry is a usable tensor; raises `WeightMismatchError` naming the first that is not."""
    if not isinstance(weights, dict) or not weights:
        raise DamagedBundleError(f"{where}: holds no state_dict; expected named tensors")
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray):
            raise WeightMismatchError(
                f"{where}: entry {printable(ascii(key))} is {type(value).__name__}; expected a dense tensor"
            )
        if value.dtype not in WEIGHT_DTYPES:
            raise WeightMismatchError(
                f"{where}: {printable(key)} has dtype {value.dtype}; expected floating-point weights"
            )
        if not _all_finite(value):
            raise WeightMismatchError(
                f"{where}: {printable(key)} holds values that are not finite; the training diverged or the file is damaged"
            )
    return weights


def _all_finite(values: np.ndarray) -> bool:
    flat = values.ravel(order="K")  # a view: tensors are dense, whatever the order of their axes
    return all(bool(np.isfinite(flat[i : i + _FINITE_CHUNK]).all()) for i in range(0, flat.size, _FINITE_CHUNK))
