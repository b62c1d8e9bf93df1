"""CXI."""

from __future__ import annotations

import contextlib
from typing import Any

from ptycho_runtime.scan.layouts.raw import RawScan, modes


def take_cxi(file: Any, raw: RawScan) -> None:
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
        raw.probe = modes(file["entry_1/instrument_1/source_1/illumination"][()])
