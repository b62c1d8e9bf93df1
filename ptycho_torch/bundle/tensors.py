"""Read PyTorch's zip-based serialisation into numpy arrays, without PyTorch and without its unpickler.

The format (`torch.save` since 1.6): a zip with `NAME/data.pkl`, a pickle whose persistent ids name the storages, and
`NAME/data/KEY`, the storages' raw bytes, in the byte order of `NAME/byteorder`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ptycho_torch.bundle import limits
from ptycho_torch.bundle.archive import Members, open_zip
from ptycho_torch.bundle.pickles import Global, PickleFindings, load_plain, look_through
from ptycho_torch.errors import DamagedBundleError, NotABundleError, UnsafeContentError, WeightMismatchError

StateDict = dict[str, np.ndarray]

_STORAGES: dict[str, np.dtype[Any]] = {
    name + "Storage": np.dtype(code)
    for name, code in {
        "Float": "f4", "Double": "f8", "Half": "f2", "Int": "i4", "Long": "i8", "Short": "i2", "Char": "i1",
        "Byte": "u1", "Bool": "?", "ComplexFloat": "c8", "ComplexDouble": "c16",
    }.items()
}  # fmt: skip
WEIGHT_DTYPES = (np.dtype("f4"), np.dtype("f8"), np.dtype("f2"), np.dtype("c8"), np.dtype("c16"), np.dtype("i8"))


class _Storage:
    """The raw values behind one or more tensors."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.views: set[tuple[int, int]] = set()


class _StorageType:
    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, requires_grad: Any = False, hooks: Any = None, *rest: Any
) -> np.ndarray:
    if not isinstance(storage, _Storage):
        raise UnsafeContentError("a tensor without a storage")
    numbers = (offset, *shape, *stride) if isinstance(shape, tuple) and isinstance(stride, tuple) else (None,)
    if (
        not all(type(n) is int and n >= 0 for n in numbers)
        or len(shape) != len(stride)
        or len(shape) > limits.MAX_TENSOR_AXES
        or hooks
    ):
        raise UnsafeContentError("a tensor whose offset, shape, strides or hooks are no plain numbers")
    count = 1
    for n in shape:
        count *= n
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) if count else offset
    if count > storage.values.size or (count and last >= storage.values.size):
        raise DamagedBundleError(
            f"a tensor of shape {shape} that needs more than the {storage.values.size} values stored for it"
        )
    packed = sorted((s, n) for n, s in zip(shape, stride, strict=True) if n > 1)
    step = 1
    for s, n in packed:
        if count and s != step:
            raise UnsafeContentError(
                f"a tensor of shape {shape} with strides {stride}, which overlaps itself or skips values"
            )
        step *= n
    if count:
        view = (offset, offset + count)
        if any(view != other and view[0] < other[1] and other[0] < view[1] for other in storage.views):
            raise UnsafeContentError("two tensors that overlap in part of one storage")
        storage.views.add(view)
    itemsize = storage.values.itemsize
    return np.lib.stride_tricks.as_strided(
        storage.values[offset:], shape=shape, strides=tuple(s * itemsize for s in stride), writeable=False
    )


def _rebuild_parameter(data: Any, *_rest: Any) -> Any:
    return data


TENSOR_GLOBALS: dict[Global, Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGES.items()},
}


def _parts(data: bytes, where: str) -> tuple[Members, str]:
    if data[:2] != b"PK":
        if data[:1] == b"\x80":
            raise NotABundleError(
                f"{where}: saved in PyTorch's format from before 1.6; open and save it again with a newer PyTorch"
            )
        raise DamagedBundleError(f"{where}: is no PyTorch file; copy the bundle again")
    parts = open_zip(data, where)
    pickles = [name for name in parts if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise DamagedBundleError(f"{where}: holds {len(pickles)} data.pkl; a PyTorch file has one")
    return parts, pickles[0].removesuffix("data.pkl")


def look_through_tensors(data: bytes, where: str) -> PickleFindings:
    """Return what the pickle inside a PyTorch file would do, without doing it."""
    from ptycho_torch.bundle.pickles import PLAIN_GLOBALS

    parts, prefix = _parts(data, where)
    return look_through(parts[prefix + "data.pkl"], {**PLAIN_GLOBALS, **TENSOR_GLOBALS}, tensors=True)


def load_tensors(data: bytes, where: str) -> Any:
    """Return the value in a PyTorch file with tensors as read-only numpy arrays.

    Tensors that share one whole storage share memory here too.

    Raises:
        UnsafeContentError: a global, opcode or tensor layout that no model needs.
        DamagedBundleError: a storage that is missing, cut short or of another size than the tensors say.
        NotABundleError: a file in PyTorch's format from before 1.6.
    """
    parts, prefix = _parts(data, where)
    order = parts[prefix + "byteorder"].strip() if prefix + "byteorder" in parts else b"little"
    if order != sys.byteorder.encode():
        raise DamagedBundleError(
            f"{where}: stored in {order.decode('latin-1')!r} byte order; expected {sys.byteorder!r}"
        )
    storages: dict[str, _Storage] = {}

    def load_storage(pid: Any) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[1], _StorageType)):
            raise UnsafeContentError("a persistent id that names no tensor storage")
        _, kind, key, _, size = pid
        if not isinstance(key, str) or type(size) is not int:
            raise UnsafeContentError("a persistent id that names no tensor storage")
        if key not in storages:
            name = f"{prefix}data/{key}"
            if name not in parts:
                raise DamagedBundleError(f"a tensor whose storage {key!r} is missing")
            raw = parts[name]
            if len(raw) != size * kind.dtype.itemsize:
                raise DamagedBundleError(
                    f"a storage {key!r} of {len(raw)} bytes where {size * kind.dtype.itemsize} are said"
                )
            storages[key] = _Storage(np.frombuffer(raw, kind.dtype))
        storage = storages[key]
        if storage.values.dtype != kind.dtype:
            raise UnsafeContentError(f"a storage {key!r} used with two dtypes")
        return storage

    return load_plain(parts[prefix + "data.pkl"], where, extra=TENSOR_GLOBALS, load_storage=load_storage)


def check_weights(weights: Any, where: str) -> StateDict:
    """Return a state_dict whose every entry is a usable tensor; raises `WeightMismatchError` naming the first that is not."""
    if not isinstance(weights, dict) or not weights:
        raise DamagedBundleError(f"{where}: holds no state_dict; expected named tensors")
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray):
            raise WeightMismatchError(f"{where}: entry {key!r} is {type(value).__name__}; expected a dense tensor")
        if value.dtype not in WEIGHT_DTYPES:
            raise WeightMismatchError(f"{where}: {key} has dtype {value.dtype}; expected floating-point weights")
        if not np.isfinite(value).all():
            raise WeightMismatchError(
                f"{where}: {key} holds values that are not finite; the training diverged or the file is damaged"
            )
    return weights
