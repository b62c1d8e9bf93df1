"""PtychoPINN and Ptychodus NPZ."""

from __future__ import annotations

import shutil
import tempfile
import tokenize
import zipfile
import zlib
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from ptycho_runtime.errors import PtychoExportError, ScanError
from ptycho_runtime.scan.layouts.frames import FramesOnDisk
from ptycho_runtime.scan.layouts.numbers import MOST_VALUES, check_type, column, frame_numbers, names_in
from ptycho_runtime.scan.layouts.raw import RawScan, StoredProbe, patterns_key
from ptycho_runtime.scan.options import ReadOptions

# What damaged files make of zipfile, numpy (whose headers are Python literals) and h5py.
UNREADABLE = (
    ValueError,
    OSError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    KeyError,
    RuntimeError,
    TypeError,
    OverflowError,
    SyntaxError,
    tokenize.TokenError,
)
_IN_MEMORY_BYTES = 64 << 20  # of compressed patterns; more go through a file without a name
_MOST_RATIO = 500.0  # of compressed patterns; beyond it a file is no scan
_COPY_BYTES = 1 << 20


class _Header:
    """What an `.npy` member says of its array."""

    def __init__(self, archive: zipfile.ZipFile, name: str, label: str) -> None:
        self.info = archive.getinfo(f"{name}.npy")
        with archive.open(self.info) as member:
            version = np.lib.format.read_magic(member)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            self.shape, self.fortran, self.dtype = reader(member)
            self.bytes = member.tell()
        if any(int(side) < 0 for side in self.shape):
            raise ScanError(f"{label}: {name} has shape {self.shape}; the file is damaged")
        values = int(np.prod([int(s) for s in self.shape], dtype=object))
        if not self.dtype.hasobject and self.bytes + values * self.dtype.itemsize != self.info.file_size:
            raise ScanError(
                f"{label}: {name} claims {values} numbers of {self.dtype} in {self.info.file_size} bytes; the file is damaged"
            )


class Arrays(Protocol):
    """Arrays by name."""

    def names(self) -> set[str]:
        """Return the names."""

    def array(self, name: str) -> np.ndarray:
        """Return an array."""


class NpzArrays:
    """The arrays of an NPZ that are read whole: sizes are checked before memory is taken."""

    def __init__(self, archive: zipfile.ZipFile, label: str) -> None:
        """Take an open archive; `ScanError` where it has a name twice, of which programs read one or the other."""
        self.archive, self.label = archive, label
        twice = [name for name, count in Counter(archive.namelist()).items() if count > 1]
        if twice:
            raise ScanError(
                f"{label}: holds {names_in(twice)} more than once, and which one counts is not said; write the NPZ again"
            )

    def names(self) -> set[str]:
        """Return the names."""
        return {name.removesuffix(".npy") for name in self.archive.namelist() if name.endswith(".npy")}

    def header(self, name: str) -> _Header:
        """Return what the array is."""
        return _Header(self.archive, name, self.label)

    def array(self, name: str) -> np.ndarray:
        """Return an array; `ScanError` where it is too large or holds objects."""
        header = self.header(name)
        if header.dtype.hasobject:
            check_type(header.dtype, f"{self.label}: {name}")
        if np.prod([int(s) for s in header.shape], dtype=object) > MOST_VALUES:
            raise ScanError(f"{self.label}: {name} has shape {header.shape}, which is more than a scan's can be")
        with self.archive.open(header.info) as member:
            return np.lib.format.read_array(member, allow_pickle=False)


def open_npz(path: Path, options: ReadOptions) -> RawScan:
    """Return an NPZ whose patterns stay on disk."""
    label = path.name
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = NpzArrays(archive, label)
            names = arrays.names()
            key = patterns_key(names, options, label)
            header = arrays.header(key)
            check_type(header.dtype, f"{label}: {key}")
            data = _patterns(path, archive, header, options)
            raw = RawScan(label, data, tuple(header.shape), header.dtype, key)
            if isinstance(data, FramesOnDisk):
                raw.close = data.close
            _take_others(raw, arrays, names, options)
            return raw
    except UNREADABLE as error:
        if isinstance(error, PtychoExportError):
            raise
        raise ScanError(f"{label}: cannot be read as NPZ ({error})") from error


def _take_others(raw: RawScan, arrays: NpzArrays, names: set[str], options: ReadOptions) -> None:
    if options.positions_file is None:  # names speak of the file that has the positions
        take_npz_positions(raw, arrays, options)
    if raw.key in ("diff3d", "diffraction") and "xcoords" in names:
        raw.declared_amplitude = True
        if raw.positions_from == "xcoords and ycoords":
            raw.position_unit, raw.position_sign = "px", 1
    if "indexes" in names:
        raw.indexes = indexes_of(raw, arrays.array("indexes"))
    for name in ("bad_pixels", "mask"):
        if name in names:
            raw.bad_pixels = arrays.array(name) != 0
            break
    probe_key = options.probe_key or "probeGuess"
    if options.probe_key in names:
        raw.probe = StoredProbe(arrays.array(probe_key))
    elif probe_key in names:
        raw.probe = StoredProbe.read(arrays.array, probe_key)
    elif options.probe_key:
        raise ScanError(f"{raw.label}: has no probe {options.probe_key}")
    if "objectGuess" in names:
        raw.truth = arrays.array("objectGuess")


def take_npz_positions(raw: RawScan, arrays: Arrays, options: ReadOptions) -> None:
    """Take the positions that `x_key` and `y_key` name, else those under PtychoPINN's names."""
    keys = options.x_key or "xcoords", options.y_key or "ycoords"
    take_positions(raw, arrays, keys, required=(options.x_key or options.y_key) is not None)


def indexes_of(raw: RawScan, values: np.ndarray) -> np.ndarray | None:
    """Return the frame number of each pattern; None where the array `indexes` is about something else.

    Raises:
        ScanError: a Ptychodus file has another number of indexes than of patterns, or they are no whole numbers.
    """
    if values.shape != (int(np.prod(raw.raster or raw.shape[:1])),):
        if raw.key == "patterns" and len(raw.shape) == 3:
            raise ScanError(
                f"{raw.label}: indexes have shape {values.shape}; expected one a pattern, ({raw.shape[0]},)"
            )
        return None
    return frame_numbers(values, f"{raw.label}: indexes")


def take_positions(raw: RawScan, arrays: Arrays, keys: tuple[str, str], required: bool = True) -> None:
    """Take the positions of two names, which may be one array of both: (n, 2), or (2, n) with x first."""
    names = arrays.names()
    missing = [key for key in keys if key not in names]
    if missing:
        if required:
            raise ScanError(f"{raw.label}: has no positions {missing[0]}; it has {names_in(names)}")
        return
    raw.positions_from = " and ".join(dict.fromkeys(keys))
    what = f"{raw.label}: {{}}"
    if keys[0] != keys[1]:
        raw.x, raw.y = (column(arrays.array(key), what.format(key), raw.raster) for key in keys)
        return
    both = arrays.array(keys[0])
    check_type(both.dtype, what.format(keys[0]))
    if raw.raster and both.shape == (*raw.raster, 2):
        both = both.reshape(-1, 2)
    if both.ndim == 2 and both.shape[1] == 3 and np.ptp(both[:, 2]) == 0:
        both = both[:, :2]  # z, as CXI has it
    if both.ndim != 2 or 2 not in both.shape or both.shape == (2, 2):
        raise ScanError(
            f"{what.format(keys[0])} has shape {both.shape}; expected positions as (n, 2), or (2, n) with x first"
        )
    raw.x, raw.y = (both.T if both.shape[1] == 2 else both).astype(np.float64)


def _patterns(path: Path, archive: zipfile.ZipFile, header: _Header, options: ReadOptions) -> Any:
    """Return patterns: on disk where they lie there frame by frame, through a file without a name where they are compressed."""
    shape, order = tuple(header.shape), "F" if header.fortran else "C"
    frame_by_frame = not header.fortran and options.axis_order != "hwn" and len(shape) > 2 and shape[-2] == shape[-1]
    if header.info.compress_type == zipfile.ZIP_STORED:
        with path.open("rb") as local:
            local.seek(header.info.header_offset + 26)
            name_bytes, extra_bytes = np.frombuffer(local.read(4), "<u2")
        offset = header.info.header_offset + 30 + int(name_bytes) + int(extra_bytes) + header.bytes
        if frame_by_frame:
            return FramesOnDisk(path.open("rb"), offset, shape, header.dtype)
        return np.memmap(path, dtype=header.dtype, mode="r", offset=offset, shape=shape, order=order)  # type: ignore[call-overload]
    if header.info.file_size <= _IN_MEMORY_BYTES:
        with archive.open(header.info) as member:
            return np.lib.format.read_array(member, allow_pickle=False)
    file = _unpacked(archive, header, path.name)
    if frame_by_frame:
        return FramesOnDisk(file, header.bytes, shape, header.dtype)
    with closing(file):
        return np.memmap(file, dtype=header.dtype, mode="r", offset=header.bytes, shape=shape, order=order)  # type: ignore[call-overload]


def _unpacked(archive: zipfile.ZipFile, header: _Header, label: str) -> IO[bytes]:
    """Return the patterns of a compressed NPZ in a file without a name, which goes with the process."""
    size = header.info.file_size
    if size > _MOST_RATIO * header.info.compress_size:
        raise ScanError(
            f"{label}: {header.info.filename} grows {size / max(header.info.compress_size, 1):.0f} times when unpacked, "
            "as no scan does; store it without compression if it is one"
        )
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > 0.9 * free:
        raise ScanError(
            f"{label}: its compressed patterns take {size / 2**30:.1f} GiB in {tempfile.gettempdir()}, where "
            f"{free / 2**30:.1f} GiB are free; set TMPDIR to a folder with room, or store the NPZ without compression"
        )
    file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the scan)
    try:
        with archive.open(header.info) as member:
            shutil.copyfileobj(member, file, _COPY_BYTES)
        file.flush()
    except BaseException:
        file.close()
        raise
    return file
