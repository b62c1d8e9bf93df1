"""NeXus as detectors write it: `entry/instrument/detector` and `entry/instrument/beam`."""

from __future__ import annotations

from ptycho_runtime.errors import ScanError
from ptycho_runtime.scan.layouts.cxi import SAME, agreed
from ptycho_runtime.scan.layouts.hdf5_file import Hdf5File
from ptycho_runtime.scan.layouts.raw import RawScan
from ptycho_runtime.scan.layouts.units import EV_J, HC_J_M, energy_J, length_m, unit_text

_DETECTOR = "entry/instrument/detector/"
_MASKS = (_DETECTOR + "pixel_mask", _DETECTOR + "detectorSpecific/pixel_mask", "entry/data/pixel_mask")
_BEAM = "entry/instrument/beam/"


def take_nexus(file: Hdf5File, raw: RawScan) -> None:
    """Take the mask (0 is good, bits say why not) and the geometry, each where it is there and says its unit."""
    for name in _MASKS:
        if file.dataset(name) is not None:
            raw.bad_pixels = file.array(name) != 0
            break
    line = raw.beamline
    for attribute, names in (
        ("distance_m", ("detector_distance", "distance")),
        ("pixel_x_m", ("x_pixel_size",)),
        ("pixel_y_m", ("y_pixel_size",)),
    ):
        for name in names:
            dataset = file.dataset(_DETECTOR + name)
            if dataset is None:
                continue
            said_m, before_m = length_m(dataset, f"{raw.label}: {name}"), getattr(line, attribute)
            if before_m is not None and abs(said_m - before_m) > SAME * abs(before_m):
                raise ScanError(
                    f"{raw.label}: {' and '.join(names)} are {before_m:.4g} and {said_m:.4g} m; correct one of them"
                )
            setattr(line, attribute, said_m if before_m is None else before_m)
    wavelength = file.dataset(_BEAM + "incident_wavelength")
    energy = file.dataset(_BEAM + "incident_energy")
    if energy is not None and unit_text(energy):
        joules = energy_J(energy, f"{raw.label}: incident_energy")
        line.wavelength_m = HC_J_M / joules if joules > 0 else 0.0
    if wavelength is not None and unit_text(wavelength):
        said_m = length_m(wavelength, f"{raw.label}: incident_wavelength")
        line.wavelength_m = agreed(line.wavelength_m, said_m, raw.label)
    if line.distance_m:
        raw.attributes["detector_object_distance_m"] = line.distance_m
    if line.wavelength_m:
        raw.attributes["probe_energy_eV"] = HC_J_M / line.wavelength_m / EV_J
