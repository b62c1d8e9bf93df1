"""EPICS NTNDArray and NTTable as frames and positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ptycho_runtime.files import printable
from ptycho_runtime.live.sources.codecs import SCALAR_TYPES, decoded
from ptycho_runtime.live.values import FaultError, Frame, Positions

_MOST_MODES = 64
_MOST_NUMBERS = 1 << 28  # of one frame


def frame_of(value: Any) -> Frame | None:
    """Return an NTNDArray as a frame; None where it holds no image, as before the first one.

    Raises:
        FaultError: what it holds is no image of two axes, or a codec that is not known.
    """
    sizes = [int(axis.size) for axis in value.dimension]
    data = value.value
    if not sizes or data is None:
        return None
    # Axes of one entry, as a colour image with one colour has them, are none.
    sides = [size for size in sizes if size != 1] if len(sizes) > 2 else sizes
    if len(sides) != 2 or min(sides) < 1 or sides[0] * sides[1] > _MOST_NUMBERS:
        raise FaultError(f"a frame has axes {sizes}; expected (columns, rows) of one image")
    count, array = sides[0] * sides[1], np.asarray(data)
    codec = str(value.codec.name)
    if codec:
        array = decoded(array, codec, _stored_type(value, array), count)
    if array.size != count:
        raise FaultError(f"a frame has {array.size} numbers; expected {count}, for its axes are {sizes}")
    if array.dtype.kind not in "uif":
        raise FaultError(f"a frame holds {array.dtype}; expected counts or amplitudes")
    return Frame(int(value.uniqueId), _time_s(value), array.reshape(sides[1], sides[0]), attributes_of(value))


def _stored_type(value: Any, array: np.ndarray) -> np.dtype[Any]:
    """Return the type that an array has once it is decoded."""
    parameters = value.codec.parameters
    if isinstance(parameters, int) and parameters in SCALAR_TYPES:
        return np.dtype(SCALAR_TYPES[parameters])
    # pvaPy keeps the type in the array's own field, with bytes of another length.
    if array.dtype.itemsize > 1:
        return array.dtype
    count = int(np.prod([max(int(axis.size), 1) for axis in value.dimension]))
    width = int(value.uncompressedSize) / max(count, 1)
    types = {1: "uint8", 2: "uint16", 4: "uint32"}
    if width not in types:
        raise FaultError(
            f"a compressed frame does not say its type ({printable(parameters)}); expected it in codec.parameters, as ADCore has it"
        )
    return np.dtype(types[int(width)])


def _time_s(value: Any) -> float:
    for stamp in (value.dataTimeStamp, value.timeStamp):
        if stamp.secondsPastEpoch > 0:
            return float(stamp.secondsPastEpoch) + 1e-9 * float(stamp.nanoseconds)
    return float("nan")


def attributes_of(value: Any) -> dict[str, Any]:
    """Return what came with a frame by name: the numbers and texts of its NTAttributes."""
    found: dict[str, Any] = {}
    for entry in value.attribute:
        held = entry.value
        held = held.get("value", held) if hasattr(held, "get") and not isinstance(held, (str, bytes)) else held
        if isinstance(held, (int, float, str)):
            found[str(entry.name)] = held
    return found


def attribute_position(frame: Frame, names: tuple[str, str]) -> Positions:
    """Return the position that came with a frame; NaN where it has none."""
    x, y = (frame.attributes.get(name) for name in names)
    xy = [float(v) if isinstance(v, (int, float)) else np.nan for v in (x, y)]
    return Positions(np.array([xy]), np.array([frame.id]))


def probe_of(value: Any) -> np.ndarray:
    """Return an NTNDArray of axes (2, N, N, modes), float32, as a probe (modes, N, N) complex64.

    Raises:
        FaultError: it is none.
    """
    sizes = [int(axis.size) for axis in value.dimension]
    parts = np.asarray(value.value)
    plausible = len(sizes) == 4 and sizes[0] == 2 and sizes[1] == sizes[2] > 0 and 0 < sizes[3] <= _MOST_MODES
    if not plausible or parts.dtype != np.float32 or parts.size != np.prod(sizes) or not np.isfinite(parts).all():
        raise FaultError(
            f"the probe of the stream is {parts.dtype} of axes {sizes}; expected float32 of (2, N, N, modes), finite"
        )
    return np.ascontiguousarray(parts).view(np.complex64).reshape(sizes[:0:-1])


def positions_of(columns: Mapping[str, Any]) -> Positions | None:
    """Return a table's columns as positions; None where it is empty.

    Args:
        columns: `x` and `y` in pixels, and `id` or `time` (seconds since the epoch).

    Raises:
        FaultError: a column is missing, or of another length.
    """
    known = {name.lower(): np.atleast_1d(np.zeros(0) if v is None else np.asarray(v)) for name, v in columns.items()}
    lacking = [name for name in ("x", "y") if name not in known]
    if lacking or not {"id", "time"} & set(known):
        raise FaultError(
            f"the table of positions has columns {', '.join(map(printable, columns)) or 'of no name'}; expected x, y and id or time"
        )
    lengths = {len(known[name]) for name in ("x", "y", "id", "time") if name in known}
    if lengths == {0}:
        return None
    if len(lengths) != 1:
        raise FaultError(f"the columns of the table of positions have {sorted(lengths)} rows; expected as many in each")
    xy = np.stack([known["x"], known["y"]], axis=-1).astype(np.float64)
    ids = known["id"].astype(np.int64) if "id" in known else None
    times = known["time"].astype(np.float64) if "time" in known else None
    return Positions(xy, ids, times)
