"""The file layouts: where each keeps patterns, positions and probe, and what it makes certain about them."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.scan.read import PATTERN_KEYS, ReadOptions

_HC_J_M = 6.62607015e-34 * 299792458.0
_EV_J = 1.602176634e-19


class RawScan:
    """One open file: arrays as stored."""

    def __init__(self, data: Any, shape: tuple[int, ...]) -> None:
        """Take the patterns, an array or an HDF5 dataset."""
        self.data, self.shape = data, tuple(int(s) for s in shape)
        self.transposed = False
        self.x = np.zeros(0)
        self.y = np.zeros(0)
        self.indexes: np.ndarray | None = None  # number of each pattern, where the file says it
        self.frame_of_position: np.ndarray | None = None  # −1: of no pattern here
        self.position_unit: Literal["px", "m", "um"] | None = None
        self.position_sign: Literal[1, -1] | None = None
        self.declared_amplitude = False  # by the layout; the values must agree
        self.probe: np.ndarray | None = None
        self.truth: np.ndarray | None = None
        self.attributes: dict[str, float] = {}
        self.object_pixel_m = 0.0
        self.detector: dict[str, float] = {}

    def read(self, frames: np.ndarray) -> np.ndarray:
        """Return frames (ascending), (n, h, w), as stored."""
        if len(frames) and frames[-1] - frames[0] == len(frames) - 1:
            key: Any = slice(int(frames[0]), int(frames[-1]) + 1)  # one read of neighbours is much faster
        else:
            key = frames
        return np.moveaxis(self.data[..., key], -1, 0) if self.transposed else np.asarray(self.data[key])

    def pixel_size_m(self, N: int) -> float:
        """Return the object's pixel size, λ·z / (N · detector pixel), or 0 where the geometry is not known."""
        if self.object_pixel_m:
            return self.object_pixel_m
        need = ("distance_m", "energy_J", "pixel_m")
        if not all(self.detector.get(name) for name in need):
            return 0.0
        wavelength = _HC_J_M / self.detector["energy_J"]
        return wavelength * self.detector["distance_m"] / (N * self.detector["pixel_m"])


def open_raw(path: Path, options: ReadOptions) -> RawScan:
    """Open a scan by its content.

    Raises `ScanError` for a file of no known kind or without the arrays that are needed.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PK"):
        raw = _npz(path, options)
    elif head == b"\x89HDF\r\n\x1a\n":
        raw = _hdf5(path, options)
    else:
        raise ScanError(
            f"{path.name}: is neither NPZ nor HDF5 (CXI); expected a PtychoPINN, CXI, Ptychodus or other HDF5 scan"
        )
    if options.positions_file is not None:
        _product(options.positions_file, raw)
    if raw.frame_of_position is None and not len(raw.x):
        raise ScanError(
            f"{path.name}: holds no positions; name them with --x-key and --y-key, or give the file that has them with --positions"
        )
    return raw


def _npz(path: Path, options: ReadOptions) -> RawScan:
    try:
        with np.load(path, allow_pickle=False) as data:
            names = set(data.files)
            key = _patterns_key(names, options, path.name)
            patterns = _on_disk(path, key)
            if patterns is None or (options.axis_order == "hwn" and isinstance(patterns, FramesOnDisk)):
                patterns = data[key]
            raw = RawScan(patterns, patterns.shape)
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
                raw.probe = _modes(data[probe_key])
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


def _hdf5(path: Path, options: ReadOptions) -> RawScan:
    import h5py

    try:
        file = h5py.File(path, "r")
        names = _datasets(file)
        key = _patterns_key(names, options, path.name)
        dataset = file[key]
        raw = RawScan(dataset, dataset.shape)
        raw.declared_amplitude = key in ("diff3d", "diffraction")
        if key == "entry_1/data_1/data":
            _cxi(file, raw)
        elif key == "dp" and "points" in names and options.x_key is None:
            raw.x, raw.y = file["points"][0], file["points"][1]
            raw.position_unit = "um"
        elif "xcoords" in names and "ycoords" in names and options.x_key is None:
            raw.x, raw.y, raw.position_unit, raw.position_sign = file["xcoords"][()], file["ycoords"][()], "px", 1
        if options.x_key and options.y_key:
            for axis, name in (("x", options.x_key), ("y", options.y_key)):
                if name.strip("/") not in names:
                    raise ScanError(f"{path.name}: has no dataset {name}; it has {', '.join(sorted(names)[:12])}")
                setattr(raw, axis, np.ravel(file[name][()]))
        if "indexes" in names and file["indexes"].shape == (raw.shape[0],):
            raw.indexes = file["indexes"][()]
        for probe_key in (options.probe_key, "probeGuess"):
            if probe_key and probe_key.strip("/") in names:
                raw.probe = _modes(file[probe_key][()])
                break
        return raw
    except (OSError, KeyError, RuntimeError) as error:
        raise ScanError(f"{path.name}: cannot be read as HDF5 ({error})") from error


def _cxi(file: Any, raw: RawScan) -> None:
    translation = next(
        (
            file[name][()]
            for name in ("entry_1/data_1/translation", "entry_1/sample_1/geometry_1/translation")
            if name in file
        ),
        None,
    )
    if translation is not None:
        raw.x, raw.y, raw.position_unit = translation[:, 0], translation[:, 1], "m"
    with contextlib.suppress(KeyError):
        detector = file["entry_1/instrument_1/detector_1"]
        raw.detector["distance_m"] = abs(float(detector["distance"][()]))
        raw.detector["pixel_m"] = float(detector["x_pixel_size"][()])
        raw.detector["energy_J"] = float(file["entry_1/instrument_1/source_1/energy"][()])
    with contextlib.suppress(KeyError):
        raw.probe = _modes(file["entry_1/instrument_1/source_1/illumination"][()])


def _product(path: Path, raw: RawScan) -> None:
    """Take positions, probe and geometry from a Ptychodus product, or positions from another NPZ."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of positions")
    import h5py

    found: Mapping[str, Any]
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            found = {name: file[name][()] for name in _datasets(file)}
            sizes = {name: dict(file[name].attrs) for name in ("object", "probe") if name in file}
            raw.attributes |= {k: float(v) for k, v in file.attrs.items() if isinstance(v, (int, float, np.number))}
        pixel = sizes.get("object", {}).get("pixel_width_m") or sizes.get("probe", {}).get("pixel_width_m") or 0.0
    else:
        try:
            with np.load(path, allow_pickle=False) as data:
                found = {name: data[name] for name in data.files}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise ScanError(f"{path.name}: cannot be read as a product ({error})") from error
        pixel = float(found.get("object_pixel_width_m", found.get("probe_pixel_width_m", 0.0)))
    if "xcoords" in found and "ycoords" in found:
        raw.x, raw.y, raw.position_unit, raw.position_sign = found["xcoords"], found["ycoords"], "px", 1
        return
    if "probe_position_x_m" not in found or "probe_position_y_m" not in found:
        raise ScanError(f"{path.name}: holds neither probe_position_x_m and _y_m nor xcoords and ycoords")
    raw.x, raw.y = np.asarray(found["probe_position_x_m"]), np.asarray(found["probe_position_y_m"])
    raw.position_unit, raw.position_sign, raw.object_pixel_m = "m", 1, float(pixel)
    if "probe_position_indexes" in found:
        # Frame indexes, possibly of a file whose patterns start at another number.
        indexes = np.asarray(found["probe_position_indexes"], np.int64)
        if len(indexes) == len(np.unique(indexes)):
            known = np.arange(raw.shape[0]) if raw.indexes is None else np.asarray(raw.indexes, np.int64)
            frame_of = {int(number): frame for frame, number in enumerate(known)}
            raw.frame_of_position = np.array([frame_of.get(int(number), -1) for number in indexes], np.int64)
        elif len(indexes) > 1:
            raise ScanError(
                f"{path.name}: probe_position_indexes repeats numbers, so which pattern belongs to which position is not known"
            )
    if "probe" in found:
        raw.probe = _modes(found["probe"])


def _datasets(file: Any) -> set[str]:
    import h5py

    names: set[str] = set()
    file.visititems(lambda name, item: names.add(name) if isinstance(item, h5py.Dataset) else None)
    # Soft links are not visited, and CXI files are full of them.
    names |= {key for key in PATTERN_KEYS if key in file}
    return names


def _patterns_key(names: set[str], options: ReadOptions, label: str) -> str:
    if options.patterns_key is not None:
        key = options.patterns_key.strip("/")
        if key not in names:
            raise ScanError(f"{label}: has no {options.patterns_key}; it has {', '.join(sorted(names)[:12])}")
        return key
    found = [key for key in PATTERN_KEYS if key in names]
    if len(found) != 1:
        what = (
            f"holds several sets of patterns ({', '.join(found)})"
            if found
            else f"holds no patterns under a known name ({', '.join(sorted(names)[:12])})"
        )
        raise ScanError(f"{label}: {what}; name them with --patterns-key")
    return found[0]


def _modes(probe: np.ndarray) -> np.ndarray | None:
    """Return a probe of any rank as incoherent modes (modes, N, N), the first coherent one of each."""
    probe = np.asarray(probe)
    if probe.ndim < 2 or not np.isfinite(probe).all():
        return None
    while probe.ndim > 3:
        probe = probe[0]
    return (probe[None] if probe.ndim == 2 else probe).astype(np.complex64)
