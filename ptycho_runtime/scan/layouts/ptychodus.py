"""Ptychodus products as the file of positions."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.scan.layouts.hdf5 import datasets
from ptycho_runtime.scan.layouts.raw import RawScan, modes


def take_product(path: Path, raw: RawScan) -> None:
    """Take positions, probe and geometry from a Ptychodus product, or positions from another NPZ."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of positions")
    import h5py

    found: Mapping[str, Any]
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            found = {name: file[name][()] for name in datasets(file)}
            sizes = {name: dict(file[name].attrs) for name in ("object", "probe") if name in file}
            raw.attributes |= {k: float(v) for k, v in file.attrs.items() if isinstance(v, (int, float, np.number))}
        pixel = sizes.get("object", {}).get("pixel_width_m") or sizes.get("probe", {}).get("pixel_width_m") or 0.0
    else:
        try:
            with np.load(path, allow_pickle=False) as data:
                found = {name: data[name] for name in data.files}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise ScanError(f"{path.name}: cannot be read as a product ({error})") from error
        pixel = float(found.get("object_pixel_width_m", found.get("probe_pixel_width_m", 0.0)))
    if "xcoords" in found and "ycoords" in found:
        raw.x, raw.y, raw.position_unit, raw.position_sign = found["xcoords"], found["ycoords"], "px", 1
        return
    if "probe_position_x_m" not in found or "probe_position_y_m" not in found:
        raise ScanError(f"{path.name}: holds neither probe_position_x_m and _y_m nor xcoords and ycoords")
    raw.x, raw.y = np.asarray(found["probe_position_x_m"]), np.asarray(found["probe_position_y_m"])
    raw.position_unit, raw.position_sign, raw.object_pixel_m = "m", 1, float(pixel)
    if "probe_position_indexes" in found:
        # Frame indexes, possibly of a file whose patterns start at another number.
        indexes = np.asarray(found["probe_position_indexes"], np.int64)
        if len(indexes) == len(np.unique(indexes)):
            known = np.arange(raw.shape[0]) if raw.indexes is None else np.asarray(raw.indexes, np.int64)
            frame_of = {int(number): frame for frame, number in enumerate(known)}
            raw.frame_of_position = np.array([frame_of.get(int(number), -1) for number in indexes], np.int64)
        elif len(indexes) > 1:
            raise ScanError(
                f"{path.name}: probe_position_indexes repeats numbers, so which pattern belongs to which position is not known"
            )
    if "probe" in found:
        raw.probe = modes(found["probe"])
