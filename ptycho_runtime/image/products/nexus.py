"""What NeXus viewers show when they open a result without being told where to look, and where it says what made it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_runtime.contract import CREATOR
from ptycho_runtime.files import encodable
from ptycho_runtime.image.products.values import amplitude_and_phase, pixel_m, provenance
from ptycho_runtime.image.result import Reconstruction

if TYPE_CHECKING:
    import h5py

# Of arrays that stand beside the layout's own, by name.
_UNITS = {
    "probe_position_x_m": "m",
    "probe_position_y_m": "m",
    "probe_position_x_px": "px",
    "probe_position_y_px": "px",
    "phase_deviation_rad": "rad",
    "pattern_phase_rad": "rad",
    "pattern_centroid_px": "px",
    "object_layer_spacing_m": "m",
}


def add_nexus(file: h5py.File, entry: str, result: Reconstruction, beside: h5py.Group) -> None:
    """Let an HDF5 file open with the object's phase, its amplitude beside it, over the scan's coordinates; say what made it.

    Args:
        file: open for writing.
        entry: name of the group below the root that takes the plot (`shown`) and the provenance (`process`).
        result: what is shown; NaN where nothing was measured.
        beside: group that holds the layout's own arrays, which get their units.

    Coordinates are those of the pixels' centres in metres, or in pixels where their size is not known: a pattern's position is
    that of the pixel on which the middle of its patch lies.
    """
    group = file.require_group(entry)
    file.attrs["NX_class"], file.attrs["default"] = "NXroot", entry
    group.attrs["NX_class"], group.attrs["default"] = "NXentry", "shown"
    if "title" not in group:
        group["title"] = encodable(result.scan.name)
    group["end_time"] = result.origin.finished
    group["program_name"] = CREATOR
    _add_plot(group.create_group("shown"), result, beside)
    _add_provenance(group.create_group("process"), result)
    for name, unit in _UNITS.items():
        if name in beside:
            beside[name].attrs["units"] = unit


def _add_plot(shown: h5py.Group, result: Reconstruction, beside: h5py.Group) -> None:
    amplitude, phase = amplitude_and_phase(result)
    shown.attrs["NX_class"] = "NXdata"
    shown.attrs["signal"], shown.attrs["auxiliary_signals"] = "phase", ["amplitude"]
    shown.attrs["axes"] = ["y", "x"]
    shown["title"] = encodable(f"{result.scan.name}: {result.trust.verdict}")
    shown["phase"], shown["amplitude"] = phase, amplitude
    shown["phase"].attrs["units"], shown["amplitude"].attrs["units"] = "rad", "1"
    shown["phase"].attrs["long_name"] = "phase (rad)"
    shown["amplitude"].attrs["long_name"] = "amplitude"
    # Links to the arrays that are there already.
    shown["phase_errors"], shown["amplitude_errors"] = beside["phase_deviation_rad"], beside["amplitude_deviation"]
    size = pixel_m(result)
    unit, (width, height) = ("px", (1.0, 1.0)) if size is None else ("m", size)
    rows, columns = result.object.shape
    for axis, step, first, count in (
        ("x", width, result.canvas.x0_px, columns),
        ("y", height, result.canvas.y0_px, rows),
    ):
        shown[axis] = (first + np.arange(count)) * step
        shown[axis].attrs["units"], shown[axis].attrs["long_name"] = unit, f"{axis} ({unit})"


def _add_provenance(process: h5py.Group, result: Reconstruction) -> None:
    process.attrs["NX_class"] = "NXprocess"
    known = provenance(result)
    process["date"] = known.get("finished", "")
    for name, text in known.items():
        process[name] = text
