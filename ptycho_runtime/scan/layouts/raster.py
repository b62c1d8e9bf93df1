"""Patterns with an axis too many: (rows, columns, h, w) of a raster, (n, 1, h, w) of a camera that has one channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.scan.layouts.frames import FramesOnDisk
from ptycho_runtime.scan.layouts.raw import RawScan


class RasterFrames:
    """Patterns of the axes (rows, columns, h, w) as (rows · columns, h, w), read when asked for."""

    def __init__(self, data: Any) -> None:
        """Take an array or an HDF5 dataset of four axes."""
        self.data, self.dtype = data, data.dtype
        self.columns = int(data.shape[1])
        self.shape = (int(data.shape[0]) * self.columns, *data.shape[2:])

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        """Return some frames: a slice without step, or ascending numbers."""
        rows, columns = np.divmod(np.arange(self.shape[0])[key], self.columns)
        values: np.ndarray = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for row in np.unique(rows):
            here = rows == row
            wanted = columns[here]
            # One read of neighbours is much faster.
            part = self.data[int(row), int(wanted[0]) : int(wanted[-1]) + 1]
            values[here] = part[wanted - wanted[0]]
        return values


def count_along_lines(raw: RawScan) -> None:
    """Make (n, h, w) of patterns of four axes, frame by frame along the last axis of the scan; leave three axes alone.

    Raises:
        ScanError: neither the positions nor an axis of one frame tell that the first two axes count the frames.
    """
    if len(raw.shape) != 4:
        return
    rows, columns, height, width = raw.shape
    positions = None if raw.x is None else len(raw.x)
    if raw.numbers is not None:
        positions = None  # these are paired by number, and need not be as many
    said = 1 in (rows, columns) or positions == rows * columns
    if said and positions is not None and positions == height * width and 1 not in (rows, columns):
        said = False  # frames first or last: as many either way
    if not said:
        known = "how many positions there are is not known" if positions is None else f"there are {positions} positions"
        raise ScanError(
            f"{raw.label}: patterns have shape {raw.shape}, four axes; expected (n, N, N), or (rows, columns, N, N) with "
            f"rows × columns positions, and {known}; store the patterns as (n, N, N), or name positions of that many "
            "places with --x-key and --y-key"
        )
    data = raw.data
    if isinstance(data, FramesOnDisk):
        data.shape = (rows * columns, height, width)
        data.frame_bytes //= columns
    else:
        raw.data = RasterFrames(data)
    raw.shape = (rows * columns, height, width)
    if rows > 1 and columns > 1:
        raw.warnings.append(f"patterns of {rows} × {columns} places are taken line by line, as their positions are")
