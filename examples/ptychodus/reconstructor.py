"""A Ptychodus reconstructor around an exported PtychoPINN model: open it once, then hand over arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import ptycho_runtime
from ptycho_runtime.scan.scan import Scan


@dataclass(frozen=True)
class ObjectArray:
    """What Ptychodus's `Object` is made from."""

    array: np.ndarray  # (1, rows, columns) complex64
    pixel_width_m: float
    pixel_height_m: float
    center_x_m: float
    center_y_m: float


class PtychoPINNReconstructor:
    """`open_model` and `reconstruct`, as a Ptychodus plug-in has them."""

    name = "PtychoPINN (exported)"

    def __init__(self) -> None:
        """Start without a model."""
        self.model: ptycho_runtime.Reconstructor | None = None

    def open_model(self, path: Path, device: str = "auto") -> None:
        """Open an exported bundle; raises as `ptycho_runtime.open` does."""
        self.model = ptycho_runtime.open(path, device)
        self.model.warmup()

    def reconstruct(
        self,
        patterns: np.ndarray,
        positions_m: np.ndarray,
        probe: np.ndarray,
        pixel_size_m: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> ObjectArray:
        """Return the object.

        Args:
            patterns: (n, N, N) intensities, as Ptychodus holds them, zero frequency in the centre.
            positions_m: (n, 2) (x, y) probe positions, metres.
            probe: (modes, N, N) complex.
            pixel_size_m: of the object.
            progress: called with (patterns done, patterns in all).
        """
        if self.model is None:
            raise RuntimeError("no model is open; call open_model first")
        scan = Scan(
            name="ptychodus",
            read=lambda frames: patterns[frames],
            frames=np.arange(len(patterns)),
            positions_px=np.asarray(positions_m, float) / pixel_size_m,
            size_px=patterns.shape[-1],
            domain="intensity",
            probe=np.asarray(probe, np.complex64),
            pixel_size_m=pixel_size_m,
        )
        result = self.model.reconstruct(scan, progress=progress)
        rows, columns = result.object.shape
        return ObjectArray(
            array=result.object[None],
            pixel_width_m=pixel_size_m,
            pixel_height_m=pixel_size_m,
            center_x_m=(result.canvas.x0_px + columns / 2) * pixel_size_m,
            center_y_m=(result.canvas.y0_px + rows / 2) * pixel_size_m,
        )
