"""HDF5 of any kind: the names in it, and the layouts that are no standard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.scan.layouts.cxi import take_cxi
from ptycho_runtime.scan.layouts.raw import RawScan, modes, patterns_key
from ptycho_runtime.scan.options import PATTERN_KEYS, ReadOptions


def open_hdf5(path: Path, options: ReadOptions) -> RawScan:
    import h5py

    try:
        file = h5py.File(path, "r")
        names = datasets(file)
        key = patterns_key(names, options, path.name)
        dataset = file[key]
        raw = RawScan(dataset, tuple(dataset.shape), file.close)
        raw.declared_amplitude = key in ("diff3d", "diffraction")
        if key == "entry_1/data_1/data":
            take_cxi(file, raw)
        elif key == "dp" and "points" in names and options.x_key is None:
            raw.x, raw.y = file["points"][0], file["points"][1]
            raw.position_unit = "um"
        elif "xcoords" in names and "ycoords" in names and options.x_key is None:
            raw.x, raw.y, raw.position_unit, raw.position_sign = file["xcoords"][()], file["ycoords"][()], "px", 1
        if options.x_key and options.y_key:
            for axis, name in (("x", options.x_key), ("y", options.y_key)):
                if name.strip("/") not in names:
                    raise ScanError(f"{path.name}: has no dataset {name}; it has {', '.join(sorted(names)[:12])}")
                setattr(raw, axis, np.ravel(file[name][()]))
        if "indexes" in names and file["indexes"].shape == (raw.shape[0],):
            raw.indexes = file["indexes"][()]
        for probe_key in (options.probe_key, "probeGuess"):
            if probe_key and probe_key.strip("/") in names:
                raw.probe = modes(file[probe_key][()])
                break
        return raw
    except (OSError, KeyError, RuntimeError) as error:
        raise ScanError(f"{path.name}: cannot be read as HDF5 ({error})") from error


def datasets(file: Any) -> set[str]:
    import h5py

    names: set[str] = set()
    file.visititems(lambda name, item: names.add(name) if isinstance(item, h5py.Dataset) else None)
    # Soft links are not visited, and CXI files are full of them.
    names |= {key for key in PATTERN_KEYS if key in file}
    return names
