"""The reconstructor of Ptychodus's own kind gives what the command line gives, at the place where Ptychodus looks for it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("ptychodus", reason="Ptychodus is not installed: make test-interop")

from ptychodus.api.assemble import AssembledDiffractionData
from ptychodus.api.geometry import PixelGeometry
from ptychodus.api.io import load_product, save_diffraction_data, save_product
from ptychodus.api.object import Object, ObjectCenter
from ptychodus.api.probe import ProbeSequence
from ptychodus.api.probe_positions import ProbePosition, ProbePositionSequence
from ptychodus.api.product import Product, ProductMetadata
from ptychodus.api.reconstruct import ReconstructInput, Reconstructor, prepare_reconstruct_input

import ptycho_runtime
from ptycho_runtime import OutputError, ReadOptions, ReconstructionError, demo

pytestmark = pytest.mark.interop
ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "ptychodus" / "reconstructor.py"
PIXEL_M = 2.0**-26  # divides without rounding, so that both canvases are the same
EVERY = 4


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ptychodus_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured() -> tuple[AssembledDiffractionData, Product]:
    """Return some of the demo's scan as Ptychodus holds it, under frame numbers of a detector's own."""
    with np.load(demo.SCAN) as data:
        counts, x, y, probe = (data[name] for name in ("diff3d", "xcoords", "ycoords", "probeGuess"))
    counts, places_m = counts[::EVERY], np.stack([x, y], -1)[::EVERY] * PIXEL_M
    numbers = 100 + 3 * np.arange(len(counts))
    data = AssembledDiffractionData(numbers, counts, PixelGeometry(75e-6, 75e-6), np.zeros(counts.shape[1:], bool))
    points = [ProbePosition(int(n), float(x_m), float(y_m)) for n, (x_m, y_m) in zip(numbers, places_m, strict=True)]
    pixel = PixelGeometry(PIXEL_M, PIXEL_M)
    product = Product(
        metadata=ProductMetadata("demo", "as measured", 1.9, 8800.0, 1e6, 0.1, 0.0, 0.0),
        probe_positions=ProbePositionSequence(points),
        probes=ProbeSequence(probe[None, None], None, pixel),
        object_=Object(np.ones((1, 8, 8), complex), pixel, ObjectCenter(0.0, 0.0)),
        losses=[],
    )
    return data, product


@pytest.fixture(scope="module")
def parameters(measured: tuple[AssembledDiffractionData, Product]) -> ReconstructInput:
    return prepare_reconstruct_input(*measured)


@pytest.fixture(scope="module")
def expected() -> ptycho_runtime.Reconstruction:
    options = ReadOptions(domain="intensity", every=EVERY)
    with ptycho_runtime.open(demo.MODEL, "cpu") as model, ptycho_runtime.read_scan(demo.SCAN, 64, options) as scan:
        return model.reconstruct(scan)


def test_the_product_holds_the_object_of_the_command_line(
    example: ModuleType, parameters: ReconstructInput, expected: ptycho_runtime.Reconstruction
) -> None:
    reconstructor = example.ExportedReconstructor("cpu")
    assert isinstance(reconstructor, Reconstructor)
    reconstructor.load_model_from_file(demo.MODEL)
    outputs = list(reconstructor.reconstruct(parameters))
    assert [output.progress for output in outputs] == [reconstructor.get_progress_goal()]
    product = outputs[0].product
    np.testing.assert_allclose(product.object_.get_layer(0), expected.object, atol=1e-6)
    assert f"as measured; ptycho-runtime: input_scale_factor {expected.input_scale_factor:.9g}" in (
        product.metadata.comments
    )
    assert expected.trust.verdict in product.metadata.comments
    assert list(product.probe_positions.get_indexes()[:3]) == [100, 103, 106]
    # Ptychodus cuts an even patch around a position out of the very pixels on which the runtime put it.
    geometry = product.object_.get_geometry()
    places = [geometry.map_coordinates_probe_to_object(position).x_px for position in product.probe_positions]
    columns = expected.scan.positions_px[:, 0] - expected.canvas.x0_px
    np.testing.assert_allclose(places, columns - 0.5)


def test_cropping_makes_pixels_larger_and_the_probe_follows(
    example: ModuleType, measured: tuple[AssembledDiffractionData, Product], parameters: ReconstructInput
) -> None:
    data, product = measured
    side = ((0, 0), (32, 32), (32, 32))
    wide = AssembledDiffractionData(
        data.get_indexes(), np.pad(data.get_patterns(), side), PixelGeometry(75e-6, 75e-6), np.zeros((128, 128), bool)
    )
    half = PixelGeometry(PIXEL_M / 2, PIXEL_M / 2)
    probe = product.probes.get_probe_no_opr().get_array()[0]
    spectrum = np.pad(np.fft.fftshift(np.fft.fft2(probe)), 32)
    fine = np.fft.ifft2(np.fft.ifftshift(spectrum)) * 4  # the same field, in pixels of half the size
    recorded = replace(product, probes=ProbeSequence(fine[None, None], None, half))
    with (
        example.scan_of(prepare_reconstruct_input(wide, recorded), 64, "crop") as cropped,
        example.scan_of(parameters, 64) as plain,
    ):
        np.testing.assert_allclose(cropped.positions_px, plain.positions_px)
        assert cropped.pixel_size_m == pytest.approx(PIXEL_M)
        np.testing.assert_allclose(cropped.probe, plain.probe, atol=1e-3 * np.abs(plain.probe).max())
        np.testing.assert_array_equal(cropped.patterns([3], 64, "counts"), plain.patterns([3], 64, "counts"))


def test_as_a_program_it_reads_and_writes_ptychodus_files(
    measured: tuple[AssembledDiffractionData, Product], expected: ptycho_runtime.Reconstruction, tmp_path: Path
) -> None:
    data, product = measured
    save_diffraction_data(tmp_path / "diffraction.h5", data)
    save_product(tmp_path / "product.h5", product)
    out = tmp_path / "out.h5"
    names = [str(demo.MODEL), str(tmp_path / "diffraction.h5"), str(tmp_path / "product.h5"), "-o", str(out)]
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *names, "--device", "cpu"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{expected.trust.verdict}: {out}\n"
    np.testing.assert_allclose(load_product(out).object_.get_layer(0), expected.object, atol=1e-6)


def test_bad_pixels_are_not_taken_as_measured(
    example: ModuleType, parameters: ReconstructInput, expected: ptycho_runtime.Reconstruction
) -> None:
    bad = np.zeros((64, 64), bool)
    bad[40, 12] = True
    counts = parameters.diffraction_patterns.copy()
    counts[:, 40, 12] = 60000
    reconstructor = example.ExportedReconstructor("cpu")
    reconstructor.load_model_from_file(demo.MODEL)
    masked = ReconstructInput(counts, bad, parameters.product)
    object_ = next(reconstructor.reconstruct(masked)).product.object_.get_layer(0)
    assert np.linalg.norm(object_ - expected.object) < 0.01 * np.linalg.norm(expected.object)


def test_what_it_cannot_do_is_refused(example: ModuleType, parameters: ReconstructInput, tmp_path: Path) -> None:
    reconstructor = example.ExportedReconstructor("cpu")
    with pytest.raises(ReconstructionError, match="load_model_from_file first"):
        next(reconstructor.reconstruct(parameters))
    reconstructor.load_model_from_file(demo.MODEL)
    near = replace(parameters.product, metadata=replace(parameters.product.metadata, far_field=False))
    with pytest.raises(ReconstructionError, match="near field"):
        next(reconstructor.reconstruct(replace(parameters, product=near)))
    with pytest.raises(OutputError, match="copy the file"):
        reconstructor.save_model(tmp_path / "model.zip")
    with pytest.raises(ReconstructionError, match="train with PtychoPINN"):
        reconstructor.train(tmp_path, tmp_path)


def test_the_library_lists_it(example: ModuleType) -> None:
    library = example.ExportedLibrary()
    assert [reconstructor.name for reconstructor in library] == ["PtychoPINN (exported)"]
    assert library.name == "PtychoPINN-export"
