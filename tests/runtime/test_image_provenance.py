"""Every product says what made it, shows nothing where nothing was measured, and opens at its phase with units."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
from PIL import Image

import ptycho_runtime
from ptycho_runtime import demo
from ptycho_runtime.image.options import ReconstructOptions
from ptycho_runtime.image.origin import Origin, changed
from ptycho_runtime.image.products.target import Target
from ptycho_runtime.image.products.tiff import PAGES
from ptycho_runtime.image.products.write import write_product
from ptycho_runtime.image.result import Reconstruction
from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import read_scan

PIXEL_M = 2.5e-8
_OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"
SAID = {"bundle", "bundle_sha256", "scan", "scan_sha256", "options", "versions", "host", "finished", "verdict"}


@pytest.fixture(scope="module")
def result() -> Reconstruction:
    """Return the image of some of the demo's patterns."""
    options = ReadOptions(domain="intensity", pixel_size_m=PIXEL_M, every=6)
    with ptycho_runtime.open(demo.MODEL, "cpu") as model, read_scan(demo.SCAN, 64, options) as scan:
        return model.reconstruct(scan, ReconstructOptions(crop_px=24))


def written(result: Reconstruction, folder: Path, suffix: str) -> Path:
    return write_product(result, Target(folder / f"object{suffix}"))[0]


def said(path: Path) -> dict[str, str]:
    """Return a product's provenance as its own format holds it."""
    if path.suffix in (".h5", ".cxi"):
        with h5py.File(path) as file:
            process = file[file.attrs["default"]]["process"]
            return {name: process[name].asstr()[()] for name in process}
    if path.suffix == ".npz":
        with np.load(path) as data:
            return {name: str(data[name]) for name in SAID}
    with Image.open(path) as image:
        if path.suffix == ".png":
            return dict(image.info)
        described = ElementTree.fromstring(image.tag_v2[270])
    return {entry.attrib["K"]: entry.text or "" for entry in described.iter(f"{_OME}M")}


@pytest.mark.parametrize("suffix", [".h5", ".cxi", ".npz", ".tif", ".png"])
def test_provenance_is_in_every_product(suffix: str, result: Reconstruction, tmp_path: Path) -> None:
    found = said(written(result, tmp_path, suffix))
    assert found.keys() >= SAID
    assert (found["bundle"], found["scan"]) == ("model.onnx", "scan.npz")
    assert found["bundle_sha256"] == hashlib.sha256(demo.MODEL.read_bytes()).hexdigest()
    assert found["scan_sha256"] == hashlib.sha256(demo.SCAN.read_bytes()).hexdigest()
    assert json.loads(found["options"]) == {
        "scan": {"domain": "intensity", "pixel_size_m": PIXEL_M, "every": 6},
        "image": {"crop_px": 24},
    }
    assert found["verdict"] == result.trust.verdict
    assert f"numpy {np.__version__}" in found["versions"]
    assert found["finished"].endswith("+00:00")


@pytest.mark.parametrize("suffix", [".h5", ".cxi"])
def test_hdf5_opens_at_the_phase_over_its_axes(suffix: str, result: Reconstruction, tmp_path: Path) -> None:
    with h5py.File(written(result, tmp_path, suffix)) as file:
        entry = file[file.attrs["default"]]
        shown = entry[entry.attrs["default"]]
        assert [group.attrs["NX_class"] for group in (file, entry, shown)] == ["NXroot", "NXentry", "NXdata"]
        assert shown.attrs["signal"] == "phase"
        assert list(shown.attrs["axes"]) == ["y", "x"]
        assert [shown[name].attrs["units"] for name in ("phase", "amplitude", "x", "y")] == ["rad", "1", "m", "m"]
        covered = result.canvas.covered
        assert np.array_equal(np.isfinite(shown["phase"][()]), covered)
        assert not covered.all()
        np.testing.assert_allclose(shown["phase"][()][covered], np.angle(result.object)[covered], atol=1e-6)
        # A position lies on the pixel that its patch's middle was put on.
        np.testing.assert_allclose(shown["x"][0], result.canvas.x0_px * PIXEL_M)
        np.testing.assert_allclose(np.diff(shown["x"][()]), PIXEL_M)
        assert shown["phase_errors"].shape == shown["phase"].shape


def test_tiff_names_its_pages_and_knows_its_pixel(result: Reconstruction, tmp_path: Path) -> None:
    with Image.open(written(result, tmp_path, ".tif")) as image:
        names, pages = [], []
        for number in range(image.n_frames):
            image.seek(number)
            names.append(image.tag_v2[285])
            pages.append(np.array(image))
            assert image.tag_v2[296] == 3
            assert float(image.tag_v2[282]) == pytest.approx(0.01 / PIXEL_M)
        image.seek(0)
        pixels = ElementTree.fromstring(image.tag_v2[270]).find(f".//{_OME}Pixels")
    assert tuple(names) == PAGES
    assert pixels is not None
    assert float(pixels.attrib["PhysicalSizeX"]) == pytest.approx(PIXEL_M * 1e6)
    assert pixels.attrib["PhysicalSizeXUnit"] == "µm"
    for page in pages:
        assert np.array_equal(np.isfinite(page), result.canvas.covered)


def test_scan_that_is_gone_has_no_digest(tmp_path: Path) -> None:
    assert Origin(scan="a", scan_path=tmp_path / "gone.npz").scan_sha256 == ""
    assert "scan_sha256" not in Origin(scan="a").facts()


def test_options_that_were_given_are_said_and_paths_by_name() -> None:
    assert changed(ReadOptions(mask_file=Path("/secret/place/mask.npy"), flip_x=True)) == {
        "mask_file": "mask.npy",
        "flip_x": True,
    }
    assert changed(None) == {}


def test_name_that_is_no_utf_8_is_kept_escaped() -> None:
    assert Origin(bundle="b.zip", scan="\udcff.npz").facts()["scan"] == "\\udcff.npz"
