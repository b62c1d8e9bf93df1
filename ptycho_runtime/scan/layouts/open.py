"""Open a scan by its content."""

from __future__ import annotations

from pathlib import Path

from ptycho_runtime.errors import PositionsMissingError, ScanError
from ptycho_runtime.scan.layouts.hdf5 import open_hdf5
from ptycho_runtime.scan.layouts.npz import open_npz
from ptycho_runtime.scan.layouts.ptychodus import take_product
from ptycho_runtime.scan.layouts.raw import RawScan
from ptycho_runtime.scan.options import ReadOptions


def open_raw(path: Path, options: ReadOptions, *, with_positions: bool = True) -> RawScan:
    """Open a scan by its content.

    Args:
        path: the file.
        options: what the user declares.
        with_positions: False where a file without positions will do.

    Raises `ScanError` for a file of no known kind or without the arrays that are needed.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PK"):
        raw = open_npz(path, options)
    elif head == b"\x89HDF\r\n\x1a\n":
        raw = open_hdf5(path, options)
    else:
        raise ScanError(
            f"{path.name}: is neither NPZ nor HDF5 (CXI); expected a PtychoPINN, CXI, Ptychodus or other HDF5 scan"
        )
    if options.positions_file is not None:
        take_product(options.positions_file, raw)
    if raw.frame_of_position is None and not len(raw.x) and with_positions:
        raise PositionsMissingError(
            f"{path.name}: holds no positions; name them with --x-key and --y-key, or give the file that has them with --positions"
        )
    return raw
