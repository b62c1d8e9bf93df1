"""What viewers show when they open a result without being told where to look: NeXus' default plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_runtime.image.products.values import pixel_m
from ptycho_runtime.image.result import Reconstruction

if TYPE_CHECKING:
    import h5py


def add_default(file: h5py.File, entry: str, result: Reconstruction) -> None:
    """Let an HDF5 file open with the object's amplitude, its phase beside it, over the scan's coordinates.

    Args:
        file: open for writing.
        entry: name of the group below the root that takes the plot.
        result: what is shown.

    Coordinates are those of the pixels' centres in metres, or in pixels where their size is not known.
    """
    group = file.require_group(entry)
    shown = group.create_group("shown")
    file.attrs["default"] = entry
    group.attrs["NX_class"], group.attrs["default"] = "NXentry", "shown"
    shown.attrs["NX_class"] = "NXdata"
    shown.attrs["signal"], shown.attrs["auxiliary_signals"] = "amplitude", ["phase"]
    shown.attrs["axes"] = ["y", "x"]
    shown["amplitude"] = np.abs(result.object).astype(np.float32)
    shown["phase"] = np.angle(result.object).astype(np.float32)
    shown["phase"].attrs["units"] = "rad"
    size = pixel_m(result)
    unit, (width, height) = ("px", (1.0, 1.0)) if size is None else ("m", size)
    rows, columns = result.object.shape
    for axis, step, first, count in (
        ("x", width, result.canvas.x0_px, columns),
        ("y", height, result.canvas.y0_px, rows),
    ):
        shown[axis] = (first + 0.5 + np.arange(count)) * step
        shown[axis].attrs["units"] = unit
