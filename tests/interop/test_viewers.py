"""Viewers show the object when they open a result, without being told where it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho_runtime.image.products.target import Target
from ptycho_runtime.image.products.write import write_product
from ptycho_runtime.image.result import Reconstruction

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("suffix", [".h5", ".cxi"])
def test_silx_opens_a_result_at_its_default(suffix: str, result: Reconstruction, tmp_path: Path) -> None:
    silx_io = pytest.importorskip("silx.io", reason="silx is not installed: make test-interop")
    from silx.io import nxdata

    path = tmp_path / f"product{suffix}"
    write_product(result, Target(path))
    with silx_io.open(str(path)) as file:
        shown = nxdata.get_default(file)
        assert shown is not None
        assert shown.is_image
        assert shown.signal_dataset_name == "phase"
        assert shown.axes_dataset_names == ["y", "x"]
        assert [axis.attrs["units"] for axis in shown.axes] == ["m", "m"]
        np.testing.assert_array_equal(np.isfinite(shown.signal[()]), result.canvas.covered)


@pytest.mark.parametrize("suffix", [".h5", ".cxi"])
def test_nexusformat_finds_what_to_plot(suffix: str, result: Reconstruction, tmp_path: Path) -> None:
    nexus = pytest.importorskip("nexusformat.nexus", reason="nexusformat is not installed: make test-interop")
    path = tmp_path / f"product{suffix}"
    write_product(result, Target(path))
    plotted = nexus.nxload(str(path)).get_default()
    assert plotted is not None
    assert plotted.nxsignal.nxname == "phase"
    assert plotted.nxsignal.shape == result.object.shape
    assert [axis.nxname for axis in plotted.nxaxes] == ["y", "x"]


def test_tifffile_reads_both_pages_as_ome(result: Reconstruction, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed: make test-interop")
    path = tmp_path / "object.tif"
    write_product(result, Target(path))
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert file.pages[0].tags["Software"].value == "ptycho-runtime"
        assert file.series[0].axes == "CYX"
        amplitude, phase = file.series[0].asarray()
        described = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert [channel["Name"] for channel in described["Channel"]] == ["amplitude", "phase (rad)"]
    assert described["PhysicalSizeX"] == pytest.approx(result.scan.pixel_size_m * 1e6)
    covered = result.canvas.covered
    for page, values in ((amplitude, np.abs(result.object)), (phase, np.angle(result.object))):
        np.testing.assert_array_equal(page[covered], values[covered].astype(np.float32))
        assert np.isnan(page[~covered]).all()
