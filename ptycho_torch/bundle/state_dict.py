"""From the tensors of a file to a state_dict in float32 under the names that a module has."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ptycho_runtime.files import printable
from ptycho_torch.bundle.tensors import StateDict, TensorFile
from ptycho_torch.errors import DamagedBundleError, WeightMismatchError

MODEL_PREFIX = "model."
_ALONE = ("log_scale_delta",)  # the one parameter of a model that lies beside `model.`
WEIGHT_DTYPES = (np.dtype("f4"), np.dtype("f8"), np.dtype("f2"), np.dtype("c8"), np.dtype("c16"), np.dtype("i8"))
_AS_BUILT = {
    np.dtype("f2"): np.dtype("f4"),
    np.dtype("f8"): np.dtype("f4"),
    np.dtype("c16"): np.dtype("c8"),
}
_FINITE_CHUNK = 1 << 20  # values looked at in one go
# DataParallel and torch.compile wrap the module, or its `model`.
_WRAPPERS = re.compile(r"^((?:module\.|_orig_mod\.)*)(model\.)?((?:module\.|_orig_mod\.)*)")


def is_foreign(key: str) -> bool:
    """Say whether a key of a state_dict belongs to something beside the model, such as averaged weights or a metric."""
    return not key.startswith(MODEL_PREFIX) and key not in _ALONE


def check_weights(weights: Any, where: str) -> StateDict:
    """Return a state_dict whose every entry is a usable tensor; raises `WeightMismatchError` naming the first that is not."""
    if not isinstance(weights, dict) or not weights:
        raise DamagedBundleError(f"{where}: holds no state_dict; expected named tensors")
    has_model = any(isinstance(key, str) and key.startswith(MODEL_PREFIX) for key in weights)
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray):
            raise WeightMismatchError(
                f"{where}: entry {printable(ascii(key))} is {type(value).__name__}; expected a dense tensor"
            )
        if has_model and is_foreign(key):
            continue
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


def usable_weights(value: Any, where: str, file: TensorFile) -> tuple[StateDict, list[str]]:
    """Return what a file holds as a state_dict that modules can take, and what is to be said of it.

    Args:
        value: what the file holds as weights.
        where: archive and member, for messages.
        file: the file that it was loaded from.

    Raises:
        DamagedBundleError: it is no state_dict.
        WeightMismatchError: an entry that is no usable tensor.
    """
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        value, notices = unwrapped(value, where)
    else:
        notices = []
    weights = check_weights(value, where)
    converted, further = as_float32(weights, where, bfloat16=file.is_bfloat16)
    return converted, notices + further


def unwrapped(weights: StateDict, where: str) -> tuple[StateDict, list[str]]:
    """Return a state_dict without the prefixes that wrappers add to its names, and what is to be said of it.

    Raises `WeightMismatchError` where two names would become one.
    """
    renamed: StateDict = {}
    wrappers: dict[str, None] = {}
    for key, value in weights.items():
        match = _WRAPPERS.match(key)
        outer, inner = (match[1], match[3]) if match is not None else ("", "")
        plain = key
        # Inside a model that is not wrapped, a part may have such a name of its own.
        if match is not None and (outer or inner):
            plain = (match[2] or "") + key[match.end() :]
            wrappers.update(dict.fromkeys(f"{part}." for part in (outer + inner).split(".") if part))
        if plain in renamed:
            raise WeightMismatchError(
                f"{where}: {printable(key)} and another key are both {printable(plain)} without the prefixes of wrappers; "
                "save the module itself, not a wrapper around it"
            )
        renamed[plain] = value
    if not wrappers:
        return weights, []
    names = " and ".join(wrappers)
    return renamed, [f"{where}: its names begin with {names}, which a wrapper added; read without it"]


def as_float32(
    weights: StateDict, where: str, *, bfloat16: Callable[[np.ndarray], bool]
) -> tuple[StateDict, list[str]]:
    """Return a state_dict in the precision in which modules are built, and what is to be said of it.

    Args:
        weights: what `check_weights` let pass.
        where: archive and member, for messages.
        bfloat16: says of an array in float32 whether it was stored in bfloat16.

    Raises:
        WeightMismatchError: a value that float32 cannot hold.
    """
    converted: StateDict = {}
    kinds: dict[str, int] = {}
    for key, value in weights.items():
        wanted = _AS_BUILT.get(value.dtype)
        kind = "bfloat16" if bfloat16(value) else value.dtype.name if wanted is not None else None
        if kind is not None:
            kinds[kind] = kinds.get(kind, 0) + 1
        if wanted is None:
            converted[key] = value
            continue
        with np.errstate(over="ignore"):
            narrowed = value.astype(wanted)
        if not _all_finite(narrowed) and _all_finite(value):
            raise WeightMismatchError(
                f"{where}: {printable(key)} holds {value.dtype.name} values beyond float32; the training diverged or the file is damaged"
            )
        narrowed.flags.writeable = False
        converted[key] = narrowed
    notices = [
        f"{kind} weights ({count} of {len(weights)}) are read as float32: {where}" for kind, count in kinds.items()
    ]
    return converted, notices
