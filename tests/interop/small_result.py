"""A small result to hand to other people's programs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.export.bundle import Export
from ptycho_runtime.image.core import Graphs
from ptycho_runtime.image.reconstruct import reconstruct
from ptycho_runtime.image.result import Reconstruction
from ptycho_runtime.scan.scan import Scan

N, PIXEL_M, ENERGY_EV, DISTANCE_M = 16, 2.0**-26, 8800.0, 1.9
FRAMES = np.array([3, 4, 7, 8, 11, 12, 20, 21, 30])  # the detector's own numbers: some frames were left out


class Session:
    """Object patches made of the patterns."""

    engine, device, note, options = "onnxruntime", "cpu", "", RunOptions()

    def __init__(self) -> None:
        self.inputs = {contract.DIFFRACTION: SimpleNamespace(shape=["batch", 1, N, N])}

    def run(self, feed: Any) -> dict[str, np.ndarray]:
        x = feed[contract.DIFFRACTION]
        return {contract.OBJECT_REAL: 1.0 + 0.3 * np.cos(x), contract.OBJECT_IMAG: 0.3 * np.sin(x)}


def small_result() -> Reconstruction:
    """Return a reconstruction of a small scan, off any symmetry: more columns than rows, not around zero, frames missing."""
    rng = np.random.default_rng(0)
    patterns = rng.random((31, N, N), np.float32)
    x, y = np.meshgrid([60.0, 66.0, 72.5], [-31.0, -26.0, -20.0])
    positions = np.stack([1.5 * x.ravel(), y.ravel()], 1)
    probe = np.exp(-np.hypot(*np.mgrid[-8:8, -8:8]) / 4).astype(np.complex64)
    scan = Scan(
        "stand-in", lambda rows: patterns[rows], FRAMES, positions, N, "amplitude",
        probe=probe[None], pixel_size_m=PIXEL_M,
        attributes={"probe_energy_eV": ENERGY_EV, "detector_object_distance_m": DISTANCE_M},
    )  # fmt: skip
    export = Export(Path("stand-in"), {}, N, 1, "amplitude", "half_n_over_rms", None, "J", -1.0)
    session: Any = Session()
    return reconstruct(export, Graphs(session, batch=4), scan)
