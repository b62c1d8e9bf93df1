"""cdtools (PyPI: cdtools-py) writes scans whose positions are the sample's motion along its detector's axes; we read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import read_scan

pytest.importorskip("cdtools", reason="cdtools-py is not installed")

N, SIDE, PIXEL_M = 32, 6, 75e-6
DISTANCE_M, WAVELENGTH_M = 1.0, 1.4e-10
OBJECT_PIXEL_M = WAVELENGTH_M * DISTANCE_M / (N * PIXEL_M)


@pytest.mark.parametrize("rows", [-1, 1])
@pytest.mark.parametrize("columns", [-1, 1])
def test_scan_lies_as_cdtools_own_model_places_it(rows: int, columns: int, tmp_path: Path) -> None:
    import torch
    from cdtools.datasets import Ptycho2DDataset
    from cdtools.tools.initializers import exit_wave_geometry
    from cdtools.tools.interactions import translations_to_pixel

    rng = np.random.default_rng(3)
    grid = np.mgrid[:SIDE, :SIDE].reshape(2, -1).T * 4.0 + rng.uniform(0, 1, (SIDE**2, 2))
    translations = np.concatenate([grid * OBJECT_PIXEL_M, np.zeros((SIDE**2, 1))], 1)
    # The first column is the direction of rows, the second that of columns.
    basis = np.array([[0, columns * PIXEL_M], [rows * PIXEL_M, 0], [0, 0]])
    y, x = np.mgrid[:N, :N] - N // 2
    counts = rng.poisson(200 * np.exp(-(x**2 + y**2) / 60), (SIDE**2, N, N)).astype(np.float32)
    mask = np.ones((N, N), bool)
    mask[3, 4] = False
    geometry = {"distance": DISTANCE_M, "basis": basis, "corner": None}
    dataset = Ptycho2DDataset(translations, counts, wavelength=WAVELENGTH_M, detector_geometry=geometry, mask=mask)
    dataset.to_cxi(str(tmp_path / "scan.cxi"))

    # As cdtools' models place a pattern of its file.
    again = Ptycho2DDataset.from_cxi(str(tmp_path / "scan.cxi"))
    wave = exit_wave_geometry(torch.as_tensor(basis), (N, N), WAVELENGTH_M, DISTANCE_M)
    wanted = translations_to_pixel(wave, again.translations.to(wave.dtype)).numpy()[:, ::-1]
    with read_scan(tmp_path / "scan.cxi", N, ReadOptions(domain="intensity", position_sign=-1)) as scan:
        assert scan.pixel_size_m == pytest.approx(OBJECT_PIXEL_M, rel=1e-6)
        found = scan.positions_px - scan.positions_px[0]
        assert found == pytest.approx(wanted - wanted[0], abs=1e-3)
        assert np.ptp(wanted, axis=0).min() > 20
        assert scan.detector is not None
        assert np.argwhere(scan.detector.bad).tolist() == [[3, 4]]
