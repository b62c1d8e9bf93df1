"""A file of bad pixels that the user names."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ptycho_runtime.errors import PtychoExportError, ScanError
from ptycho_runtime.export.npz import read_npy
from ptycho_runtime.files import check_is_file
from ptycho_runtime.scan.layouts.hdf5_file import Hdf5File
from ptycho_runtime.scan.layouts.npz import UNREADABLE, NpzArrays
from ptycho_runtime.scan.layouts.numbers import check_type, names_in
from ptycho_runtime.scan.options import ReadOptions

_NAMES = (
    "mask",
    "bad_pixels",
    "pixel_mask",
    "entry_1/instrument_1/detector_1/mask",
    "entry/instrument/detector/pixel_mask",
    "entry/instrument/detector/detectorSpecific/pixel_mask",
)


def read_mask(path: Path) -> np.ndarray:
    """Return which pixels are bad, (rows, columns) bool, from `.npy`, `.npz` or HDF5: not zero is bad.

    Raises:
        OSError: no file is there.
        ScanError: it holds no mask.
    """
    import h5py

    check_is_file(path, "mask")
    try:
        if h5py.is_hdf5(path):
            with Hdf5File(path, ReadOptions()) as file:
                values = file.array(
                    _only(path, {name for name in _NAMES if file.dataset(name) is not None}, file.names())
                )
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                arrays = NpzArrays(archive, path.name)
                names = arrays.names()
                values = arrays.array(_only(path, names if len(names) == 1 else names & set(_NAMES), names))
        elif not _is_npy(path):
            raise ScanError(
                f"{path.name}: is neither .npy, .npz nor HDF5; expected a mask, not zero where pixels are bad"
            )
        else:
            values = read_npy(path, path.name)
    except UNREADABLE as error:
        if isinstance(error, PtychoExportError):
            raise
        raise ScanError(f"{path.name}: cannot be read as a mask ({error}); expected .npy, .npz or HDF5") from error
    check_type(values.dtype, f"{path.name}: the mask", "biuf")
    return np.asarray(values != 0)


def _is_npy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) == b"\x93NUMPY"


def _only(path: Path, names: set[str], there: set[str]) -> str:
    if len(names) != 1:
        raise ScanError(
            f"{path.name}: holds {len(names)} masks; expected one, named mask or bad_pixels (it has {names_in(there)})"
        )
    return names.pop()
