"""Quantities with units: the `units` attributes of HDF5 datasets, and what a beamline can be."""

from __future__ import annotations

from typing import Any, Final

from ptycho_runtime.errors import ScanError
from ptycho_runtime.files import printable
from ptycho_runtime.scan.layouts.numbers import one_number
from ptycho_runtime.scan.options import LengthUnit

EV_J: Final = 1.602176634e-19
HC_J_M: Final = 6.62607015e-34 * 299792458.0
_LENGTHS: Final[dict[str, LengthUnit]] = {
    "m": "m",
    "meter": "m",
    "metre": "m",
    "meters": "m",
    "metres": "m",
    "mm": "mm",
    "millimeter": "mm",
    "millimetre": "mm",
    "um": "um",
    "µm": "um",
    "μm": "um",
    "micron": "um",
    "microns": "um",
    "micrometer": "um",
    "micrometre": "um",
    "nm": "nm",
    "nanometer": "nm",
    "nanometre": "nm",
    "px": "px",
    "pixel": "px",
    "pixels": "px",
}
_LENGTHS_M: Final = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "angstrom": 1e-10, "å": 1e-10, "a": 1e-10}
_ENERGIES_J: Final = {"j": 1.0, "joule": 1.0, "ev": EV_J, "kev": 1e3 * EV_J}


def unit_text(dataset: Any) -> str | None:
    """Return the text of a dataset's `units` attribute, None where it has none."""
    value = dataset.attrs.get("units")
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
        raise ScanError(
            f"{printable(dataset.name)}: its units are {printable(text)!r}; expected a length; give --position-unit px, m, mm, um or nm"
        )
    return unit


def length_m(dataset: Any, what: str) -> float:
    """Return a length in metres, in the unit that the dataset says, else metres."""
    unit = (unit_text(dataset) or "m").lower()
    factor = _LENGTHS_M.get(_LENGTHS.get(unit, unit))
    if factor is None:
        raise ScanError(f"{what}: its units are {printable(unit)!r}; expected a length")
    return one_number(dataset[()], what) * factor


def energy_J(dataset: Any, what: str, unit: str = "J") -> float:
    """Return an energy in joules, in the unit that the dataset says, else in `unit`."""
    said = unit_text(dataset) or unit
    factor = _ENERGIES_J.get(said.lower())
    if factor is None:
        raise ScanError(f"{what}: its units are {printable(said)!r}; expected J, eV or keV")
    return one_number(dataset[()], what) * factor
