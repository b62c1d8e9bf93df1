"""PtychoPINN and Ptychodus NPZ."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.scan.layouts.raw import RawScan, modes, patterns_key
from ptycho_runtime.scan.options import ReadOptions


def open_npz(path: Path, options: ReadOptions) -> RawScan:
    try:
        with np.load(path, allow_pickle=False) as data:
            names = set(data.files)
            key = patterns_key(names, options, path.name)
            patterns = _on_disk(path, key)
            if patterns is None or (options.axis_order == "hwn" and isinstance(patterns, FramesOnDisk)):
                patterns = data[key]
            raw = RawScan(patterns, tuple(patterns.shape))
            x_key, y_key = options.x_key or "xcoords", options.y_key or "ycoords"
            if x_key in names and y_key in names:
                raw.x, raw.y = data[x_key], data[y_key]
            if key in ("diff3d", "diffraction") and "xcoords" in names:
                raw.position_unit, raw.position_sign = "px", 1
                raw.declared_amplitude = True
            if "indexes" in names and len(data["indexes"]) == raw.shape[0]:
                raw.indexes = data["indexes"]
            probe_key = options.probe_key or "probeGuess"
            if probe_key in names:
                raw.probe = modes(data[probe_key])
            if "objectGuess" in names:
                raw.truth = data["objectGuess"]
            return raw
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise ScanError(f"{path.name}: cannot be read as NPZ ({error})") from error


class FramesOnDisk:
    """Frames (n, h, w) that lie one after the other in a file, read when asked for.

    A memory map would do, but its pages count as the process's memory until the system takes them back.
    """

    def __init__(self, path: Path, offset_bytes: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Take the place of the first frame."""
        self.path, self.offset_bytes, self.shape, self.dtype = path, offset_bytes, shape, dtype
        self.frame_values = int(np.prod(shape[1:]))

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        """Return some frames: a slice without step, or ascending numbers."""
        frames = np.arange(self.shape[0])[key]
        found: np.ndarray = np.empty((len(frames), *self.shape[1:]), self.dtype)
        starts = np.flatnonzero(np.diff(frames, prepend=-2) != 1)
        with self.path.open("rb") as file:
            for first, stop in zip(starts, [*starts[1:], len(frames)], strict=True):
                file.seek(self.offset_bytes + int(frames[first]) * self.frame_values * self.dtype.itemsize)
                part = np.fromfile(file, self.dtype, (stop - first) * self.frame_values)
                if part.size != (stop - first) * self.frame_values:
                    raise ScanError(f"{self.path.name}: is cut short; frame {frames[first]} is not in it whole")
                found[first:stop] = part.reshape(stop - first, *self.shape[1:])
        return found


def _on_disk(path: Path, key: str) -> FramesOnDisk | np.ndarray | None:
    """Return an array of an uncompressed NPZ without reading it, or None where it is compressed."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{key}.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(member)
            header_bytes = member.tell()
    if dtype.hasobject:
        raise ScanError(f"{path.name}: {key} holds pickled objects; expected numbers")
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        name_bytes, extra_bytes = np.frombuffer(file.read(4), "<u2")
    offset = info.header_offset + 30 + int(name_bytes) + int(extra_bytes) + header_bytes
    if fortran or (len(shape) == 3 and shape[1] != shape[2]):
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C")
    return FramesOnDisk(path, offset, shape, dtype)
