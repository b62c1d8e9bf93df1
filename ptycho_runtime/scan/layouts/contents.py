"""What a file holds, before anything of it is understood."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ptycho_runtime.errors import ScanError
from ptycho_runtime.scan.layouts.hdf5_file import Hdf5File
from ptycho_runtime.scan.layouts.npz import UNREADABLE, NpzArrays
from ptycho_runtime.scan.options import ReadOptions

_MOST = 40


def contents(path: Path, options: ReadOptions) -> list[str]:
    """Return the arrays of an NPZ or HDF5 file, `name (shape) type`; empty for other files."""
    import h5py

    lines: list[str] = []
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                arrays = NpzArrays(archive, path.name)
                headers = {name: arrays.header(name) for name in sorted(arrays.names())[:_MOST]}
                lines = [f"{name} {header.shape} {header.dtype}" for name, header in headers.items()]
        elif h5py.is_hdf5(path):
            with Hdf5File(path, options) as file:
                for name in sorted(file.names())[:_MOST]:
                    lines.append(_line(file, name))
    except UNREADABLE as error:
        lines.append(f"cannot be read to its end ({error})")
    return lines


def _line(file: Hdf5File, name: str) -> str:
    try:
        dataset = file.dataset(name)
    except ScanError as error:
        return f"{name}: {error}"
    if dataset is None:
        return f"{name} (a group, or a link to none)"
    return f"{name} {dataset.shape} {dataset.dtype}"
