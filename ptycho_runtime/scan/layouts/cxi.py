"""CXI, as beamlines and cdtools write it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.scan.layouts.hdf5_file import Hdf5File
from ptycho_runtime.scan.layouts.numbers import check_type
from ptycho_runtime.scan.layouts.raw import RawScan, StoredProbe
from ptycho_runtime.scan.layouts.units import EV_J, HC_J_M, energy_J, length_m, position_unit

_PATTERNS = re.compile(r"(entry_\d+)/data_(\d+)/data")
CXI_TRANSLATION: Final = "entry_1/data_1/translation"
_HAS_SIGNAL: Final = 0x1000  # alone in a mask it speaks of a good pixel
SAME: Final = 0.01  # of two statements of one photon energy, or distance


@dataclass(frozen=True)
class Place:
    """Where a CXI file keeps what belongs to one set of patterns."""

    entry: str = "entry_1"
    number: str = "1"  # of the data and of their detector

    @property
    def translations(self) -> tuple[str, ...]:
        """Names that the positions may have."""
        return f"{self.entry}/data_{self.number}/translation", f"{self.entry}/sample_1/geometry_1/translation"

    @property
    def detector(self) -> str:
        """The detector's group."""
        return f"{self.entry}/instrument_1/detector_{self.number}/"

    @property
    def source(self) -> str:
        """The source's group."""
        return f"{self.entry}/instrument_1/source_1/"


def place_of(patterns: str) -> Place | None:
    """Return where a CXI file keeps what belongs to patterns of this name; None for a name that is not CXI's."""
    match = _PATTERNS.fullmatch(patterns)
    return None if match is None else Place(*match.groups())


def take_cxi(file: Hdf5File, raw: RawScan, place: Place = Place()) -> None:
    """Take positions, geometry, mask and probe of a CXI file."""
    _take_translation(file, raw, place)
    take_beamline(file, raw, place)
    if file.dataset(place.detector + "mask") is not None:
        mask = file.array(place.detector + "mask")
        raw.bad_pixels = (mask != 0) & (mask != _HAS_SIGNAL)
    if file.dataset(place.detector + "data_dark") is not None:
        raw.warnings.append(f"{place.detector}data_dark, a background, is not taken off the patterns")
    if file.dataset(place.source + "illumination") is not None:
        raw.probe = StoredProbe.read(file.array, place.source + "illumination")


def _take_translation(file: Hdf5File, raw: RawScan, place: Place) -> None:
    found = [(name, dataset) for name in place.translations if (dataset := file.dataset(name)) is not None]
    if not found:
        return
    name, dataset = found[0]
    values = file.array(name)
    check_type(values.dtype, f"{raw.label}: {name}")
    if values.ndim != 2 or values.shape[1] not in (2, 3):
        raise ScanError(f"{raw.label}: {name} has shape {values.shape}; expected positions as (n, 3)")
    for other, second in found[1:]:
        if second.shape == values.shape and not np.array_equal(file.array(other), values, equal_nan=True):
            raise ScanError(
                f"{raw.label}: {name} and {other} are different positions; expected one set: name it with --x-key and --y-key, both "
                f"{name} or both {other}"
            )
    raw.x, raw.y = values[:, 0].astype(np.float64), values[:, 1].astype(np.float64)
    raw.positions_from = name
    raw.position_unit = position_unit([dataset], file.options.position_unit, raw.label) or "m"
    raw.axes = _axes(file, raw, place.detector + "basis_vectors")


def _axes(file: Hdf5File, raw: RawScan, name: str) -> np.ndarray | None:
    """Return the directions (x, y) in which columns and rows of the detector grow, from `basis_vectors` (3, 2): rows, columns."""
    if file.dataset(name) is None:
        return None
    what = f"{raw.label}: basis_vectors"
    vectors = file.array(name)
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


def take_beamline(file: Hdf5File, raw: RawScan, place: Place = Place()) -> None:
    """Take distance, pixels of the detector and photon energy, each where it is there."""
    line = raw.beamline
    for attribute, name in (
        ("distance_m", "distance"),
        ("pixel_x_m", "x_pixel_size"),
        ("pixel_y_m", "y_pixel_size"),
    ):
        dataset = file.dataset(place.detector + name)
        if dataset is not None:
            setattr(line, attribute, length_m(dataset, f"{raw.label}: {name}"))
    if line.distance_m is not None:
        line.distance_m = abs(line.distance_m)  # CXI's z runs against the beam in some files
        raw.attributes["detector_object_distance_m"] = line.distance_m
    energy = file.dataset(place.source + "energy")
    wavelength = file.dataset(place.source + "wavelength")
    if energy is not None:
        joules = energy_J(energy, f"{raw.label}: energy")
        line.wavelength_m = HC_J_M / joules if joules > 0 else 0.0
    if wavelength is not None:
        line.wavelength_m = agreed(line.wavelength_m, length_m(wavelength, f"{raw.label}: wavelength"), raw.label)
    if line.wavelength_m:
        raw.attributes["probe_energy_eV"] = HC_J_M / line.wavelength_m / EV_J


def agreed(by_energy_m: float | None, said_m: float, label: str) -> float:
    """Return the wavelength of two statements, metres; `ScanError` where they contradict each other."""
    if by_energy_m is None or by_energy_m == said_m:
        return said_m
    if not by_energy_m > 0 or abs(said_m / by_energy_m - 1) > SAME:
        raise ScanError(
            f"{label}: its photon energy makes a wavelength of {by_energy_m:.4g} m, and it says {said_m:.4g} m; correct one of them"
        )
    return by_energy_m
