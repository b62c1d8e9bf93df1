"""Quantities with units: the `units` attributes of HDF5 datasets, and what a beamline can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.files import printable
from ptycho_runtime.scan.layouts.numbers import MOST_FRAMES, one_number
from ptycho_runtime.scan.options import GIVE_UNIT, UNIT_M, LengthUnit

EV_J: Final = 1.602176634e-19
HC_J_M: Final = 6.62607015e-34 * 299792458.0
_SPELLINGS: Final[dict[LengthUnit, tuple[str, ...]]] = {
    "m": ("m", "meter", "metre"),
    "mm": ("mm", "millimeter", "millimetre"),
    "um": ("um", "µm", "μm", "micron", "micrometer", "micrometre"),
    "nm": ("nm", "nanometer", "nanometre"),
    "angstrom": ("angstrom", "ångström", "ångstrom", "angström", "å", "Å", "a", "ang"),
    "px": ("px", "pixel"),
}
_LENGTHS: Final = {
    spelling.lower() + plural: unit
    for unit, spellings in _SPELLINGS.items()
    for spelling in spellings
    for plural in ("", "s")
}
_SMALL_M: Final = {
    "pm": 1e-12,
    "picometer": 1e-12,
    "picometre": 1e-12,
    "cm": 1e-2,
    "centimeter": 1e-2,
    "centimetre": 1e-2,
}
_ENERGIES_J: Final = {
    "j": 1.0,
    "joule": 1.0,
    "joules": 1.0,
    "ev": EV_J,
    "electronvolt": EV_J,
    "electronvolts": EV_J,
    "kev": 1e3 * EV_J,
    "kiloelectronvolt": 1e3 * EV_J,
    "kiloelectronvolts": 1e3 * EV_J,
}


def unit_text(dataset: Any) -> str | None:
    """Return the text of a dataset's `units` (or `unit`) attribute, None where it has none."""
    value = next((dataset.attrs[name] for name in ("units", "unit") if name in dataset.attrs), None)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if value is None:
        return None
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()


def length_unit(dataset: Any) -> LengthUnit | None:
    """Return the unit of lengths that a dataset says, None where it says nothing; one that is no length is refused."""
    text = unit_text(dataset)
    if text is None or not text:
        return None
    unit = _LENGTHS.get(text.lower())
    if unit is None:
        raise ScanError(f"{printable(dataset.name)}: its units are {printable(text)!r}; expected a length; {GIVE_UNIT}")
    return unit


def position_unit(datasets: Sequence[Any], given: LengthUnit | None, label: str) -> LengthUnit | None:
    """Return the unit that positions say, None where they say none.

    Args:
        datasets: of x and y, or one of both.
        given: what the user says; it counts more, so that a unit of no known name ends nothing.
        label: of the file, for messages.

    Raises:
        ScanError: the units are no lengths, or two different ones, and the user says none.
    """
    if given is not None:
        return given
    units = {printable(dataset.name): length_unit(dataset) for dataset in datasets}
    if len(set(units.values())) > 1:
        said = " and ".join(f"{name} in {unit}" if unit else f"{name} says no unit" for name, unit in units.items())
        raise ScanError(
            f"{label}: {said}; expected one unit of both: write them again in one; {GIVE_UNIT} if both are in it"
        )
    return next(iter(units.values()))


def length_m(dataset: Any, what: str) -> float:
    """Return a length in metres, in the unit that the dataset says, else metres."""
    unit = (unit_text(dataset) or "m").lower()
    factor = _SMALL_M.get(unit, UNIT_M.get(_LENGTHS.get(unit, "")))
    if factor is None:
        raise ScanError(f"{what}: its units are {printable(unit)!r}; expected a length")
    return _quantity(dataset, what) * factor


def energy_J(dataset: Any, what: str, unit: str = "J") -> float:
    """Return an energy in joules, in the unit that the dataset says, else in `unit`."""
    said = unit_text(dataset) or unit
    factor = _ENERGIES_J.get(said.lower())
    if factor is None:
        raise ScanError(f"{what}: its units are {printable(said)!r}; expected J, eV or keV")
    return _quantity(dataset, what) * factor


def _quantity(dataset: Any, what: str) -> float:
    if dataset.size is not None and dataset.size > MOST_FRAMES:
        raise ScanError(f"{what}: has shape {dataset.shape}; expected one number, or one a frame")
    return one_number(dataset[()], what)
