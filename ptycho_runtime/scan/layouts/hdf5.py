"""HDF5 of any kind: which layout it is, and the layouts that are no standard."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_runtime.errors import PtychoExportError, ScanError, ScanIncompleteError
from ptycho_runtime.files import printable
from ptycho_runtime.scan.layouts.cxi import place_of, take_cxi
from ptycho_runtime.scan.layouts.frames import JoinedFrames
from ptycho_runtime.scan.layouts.hdf5_file import MATLAB_AXES, Hdf5File
from ptycho_runtime.scan.layouts.nexus import take_nexus
from ptycho_runtime.scan.layouts.npz import UNREADABLE, indexes_of, take_positions
from ptycho_runtime.scan.layouts.numbers import MOST_FRAMES, check_type, column
from ptycho_runtime.scan.layouts.raw import RawScan, StoredProbe, patterns_key
from ptycho_runtime.scan.layouts.units import position_unit
from ptycho_runtime.scan.options import PATTERN_KEYS, LengthUnit, ReadOptions

EIGER_GROUP = "entry/data"
_EIGER_PART = re.compile(r"data_(\d{6})")
Pixels = Any  # an HDF5 dataset, or several joined


def open_hdf5(path: Path, options: ReadOptions) -> RawScan:
    """Return a scan in HDF5 whose patterns stay on disk."""
    file = Hdf5File(path, options)
    try:
        return _understood(file, options)
    except PtychoExportError:
        file.close()
        raise
    except UNREADABLE as error:
        file.close()
        raise ScanError(f"{path.name}: cannot be read as HDF5 ({error})") from error


def _understood(file: Hdf5File, options: ReadOptions) -> RawScan:
    names = file.names() | {key for key in PATTERN_KEYS if file.dataset(key) is not None}
    names |= {name for name in _beside_first(file) if file.dataset(name) is not None}
    parts = [] if options.patterns_key or any(key in names for key in PATTERN_KEYS) else _eiger_parts(file, options)
    if parts:
        key, data, unwritten = EIGER_GROUP, *_joined(file, parts)
    else:
        if options.patterns_key and file.dataset(options.patterns_key) is not None:
            names.add(options.patterns_key.strip("/"))
        key = patterns_key(names, options, file.label)
        data, unwritten = _dataset(file, key)
    raw = RawScan(file.label, data, tuple(data.shape), data.dtype, key, file.close)
    raw.unwritten = unwritten
    if parts and options.incomplete:
        raw.warnings.append(f"{len(data.parts)} parts with {data.shape[0]} frames are there")
    raw.declared_amplitude = key in ("diff3d", "diffraction")
    _take_layout(file, raw, options)
    if file.dataset("indexes") is not None:
        raw.indexes = indexes_of(raw, file.array("indexes"))
    if options.probe_key:
        raw.probe = StoredProbe(file.array(options.probe_key))
    elif raw.probe is None and file.dataset("probeGuess") is not None:
        raw.probe = StoredProbe.read(file.array, "probeGuess")
    return raw


def _beside_first(file: Hdf5File) -> list[str]:
    """Return the names that further sets of patterns of a CXI file would have."""
    entries = [name for name in file.root if name.startswith("entry_")]
    groups = {entry: group for entry in entries if (group := file.item(entry)) is not None and hasattr(group, "keys")}
    return [f"{entry}/{name}/data" for entry, group in groups.items() for name in group if name.startswith("data_")]


def _take_layout(file: Hdf5File, raw: RawScan, options: ReadOptions) -> None:
    """Take what the layout that the patterns' name gives away keeps beside them, and positions by given names."""
    # Names speak of the file that has the positions.
    named = options.positions_file is None and (options.x_key is not None or options.y_key is not None)
    place = place_of(raw.key)
    if place is not None:
        take_cxi(file, raw, place)
    elif raw.key.startswith("entry/"):
        take_nexus(file, raw)
    elif raw.key == "dp" and file.dataset("points") is not None and not named:
        take_positions(raw, Hdf5Arrays(file), ("points", "points"))
        raw.position_unit = said_unit(file, ("points",)) or "um"
    elif raw.key == "patterns" and file.dataset("bad_pixels") is not None:
        raw.bad_pixels = file.array("bad_pixels") != 0
    if not named and raw.x is None and file.dataset("xcoords") is not None and file.dataset("ycoords") is not None:
        raw.x, raw.y = (
            column(file.array(name), f"{file.label}: {name}", raw.raster) for name in ("xcoords", "ycoords")
        )
        raw.position_unit = said_unit(file, ("xcoords", "ycoords")) or "px"
        raw.positions_from, raw.position_sign = "xcoords and ycoords", 1
    if not named:
        return
    take_named_positions(file, raw, options)


def take_named_positions(file: Hdf5File, raw: RawScan, options: ReadOptions) -> None:
    """Take the positions that `x_key` and `y_key` name, and the unit that they say."""
    if options.x_key is None or options.y_key is None:
        raise ScanError(f"{file.label}: positions need two names; give both --x-key and --y-key")
    raw.position_unit, raw.position_sign, raw.axes = None, None, None
    take_positions(raw, Hdf5Arrays(file), (options.x_key.strip("/"), options.y_key.strip("/")))
    raw.position_unit = said_unit(file, (options.x_key, options.y_key))


def said_unit(file: Hdf5File, names: Sequence[str]) -> LengthUnit | None:
    """Return the unit that positions of these names are in, None where neither user nor file says it."""
    datasets = [dataset for name in names if (dataset := file.dataset(name)) is not None]
    return position_unit(datasets, file.options.position_unit, file.label)


class Hdf5Arrays:
    """Arrays of an HDF5 file by name."""

    def __init__(self, file: Hdf5File) -> None:
        """Take an open file."""
        self.file = file

    def names(self) -> set[str]:
        """Return the names of all datasets."""
        return _Any(self.file)

    def array(self, name: str) -> np.ndarray:
        """Return a dataset's values."""
        return self.file.array(name)


class _Any(set[str]):
    """The names in a file, which holds those behind links too."""

    def __init__(self, file: Hdf5File) -> None:
        super().__init__(file.names())
        self.file = file

    def __contains__(self, name: object) -> bool:
        return self.file.dataset(str(name)) is not None


def _dataset(file: Hdf5File, key: str) -> tuple[Pixels, np.ndarray]:
    """Return (patterns, rows that nobody wrote)."""
    dataset = file.dataset(key)
    if dataset is None:
        raise ScanError(f"{file.label}: {printable(key)} is no array of patterns, or a link that leads to none")
    check_type(dataset.dtype, f"{file.label}: {key}")
    if dataset.shape is None or len(dataset.shape) < 1:
        raise ScanError(f"{file.label}: {printable(key)} is one number; expected patterns, (n, N, N)")
    if "MATLAB_class" in dataset.attrs:
        raise ScanError(f"{file.label}: {printable(key)} was written by MATLAB: {MATLAB_AXES}")
    file.usable_filters(dataset, key)
    return dataset, file.missing_rows(dataset, key)


def _eiger_parts(file: Hdf5File, options: ReadOptions) -> list[str]:
    """Return the names of an Eiger master's parts in their order; a part that is missing is an error unless asked for."""
    group = file.item(EIGER_GROUP)
    if group is None or hasattr(group, "shape"):
        return []
    found = {int(match[1]): name for name in group if (match := _EIGER_PART.fullmatch(name))}
    if not found:
        return []
    first = min(found) if min(found) < 1 else 1
    lacking = sorted(set(range(first, max(found) + 1)) - set(found))
    if lacking and not options.incomplete:
        raise ScanError(f"{file.label}: is incomplete: data_{lacking[0]:06d} is not among its parts")
    if lacking and lacking[0] == first:
        raise ScanError(
            f"{file.label}: data_{first:06d}, its first part, is not there; how many frames it had is not known"
        )
    # How many frames a missing part had is not known, so those after it have no number.
    return [f"{EIGER_GROUP}/{found[k]}" for k in sorted(found) if not lacking or k < lacking[0]]


def _joined(file: Hdf5File, keys: list[str]) -> tuple[Pixels, np.ndarray]:
    parts: list[Any] = []
    unwritten, start = [np.zeros(0, np.int64)], 0
    for key in keys:
        try:
            part, missing = _dataset(file, key)
        except ScanIncompleteError:
            if not (file.options.incomplete and parts):
                raise
            break  # those after it have no number
        if parts and (part.shape[1:] != parts[0].shape[1:] or part.dtype != parts[0].dtype):
            raise ScanError(
                f"{file.label}: {key} holds frames of {part.shape[1:]} {part.dtype}, {keys[0]} of {parts[0].shape[1:]} "
                f"{parts[0].dtype}; name one of them with --patterns-key"
            )
        parts.append(part)
        unwritten.append(missing + start)
        start += part.shape[0]
        if start > MOST_FRAMES:
            raise ScanError(f"{file.label}: its parts claim more than {MOST_FRAMES} frames together, which no scan has")
    return JoinedFrames(parts), np.concatenate(unwritten)
