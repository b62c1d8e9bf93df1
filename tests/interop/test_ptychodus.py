"""Ptychodus opens our results at the right places, and we read what it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_result import DISTANCE_M, ENERGY_EV, FRAMES, PIXEL_M, N

pytest.importorskip("ptychodus", reason="Ptychodus is not installed: make test-interop")

from ptychodus.api.assemble import AssembledDiffractionData
from ptychodus.api.geometry import PixelGeometry
from ptychodus.api.interpolate import BarycentricArrayInterpolator
from ptychodus.api.io import load_product, save_diffraction_data, save_product
from ptychodus.api.product import Product
from ptychodus.plugins.cxi_file import CXIProductFileIO

from ptycho_runtime.image.products.target import Target
from ptycho_runtime.image.products.write import write_product
from ptycho_runtime.image.result import Reconstruction
from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import read_scan

pytestmark = pytest.mark.interop
SIDE = 4  # of the patches that are cut out: the object is hardly larger than what its positions span


def opened(result: Reconstruction, folder: Path, suffix: str) -> Product:
    path = folder / f"product{suffix}"
    write_product(result, Target(path))
    return CXIProductFileIO().read(path) if suffix == ".cxi" else load_product(path)


@pytest.mark.parametrize("suffix", [".h5", ".cxi"])
class TestProduct:
    def test_object_and_frames_are_ours(self, suffix: str, result: Reconstruction, tmp_path: Path) -> None:
        product = opened(result, tmp_path, suffix)
        assert np.array_equal(product.object_.get_layer(0), result.object)
        assert np.array_equal(product.probe_positions.get_indexes(), FRAMES)
        assert product.metadata.photon_energy_eV == pytest.approx(ENERGY_EV)
        assert product.metadata.detector_distance_m == pytest.approx(DISTANCE_M)
        pixel = product.object_.get_pixel_geometry()
        assert (pixel.width_m, pixel.height_m) == (PIXEL_M, PIXEL_M)

    def test_patch_of_a_pattern_lies_where_we_put_it(self, suffix: str, result: Reconstruction, tmp_path: Path) -> None:
        """Ptychodus cuts a patch out of the object around each position; whole positions give our pixels, unchanged."""
        product = opened(result, tmp_path, suffix)
        geometry = product.object_.get_geometry()
        patches = BarycentricArrayInterpolator(product.object_.get_layer(0))
        compared = 0
        for row, position in enumerate(product.probe_positions):
            x_px, y_px = result.scan.positions_px[row] - (result.canvas.x0_px, result.canvas.y0_px) - SIDE / 2
            # Where there is a row and a column more, which the interpolation looks at even between no pixels.
            inside = min(x_px, y_px) >= 0 and np.all((x_px, y_px) < np.array(result.object.shape)[::-1] - SIDE)
            if x_px % 1 == y_px % 1 == 0 and inside:
                centre = geometry.map_coordinates_probe_to_object(position)
                found = patches.get_patch(centre.x_px, centre.y_px, SIDE, SIDE)
                column, line = int(x_px), int(y_px)
                np.testing.assert_allclose(found, result.object[line : line + SIDE, column : column + SIDE], atol=1e-6)
                compared += 1
        assert compared >= 3


def test_its_diffraction_data_and_product_are_read_as_a_scan(result: Reconstruction, tmp_path: Path) -> None:
    counts = np.random.default_rng(1).poisson(50.0, (len(FRAMES), N, N)).astype(np.uint16)
    counts[:, 3, 5] = 65000
    bad = np.zeros((N, N), bool)
    bad[3, 5] = True
    data = AssembledDiffractionData(FRAMES, counts, PixelGeometry(75e-6, 75e-6), bad)
    save_diffraction_data(tmp_path / "diffraction.h5", data)
    save_product(tmp_path / "product.h5", opened(result, tmp_path, ".h5"))
    options = ReadOptions(domain="intensity", positions_file=tmp_path / "product.h5")
    scan = read_scan(tmp_path / "diffraction.h5", N, options)
    assert np.array_equal(scan.frames, FRAMES)
    np.testing.assert_allclose(scan.positions_px, result.scan.positions_px, atol=1e-6)
    amplitudes = scan.patterns(np.arange(len(scan)), N, "amplitude")
    good = ~bad
    np.testing.assert_allclose(amplitudes[:, good], np.sqrt(counts[:, good].astype(np.float64)), rtol=1e-6)
    assert amplitudes[:, 3, 5].max() < 20.0, "a bad pixel is not taken as measured"
