"""CXI, as beamlines and cdtools write it."""

from __future__ import annotations

from typing import Final

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.scan.layouts.hdf5_file import Hdf5File
from ptycho_runtime.scan.layouts.numbers import check_type
from ptycho_runtime.scan.layouts.raw import RawScan, StoredProbe
from ptycho_runtime.scan.layouts.units import EV_J, HC_J_M, energy_J, length_m, length_unit

CXI_PATTERNS: Final = "entry_1/data_1/data"
CXI_TRANSLATION: Final = "entry_1/data_1/translation"
_TRANSLATIONS = (CXI_TRANSLATION, "entry_1/sample_1/geometry_1/translation")
_DETECTOR = "entry_1/instrument_1/detector_1/"
_HAS_SIGNAL: Final = 0x1000  # alone in a mask it speaks of a good pixel
_SOURCE = "entry_1/instrument_1/source_1/"


def take_cxi(file: Hdf5File, raw: RawScan) -> None:
    """Take positions, geometry, mask and probe of a CXI file."""
    _take_translation(file, raw)
    take_beamline(file, raw)
    if file.dataset(_DETECTOR + "mask") is not None:
        mask = file.array(_DETECTOR + "mask")
        raw.bad_pixels = (mask != 0) & (mask != _HAS_SIGNAL)
    if file.dataset(_SOURCE + "illumination") is not None:
        raw.probe = StoredProbe(file.array(_SOURCE + "illumination"))


def _take_translation(file: Hdf5File, raw: RawScan) -> None:
    for name in _TRANSLATIONS:
        dataset = file.dataset(name)
        if dataset is None:
            continue
        values = file.array(name)
        check_type(values.dtype, f"{raw.label}: {name}")
        if values.ndim != 2 or values.shape[1] not in (2, 3):
            raise ScanError(f"{raw.label}: {name} has shape {values.shape}; expected positions as (n, 3)")
        raw.x, raw.y = values[:, 0].astype(np.float64), values[:, 1].astype(np.float64)
        raw.positions_from, raw.position_unit = name, length_unit(dataset) or "m"
        raw.axes = _axes(file, raw)
        return


def _axes(file: Hdf5File, raw: RawScan) -> np.ndarray | None:
    """Return the directions (x, y) in which columns and rows of the detector grow, from `basis_vectors` (3, 2): rows, columns."""
    if file.dataset(_DETECTOR + "basis_vectors") is None:
        return None
    what = f"{raw.label}: basis_vectors"
    vectors = file.array(_DETECTOR + "basis_vectors")
    check_type(vectors.dtype, what)
    if vectors.shape != (3, 2) or not np.isfinite(vectors).all():
        raise ScanError(f"{what} have shape {vectors.shape}; expected (3, 2) finite numbers")
    rows, columns = vectors.astype(np.float64).T
    raw.beamline.pixel_y_m, raw.beamline.pixel_x_m = float(np.linalg.norm(rows)), float(np.linalg.norm(columns))
    axes: np.ndarray = np.stack([columns[:2], rows[:2]])
    lengths = np.linalg.norm(axes, axis=1)
    whole = np.linalg.norm(vectors, axis=0)[::-1]
    if (lengths <= 0.98 * whole).any() or abs(axes[0] @ axes[1]) > 1e-3 * lengths.prod():
        raise ScanError(
            f"{what} are not two perpendicular directions across the beam; expected a detector that faces it"
        )
    directions: np.ndarray = axes / lengths[:, None]
    return directions


def take_beamline(file: Hdf5File, raw: RawScan) -> None:
    """Take distance, pixels of the detector and photon energy, each where it is there."""
    line = raw.beamline
    for attribute, name in (
        ("distance_m", "distance"),
        ("pixel_x_m", "x_pixel_size"),
        ("pixel_y_m", "y_pixel_size"),
    ):
        dataset = file.dataset(_DETECTOR + name)
        if dataset is not None:
            setattr(line, attribute, length_m(dataset, f"{raw.label}: {name}"))
    if line.distance_m is not None:
        line.distance_m = abs(line.distance_m)  # CXI's z runs against the beam in some files
        raw.attributes["detector_object_distance_m"] = line.distance_m
    energy = file.dataset(_SOURCE + "energy")
    wavelength = file.dataset(_SOURCE + "wavelength")
    if energy is not None:
        joules = energy_J(energy, f"{raw.label}: energy")
        line.wavelength_m = HC_J_M / joules if joules > 0 else 0.0
    elif wavelength is not None:
        line.wavelength_m = length_m(wavelength, f"{raw.label}: wavelength")
    if line.wavelength_m:
        raw.attributes["probe_energy_eV"] = HC_J_M / line.wavelength_m / EV_J
