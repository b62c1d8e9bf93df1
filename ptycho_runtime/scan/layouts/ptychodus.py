"""The file of positions that goes with one of patterns: a product of Ptychodus or ours, CXI, PtychoPINN's NPZ, or named arrays."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_runtime.errors import PtychoExportError, ScanError
from ptycho_runtime.files import check_is_file
from ptycho_runtime.scan.layouts.cxi import CXI_TRANSLATION, take_beamline, take_cxi
from ptycho_runtime.scan.layouts.hdf5 import Hdf5Arrays, said_unit, take_named_positions
from ptycho_runtime.scan.layouts.hdf5_file import Hdf5File
from ptycho_runtime.scan.layouts.npz import UNREADABLE, Arrays, NpzArrays, take_npz_positions, take_positions
from ptycho_runtime.scan.layouts.numbers import check_type, frame_numbers, one_number
from ptycho_runtime.scan.layouts.raw import RawScan, StoredProbe
from ptycho_runtime.scan.options import LengthUnit, ReadOptions

_ATTRIBUTES = (
    "detector_object_distance_m",
    "probe_energy_eV",
    "photon_energy_eV",
    "exposure_time_s",
    "probe_photon_count",
    "mass_attenuation_m2_kg",
    "tomography_angle_deg",
)
CXI_PROBE = "entry_1/image_1/data"  # of products: scans have none
_X, _Y, _NUMBERS = "probe_position_x_m", "probe_position_y_m", "probe_position_indexes"
_CXI_EXTRAS = "entry_1/ptychodus/"  # what CXI has no place for, where Ptychodus keeps it
_CXI_PIXELS = "entry_1/image_2/positions_px"  # of our own products


@dataclass(frozen=True)
class _Layout:
    """One way in which files keep positions."""

    keys: tuple[str, str]
    unit: LengthUnit
    numbers: str = ""  # name of the frame numbers
    probe: str = ""  # name of the probe, in products, which have attributes of the beamline too
    ours: bool = False  # in pixels of the image


_LAYOUTS = (
    _Layout(("probe_position_x_px", "probe_position_y_px"), "px", _NUMBERS, "probe", ours=True),
    _Layout((_X, _Y), "m", _NUMBERS, "probe"),
    _Layout((_CXI_PIXELS, _CXI_PIXELS), "px", _CXI_EXTRAS + _NUMBERS, CXI_PROBE, ours=True),
    _Layout((CXI_TRANSLATION, CXI_TRANSLATION), "m", _CXI_EXTRAS + _NUMBERS, CXI_PROBE),
    _Layout(("xcoords", "ycoords"), "px"),
    _Layout(("positions_px", "positions_px"), "px", "frames", ours=True),
)


def take_positions_file(path: Path, raw: RawScan, options: ReadOptions) -> None:
    """Take positions, frame numbers, probe and geometry from the file that has them.

    Raises:
        OSError: no file is there.
        ScanError: it has no positions under a known name, and none were named.
    """
    import h5py

    check_is_file(path, "file of positions")
    named = options.x_key is not None or options.y_key is not None
    raw.axes = raw.numbers = raw.object_pixel_m = None
    part = RawScan(path.name, None, raw.shape, np.dtype(np.float64))
    try:
        if h5py.is_hdf5(path):
            with Hdf5File(path, options) as file:
                if named:
                    take_named_positions(file, part, options)
                elif file.dataset(CXI_TRANSLATION) is not None and file.dataset(CXI_PROBE) is None:
                    take_cxi(file, part)
                else:
                    _take(path.name, raw, Hdf5Arrays(file), *_of_hdf5(file))
        else:
            with zipfile.ZipFile(path) as archive:
                arrays = NpzArrays(archive, path.name)
                if named:
                    take_npz_positions(part, arrays, options)
                else:
                    scalars = {n: arrays.array(n) for n in arrays.names() if arrays.header(n).shape == ()}
                    _take(path.name, raw, arrays, scalars, _sizes(scalars))
    except zipfile.BadZipFile as error:
        raise ScanError(
            f"{path.name}: is neither NPZ nor HDF5; expected a file of positions: a Ptychodus product, one of ours, CXI or NPZ"
        ) from error
    except UNREADABLE as error:
        if isinstance(error, (PtychoExportError, FileNotFoundError)):
            raise
        raise ScanError(f"{path.name}: cannot be read as a file of positions ({error})") from error
    if part.x is not None:
        raw.x, raw.y, raw.positions_from = part.x, part.y, f"{path.name}: {part.positions_from}"
        raw.position_unit, raw.position_sign, raw.positions_fitted = part.position_unit, part.position_sign, False
        raw.axes = part.axes
        raw.beamline.take_missing(part.beamline)
        raw.attributes = part.attributes | raw.attributes
        raw.probe = raw.probe or part.probe


def _of_hdf5(file: Hdf5File) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return (numbers by name, sizes of pixels of object and probe) of a product, as attributes or as CXI."""
    if file.dataset(CXI_PROBE) is None:
        sizes = {name: dict(file.root[name].attrs) for name in ("object", "probe") if file.dataset(name) is not None}
        return dict(file.root.attrs), sizes
    scalars: dict[str, Any] = {}
    for part in ("object", "probe"):
        for side in ("width", "height"):
            name = f"{part}_pixel_{side}_m"
            if file.dataset(_CXI_EXTRAS + name) is not None:
                scalars[name] = file.array(_CXI_EXTRAS + name)
    line = RawScan(file.label, None, (), np.dtype(np.float64))
    take_beamline(file, line)
    return scalars | {name: value for name, value in line.attributes.items() if value > 0}, _sizes(scalars)


def _sizes(scalars: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the sizes of pixels of object and probe from single numbers, by the names that HDF5 products give them."""
    return {
        part: {
            f"pixel_{side}_m": scalars[f"{part}_pixel_{side}_m"]
            for side in ("width", "height")
            if f"{part}_pixel_{side}_m" in scalars
        }
        for part in ("object", "probe")
    }


def _take(label: str, raw: RawScan, arrays: Arrays, scalars: dict[str, Any], sizes: dict[str, dict[str, Any]]) -> None:
    names = arrays.names()
    pixel = _pixel(sizes.get("object", {}), label) or _pixel(sizes.get("probe", {}), label)
    layout = next((layout for layout in _LAYOUTS if all(key in names for key in layout.keys)), None)
    if layout is None:
        raise ScanError(
            f"{label}: has no positions under a known name ({_X}, {CXI_TRANSLATION}, xcoords); name them with --x-key and --y-key"
        )
    product = RawScan(label, None, raw.shape, np.dtype(np.float64))
    take_positions(product, arrays, layout.keys)
    raw.x, raw.y, raw.positions_from = product.x, product.y, f"{label}: {product.positions_from}"
    said = said_unit(arrays.file, layout.keys) if isinstance(arrays, Hdf5Arrays) else None
    raw.position_unit, raw.position_sign, raw.positions_fitted = said or layout.unit, 1, layout.ours
    if layout.numbers and layout.numbers in names:
        raw.numbers = _numbers(arrays.array(layout.numbers), label)
    if layout.ours:
        raw.image_pixel_m = pixel or _one_pixel(scalars, label)
    elif layout.unit == "m":
        raw.object_pixel_m = pixel
    if not layout.probe:
        return
    for name in _ATTRIBUTES:
        if name in scalars:
            raw.attributes[name] = one_number(scalars[name], f"{label}: {name}")
    energy = raw.attributes.get("photon_energy_eV") or raw.attributes.get("probe_energy_eV")
    if energy:
        # One name until Ptychodus 1.6, the other since.
        raw.attributes["photon_energy_eV"] = raw.attributes["probe_energy_eV"] = energy
    if layout.probe in names:
        probe = StoredProbe.read(arrays.array, layout.probe)
        if probe.values.shape[-2:] != (1, 1):  # as products say that there was none
            own = _pixel(sizes.get("probe", {}), label)
            probe.pixel_m = own[0] if own and not layout.ours else None
            raw.probe = probe


def _one_pixel(scalars: dict[str, Any], label: str) -> tuple[float, float] | None:
    """Return the pixel of our own NPZ, None where its size is not known."""
    width = one_number(scalars["pixel_size_m"], f"{label}: pixel_size_m") if "pixel_size_m" in scalars else 0.0
    height = one_number(scalars.get("pixel_height_m", width), f"{label}: pixel_height_m")
    return (width, height) if width > 0 and height > 0 else None


def _pixel(attributes: dict[str, Any], label: str) -> tuple[float, float] | None:
    """Return (width, height) of a pixel, None where the file does not say them."""
    if "pixel_width_m" not in attributes:
        return None
    check_type(np.asarray(attributes["pixel_width_m"]).dtype, f"{label}: pixel_width_m")
    if np.isnan(attributes["pixel_width_m"]).any():
        return None  # as our products say that it is not known
    width = one_number(attributes["pixel_width_m"], f"{label}: pixel_width_m")
    height = one_number(attributes.get("pixel_height_m", width), f"{label}: pixel_height_m")
    return (width, height) if width > 0 and height > 0 else None


def _numbers(values: np.ndarray, label: str) -> np.ndarray | None:
    """Return the frame number of each position, None where one position says nothing."""
    numbers = frame_numbers(values.reshape(-1), f"{label}: {_NUMBERS}")
    if len(numbers) == len(np.unique(numbers)):
        return numbers
    if len(numbers) > 1:
        raise ScanError(
            f"{label}: probe_position_indexes repeats numbers, so which pattern belongs to which position is not known"
        )
    return None
