"""Positions that are known before the scan: a CSV with columns id, x, y in pixels, or x, y alone in the order of the frames."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.files import printable
from ptycho_runtime.live.values import Positions

_MOST_BYTES = 1 << 30


def read_plan(path: Path) -> Positions:
    """Return a plan.

    Raises:
        FileNotFoundError: nothing is there.
        ScanError: it is no such table.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of positions")
    if path.stat().st_size > _MOST_BYTES:
        raise ScanError(f"{path.name}: has {path.stat().st_size} bytes; expected {_MOST_BYTES} at the most")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row and not row[0].lstrip().startswith("#")]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ScanError(f"{path.name}: cannot be read as CSV ({error})") from error
    names = [cell.strip().lower() for cell in rows[0]] if rows else []
    if names not in (["id", "x", "y"], ["x", "y"]):
        raise ScanError(
            f"{path.name}: begins with {printable(','.join(names))}; expected a first line id,x,y or x,y (pixels of the image)"
        )
    try:
        values = np.array([[float(cell) for cell in row] for row in rows[1:]], np.float64).reshape(-1, len(names))
    except ValueError as error:
        raise ScanError(f"{path.name}: holds what is no number, or lines of other lengths ({error})") from error
    if not len(values) or not np.isfinite(values).all():
        raise ScanError(f"{path.name}: {len(values)} positions, or one that is no number; expected one a frame")
    ids = values[:, 0].astype(np.int64) if len(names) == 3 else np.arange(len(values))
    if len(np.unique(ids)) != len(ids):
        raise ScanError(f"{path.name}: has an id twice; expected one position a frame")
    return Positions(values[:, -2:], ids)
