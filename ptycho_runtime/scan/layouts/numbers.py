"""Numbers from files: what is none is refused by its name."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.files import printable

MOST_VALUES = 1 << 27  # of an array that is read whole
MOST_FRAMES = 1 << 24


def check_type(dtype: np.dtype[Any], what: str, kinds: str = "iuf") -> None:
    """Raise `ScanError` where an array's type is none of real numbers.

    Args:
        dtype: of the array.
        what: file and name of the array, for the message.
        kinds: numpy's letters of what is allowed.
    """
    if dtype.kind in kinds and dtype.names is None and dtype.subdtype is None:
        return
    if dtype.names is not None:
        kind = f"compound records with the fields {', '.join(dtype.names)}"
    else:
        kind = {
            "b": "booleans (bool)",
            "c": "complex numbers",
            "O": "pickled objects, or lists of variable length",
            "S": "text (strings)",
            "U": "text (strings)",
            "V": "records of no known type",
        }.get(dtype.kind, f"{dtype}")
    raise ScanError(f"{what}: holds {kind}; expected an array of real numbers")


def column(values: np.ndarray, what: str, raster: tuple[int, ...] = ()) -> np.ndarray:
    """Return positions of one axis, (n,) float64, from (n,), (n, 1) or (1, n).

    Args:
        values: as stored.
        what: file and name of the array, for messages.
        raster: (rows, columns) of the scan where its patterns have these axes; positions may have them too.

    Raises:
        ScanError: of another shape, or no numbers.
    """
    values = np.asarray(values)
    check_type(values.dtype, what)
    if values.ndim == 0 or values.ndim > 2 or (values.ndim == 2 and 1 not in values.shape and values.shape != raster):
        raise ScanError(f"{what}: positions have shape {values.shape}; expected one number a pattern, (n,)")
    return values.reshape(-1).astype(np.float64)


def frame_numbers(values: np.ndarray, what: str) -> np.ndarray:
    """Return whole numbers (n,) as int64; others are refused."""
    check_type(values.dtype, what)
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.round(values)).all()):
        raise ScanError(f"{what}: are no whole numbers; expected the number of each frame")
    if values.size and float(np.abs(values.astype(np.float64)).max()) >= 2.0**53:
        raise ScanError(f"{what}: reach {values.max()}; expected the number of each frame")
    return values.astype(np.int64)


def one_number(value: Any, what: str) -> float:
    """Return a number from a scalar, an array of one, or an array of equal ones; anything else is refused."""
    values = np.asarray(value)
    check_type(values.dtype, what)
    flat = values.reshape(-1).astype(np.float64)
    if not flat.size:
        raise ScanError(f"{what}: is empty; expected a number")
    if not np.isfinite(flat).all():
        raise ScanError(f"{what}: is not a finite number")
    if np.ptp(flat) > 1e-6 * abs(flat[0]):
        raise ScanError(f"{what}: varies from {flat.min():.6g} to {flat.max():.6g}; expected one value for the scan")
    return float(flat[0])


def names_in(names: Any, most: int = 12) -> str:
    """Return names of a file for a message: a dozen at most, escaped."""
    ordered = sorted(names)
    if not ordered:
        return "nothing"
    return ", ".join(printable(str(name)) for name in ordered[:most]) + (" …" if len(ordered) > most else "")
