"""The example plug-in gives what the command line gives."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from sample_bundles import ROOT

import ptycho_runtime
from ptycho_runtime.image.options import ReconstructOptions
from ptycho_runtime.scan.read import read_scan

PIXEL_M = 2.0**-26  # divides without rounding, so that both canvases are the same


def test_same_object_as_the_runtimes_own_reader(demo: Path) -> None:
    spec = importlib.util.spec_from_file_location("plug_in", ROOT / "examples" / "ptychodus" / "reconstructor.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["plug_in"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    plug_in = module.PtychoPINNReconstructor()
    with pytest.raises(RuntimeError, match="open_model first"):
        plug_in.reconstruct(np.zeros((1, 64, 64)), np.zeros((1, 2)), np.zeros((1, 64, 64)), 1e-8)
    plug_in.open_model(demo, "cpu")
    path = ROOT / "examples" / "demo" / "scan.npz"
    with np.load(path) as data:
        positions = np.stack([data["xcoords"], data["ycoords"]], -1) * PIXEL_M
        found = plug_in.reconstruct(data["diff3d"] ** 2, positions, data["probeGuess"][None], PIXEL_M)
    expected = ptycho_runtime.open(demo, "cpu").reconstruct(read_scan(path, 64), ReconstructOptions(quality=False))
    assert np.abs(found.array[0] - expected.object).max() <= 1e-4
    assert found.center_x_m == pytest.approx((expected.canvas.x0_px + expected.object.shape[1] / 2) * PIXEL_M)
