"""Open a scan by its content."""

from __future__ import annotations

from pathlib import Path

from ptycho_runtime.errors import ScanError
from ptycho_runtime.scan.layouts.hdf5 import open_hdf5
from ptycho_runtime.scan.layouts.npz import open_npz
from ptycho_runtime.scan.layouts.ptychodus import take_positions_file
from ptycho_runtime.scan.layouts.raster import count_along_lines
from ptycho_runtime.scan.layouts.raw import RawScan
from ptycho_runtime.scan.options import ReadOptions


def open_raw(path: Path, options: ReadOptions) -> RawScan:
    """Open a scan by its content, and the file of positions that goes with it.

    Raises:
        FileNotFoundError: there is no file of positions.
        ScanError: a file of no known kind, or without the arrays that are needed.
        PackageMissingError: its frames are compressed by a filter that is not installed.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PK"):
        raw = open_npz(path, options)
    elif _is_hdf5(path):
        raw = open_hdf5(path, options)
    else:
        raise ScanError(
            f"{path.name}: is neither NPZ nor HDF5 (CXI); expected a PtychoPINN, CXI, Ptychodus or other HDF5 scan"
        )
    try:
        if options.positions_file is not None:
            take_positions_file(options.positions_file, raw, options)
        count_along_lines(raw)
    except BaseException:
        raw.close()
        raise
    return raw


def _is_hdf5(path: Path) -> bool:
    """Say whether a file is HDF5, which may begin after a block of the user's own."""
    import h5py

    return bool(h5py.is_hdf5(path))
