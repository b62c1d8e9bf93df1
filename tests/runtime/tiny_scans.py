"""Scans of a few patterns in the layouts that beamlines write, for tests of what is understood of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptycho_runtime.scan.options import ReadOptions

N, COUNT = 32, 36
Y, X = (np.mgrid[:6, :6].reshape(2, -1) * 7.0) + 20
GRID_Y, GRID_X = np.mgrid[:N, :N]
SHAPE = np.exp(-((GRID_Y - 16) ** 2 + (GRID_X - 16) ** 2) / 60)
COUNTS = np.random.default_rng(3).poisson(200 * SHAPE, (COUNT, N, N))
STORED = COUNTS.astype(np.uint16)
GIVEN = ReadOptions(x_key="x", y_key="y", position_unit="px", position_sign=1)


def hdf5(path: Path, patterns: Any = STORED, **datasets: Any) -> Path:
    """Write counts at /entry/data/data and positions at /x and /y; a function as patterns writes them itself."""
    import h5py

    with h5py.File(path, "w") as file:
        if callable(patterns):
            patterns(file)
        else:
            file["entry/data/data"] = patterns
        for name, values in ({"x": X, "y": Y} | datasets).items():
            if values is not None:
                file[name] = values
    return path


def cxi(path: Path, patterns: np.ndarray = STORED, **change: Any) -> Path:
    """Write CXI with some entries below /entry_1 changed; None leaves one out."""
    entries = {
        "data_1/data": patterns,
        "data_1/translation": np.stack([X, Y, 0 * X], 1) * 1e-8,
        "instrument_1/detector_1/distance": 1.0,
        "instrument_1/detector_1/x_pixel_size": 75e-6,
        "instrument_1/detector_1/y_pixel_size": 75e-6,
        "instrument_1/source_1/energy": 8800 * 1.602176634e-19,
    } | change
    import h5py

    with h5py.File(path, "w") as file:
        for name, value in entries.items():
            if value is not None:
                file[f"entry_1/{name}"] = value
    return path
