"""NPZ: everything as numpy arrays, lengths in pixels."""

from __future__ import annotations

from typing import IO, Any

import numpy as np

from ptycho_runtime.contract import CREATOR
from ptycho_runtime.image.products.values import (
    facts,
    pattern_arrays,
    pixel_arrays,
    provenance,
    skipped_frames,
)
from ptycho_runtime.image.result import Reconstruction


def write(result: Reconstruction, file: IO[bytes]) -> None:
    """Write a reconstruction."""
    arrays: dict[str, Any] = {
        "creator": CREATOR,
        "object": result.object,
        "coverage": result.canvas.coverage,
        "x0_px": result.canvas.x0_px,
        "y0_px": result.canvas.y0_px,
        "positions_px": result.scan.positions_px,
        "skipped_frames": skipped_frames(result),
        "frames": result.scan.frames,
        "pixel_size_m": result.scan.pixel_size_m,
    }
    np.savez(file, **arrays | provenance(result) | facts(result) | pattern_arrays(result) | pixel_arrays(result))
