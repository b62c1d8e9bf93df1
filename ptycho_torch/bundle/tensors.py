"""Read PyTorch's zip-based serialisation into numpy arrays, without PyTorch and without its unpickler.

The format (`torch.save` since 1.6): a zip with `NAME/data.pkl`, a pickle whose persistent ids name the storages, and
`NAME/data/KEY`, the storages' raw bytes, in the byte order of `NAME/byteorder`. Nothing in it is compressed.
"""

from __future__ import annotations

import bisect
import math
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from ptycho_runtime.files import printable
from ptycho_torch.bundle import limits
from ptycho_torch.bundle.members import Members
from ptycho_torch.bundle.pickle.allowed import CONFIGURATION_GLOBALS, Function, Global, is_training_state
from ptycho_torch.bundle.pickle.findings import Findings
from ptycho_torch.bundle.pickle.load import Reader, load_plain, look_through
from ptycho_torch.bundle.zip_archive import open_zip
from ptycho_torch.errors import (
    DamagedBundleError,
    NotABundleError,
    UnsafeContentError,
)

_HEAD_BYTES = 32
_BEFORE_1_6 = tuple(bytes((0x80, protocol)) + b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." for protocol in range(2, 6))
StateDict = dict[str, np.ndarray]
Source = memoryview | bytes | BinaryIO

_STORAGES: dict[str, np.dtype[Any]] = {
    name + "Storage": np.dtype(code)
    for name, code in {
        "Float": "f4", "Double": "f8", "Half": "f2", "Int": "i4", "Long": "i8", "Short": "i2", "Char": "i1",
        "Byte": "u1", "Bool": "?", "ComplexFloat": "c8", "ComplexDouble": "c16", "QInt8": "i1", "QUInt8": "u1", "QInt32": "i4",
    }.items()
}  # fmt: skip
_BFLOAT16 = "BFloat16Storage"  # numpy has no such numbers: they are the upper half of a float32
_DTYPE_NAMES = (
    "float16", "bfloat16", "float32", "float64", "complex64", "complex128", "int8", "int16", "int32", "int64", "uint8", "bool",
)  # fmt: skip


class _StorageType:
    def __init__(self, dtype: np.dtype[Any], *, bfloat16: bool = False) -> None:
        self.dtype = dtype  # as stored
        self.bfloat16 = bfloat16


class _Storage:
    """The raw values behind one or more tensors, read when the first tensor is wanted."""

    def __init__(self, parts: Members, name: str, kind: _StorageType, size: int) -> None:
        self._parts = parts
        self._name = name
        self.kind = kind
        self.size = size
        self._views: list[tuple[int, int]] = []
        self._values: np.ndarray | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of `values`."""
        return np.dtype(np.float32) if self.kind.bfloat16 else self.kind.dtype

    def holds(self, array: np.ndarray) -> bool:
        """Say whether an array is a view of these values."""
        return self._values is not None and np.may_share_memory(self._values, array)

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
            stored = self.kind.dtype
            if len(raw) != self.size * stored.itemsize:
                raise DamagedBundleError(f"a storage of {len(raw)} bytes where {self.size * stored.itemsize} are said")
            values = np.frombuffer(raw, stored)
            if self.kind.bfloat16:
                values = (values.astype(np.uint32) << 16).view(np.float32)
                values.flags.writeable = False
            self._values = values
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
        if 0 not in self._shape:
            if self._stride == _contiguous(self._shape):
                end = self._offset + math.prod(self._shape)
                return self._storage.values()[self._offset : end].reshape(self._shape)
            itemsize = self._storage.dtype.itemsize
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


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides, in values, of an array whose last axis varies fastest."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 1, 0, -1):
        strides[axis - 1] = strides[axis] * shape[axis]
    return tuple(strides)


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
    ("torch", _BFLOAT16): _StorageType(np.dtype("u2"), bfloat16=True),
}


def _finish(value: Any) -> np.ndarray | None:
    return value.array() if isinstance(value, _Tensor) else None


class TensorFile:
    """One PyTorch file: its pickle, and the storages the pickle names."""

    def __init__(self, source: Source, where: str, *, training_state: bool = False) -> None:
        """Open it.

        Args:
            source: the file's bytes, or the open file.
            where: its name for messages.
            training_state: what optimisers and the like keep in it stands for nothing.

        Raises:
            NotABundleError: another format.
            DamagedBundleError: cut short, or without its pickle.
            UnsafeContentError: members that PyTorch never writes.
        """
        head = _head(source)
        if head[:2] != b"PK":
            if head.startswith(_BEFORE_1_6):
                raise NotABundleError(
                    f"{where}: saved in PyTorch's format from before 1.6; open and save it again with a newer PyTorch"
                )
            if head[:1] == b"\x80":
                raise NotABundleError(
                    f"{where}: is a plain pickle, not a file that torch.save wrote; save the weights with torch.save"
                )
            raise DamagedBundleError(f"{where}: is no PyTorch file; copy it again")
        self.where = where
        self._parts = open_zip(source, where, plain=True)
        pickles = [name for name in self._parts if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise DamagedBundleError(f"{where}: holds {len(pickles)} data.pkl; a PyTorch file has one")
        self._prefix = pickles[0].removesuffix("data.pkl")
        self._storages: dict[str, _Storage] = {}
        self._bfloat16: list[_Storage] = []
        self.findings = Findings()  # what `load` came across
        self._reader = Reader(
            extra={**TENSOR_GLOBALS, **CONFIGURATION_GLOBALS},
            load_storage=self._load_storage,
            finish=_finish,
            skippable=is_training_state if training_state else None,
        )

    def look_through(self) -> Findings:
        """Return what its pickle asks for, without reading the tensors."""
        return look_through(self._pickle(), self._reader)

    def load(self, want: Callable[[Any], bool] | None = None) -> Any:
        """Return its value with tensors as read-only arrays; `want` says which outermost keys are read, the rest is left."""
        order = self._small("byteorder", b"little")
        if order != sys.byteorder.encode():
            raise DamagedBundleError(
                f"{self.where}: stored in {printable(ascii(order))} byte order; expected {sys.byteorder!r}"
            )
        return load_plain(self._pickle(), self.where, self._reader, findings=self.findings, want=want)

    def is_bfloat16(self, array: np.ndarray) -> bool:
        """Say whether an array that `load` returned was stored in bfloat16, which numpy does not have."""
        return any(storage.holds(array) for storage in self._bfloat16)

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
            self._storages[key] = _Storage(self._parts, name, kind, size)
            if kind.bfloat16:
                self._bfloat16.append(self._storages[key])
        storage = self._storages[key]
        if storage.kind is not kind or storage.size != size:
            raise UnsafeContentError(f"a storage {printable(ascii(key))} used with two dtypes or sizes")
        return storage


def _head(source: Source) -> bytes:
    if isinstance(source, (bytes, memoryview)):
        return bytes(source[:_HEAD_BYTES])
    source.seek(0)
    return source.read(_HEAD_BYTES)


def load_tensors(source: Source, where: str, *, want: Callable[[Any], bool] | None = None) -> Any:
    """Return the value in a PyTorch file with tensors as read-only numpy arrays.

    Tensors that share one whole storage share memory here too.

    Args:
        source: the file's bytes, or the open file.
        where: its name for messages.
        want: says which keys of the outermost dictionary are wanted; the tensors of the others are not read.

    Raises:
        UnsafeContentError: a global, opcode or tensor layout that no model needs.
        DamagedBundleError: a storage that is missing, cut short or of another size than the tensors say.
        LimitExceededError: more than any model has.
        NotABundleError: a file in PyTorch's format from before 1.6.
    """
    return TensorFile(source, where).load(want)
