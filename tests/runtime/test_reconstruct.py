"""The demo's scan gives its sample back; pieces work together and fail loudly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_bundles import ROOT, golden

import ptycho_runtime
from ptycho_runtime import contract
from ptycho_runtime.image.core import Graphs
from ptycho_runtime.image.options import ReconstructOptions
from ptycho_runtime.image.products.target import check_target
from ptycho_runtime.image.products.write import write_product
from ptycho_runtime.image.reconstruct import reconstruct
from ptycho_runtime.image.result import Reconstruction
from ptycho_runtime.image.stitch import Stitcher
from ptycho_runtime.image.trust.residual import residuals
from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import read_scan

SCAN = ROOT / "examples" / "demo" / "scan.npz"


@pytest.fixture(scope="module")
def model(demo: Path) -> ptycho_runtime.Reconstructor:
    return ptycho_runtime.open(demo, "cpu")


@pytest.fixture(scope="module")
def result(model: ptycho_runtime.Reconstructor) -> Any:
    return model.reconstruct(read_scan(SCAN, 64))


def write(result: Reconstruction, path: Path) -> list[Path]:
    return write_product(result, check_target(path, {}))


def aligned(result: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (object, truth, mask) with global phase, phase ramp and sub-pixel shift taken out."""
    from scipy.ndimage import fourier_shift
    from skimage.registration import phase_cross_correlation

    canvas = result.canvas
    rows = np.arange(canvas.object.shape[0]) + round(canvas.y0_px)
    columns = np.arange(canvas.object.shape[1]) + round(canvas.x0_px)
    truth = result.scan.truth[np.ix_(rows, columns)]
    mask = canvas.coverage > 0.2 * canvas.coverage.max()
    ratio = np.where(mask, canvas.object * np.conj(truth), 0)
    step_y = np.angle((ratio[1:] * np.conj(ratio[:-1])).sum())
    step_x = np.angle((ratio[:, 1:] * np.conj(ratio[:, :-1])).sum())
    y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    flat = canvas.object * np.exp(-1j * (step_y * y + step_x * x))
    flat = flat * np.exp(-1j * np.angle((flat * np.conj(truth))[mask].sum()))
    middle = slice(40, -40), slice(40, -40)
    shift = phase_cross_correlation(np.angle(truth[middle]), np.angle(flat[middle]), upsample_factor=20)[0]
    assert np.abs(shift).max() <= 1.0, "the object lies where the scan says"
    moved = np.fft.ifft2(fourier_shift(np.fft.fft2(np.where(mask, flat, truth)), shift))
    return moved, truth, mask


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def ring_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the Fourier ring correlation of two square images, one value a ring of one pixel."""
    window = np.outer(np.hanning(len(a)), np.hanning(len(a)))
    fa, fb = (np.fft.fftshift(np.fft.fft2((i - i.mean()) * window)) for i in (a, b))
    y, x = np.indices(a.shape) - len(a) // 2
    ring = np.hypot(y, x).astype(int).ravel()
    total = [np.bincount(ring, v.ravel()) for v in ((fa * np.conj(fb)).real, np.abs(fa) ** 2, np.abs(fb) ** 2)]
    return (total[0] / np.sqrt(total[1] * total[2]))[: len(a) // 2]


def test_stitched_demo_shows_the_sample(result: Any, record_property: Any) -> None:
    found, truth, mask = aligned(result)
    phase, amplitude = (
        correlation(np.angle(found)[mask], np.angle(truth)[mask]),
        correlation(np.abs(found)[mask], np.abs(truth)[mask]),
    )
    square = slice(48, 176), slice(48, 176)
    frc = ring_correlation(np.angle(found[square]), np.angle(truth[square]))
    record_property("phase_correlation", phase)
    record_property("frc", frc.tolist())
    assert phase >= 0.995
    assert amplitude >= 0.984
    assert frc[1:9].mean() >= 0.9


@pytest.fixture(scope="module")
def large_scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the demo's scan laid side by side three times in both directions: 3,600 patterns."""
    with np.load(SCAN) as data:
        arrays = {name: data[name] for name in ("diff3d", "xcoords", "ycoords", "probeGuess")}
    x, y = (arrays[name].copy() for name in ("xcoords", "ycoords"))
    arrays["xcoords"] = np.concatenate([x + 200 * column for _ in range(3) for column in range(3)])
    arrays["ycoords"] = np.concatenate([y + 200 * row for row in range(3) for _ in range(3)])
    arrays["diff3d"] = np.tile(arrays["diff3d"], (9, 1, 1))
    path = tmp_path_factory.mktemp("large") / "scan.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.long
@pytest.mark.parametrize("quality", [False, True])
def test_large_scan_spends_its_time_in_the_session(
    quality: bool, model: ptycho_runtime.Reconstructor, large_scan: Path
) -> None:
    found = model.reconstruct(read_scan(large_scan, 64), ReconstructOptions(quality=quality))
    assert found.done == 3600
    assert np.isfinite(found.trust.scores.residual).any() == quality
    assert found.timing.session_seconds >= 0.85 * found.timing.seconds


@pytest.mark.long
def test_what_is_done_beside_the_session_is_little(model: ptycho_runtime.Reconstructor, large_scan: Path) -> None:
    """Reading, stitching and residuals of a batch: a few hundredths of the processor time that its run takes."""
    scan = read_scan(large_scan, 64)
    which = np.arange(16)
    patterns = scan.patterns(which, 64, "amplitude")
    feed = {contract.DIFFRACTION: patterns[:, None], contract.INPUT_SCALE: np.full((16, 1, 1, 1), 0.03, np.float32)}
    found = model.patches.run(feed)
    real, imag = found[contract.OBJECT_REAL][:, 0], found[contract.OBJECT_IMAG][:, 0]
    stitcher = Stitcher(scan.positions_px, 64)

    def beside() -> None:
        scan.patterns(which, 64, "amplitude")
        stitcher.add_parts(real, imag, scan.positions_px[which])
        residuals(patterns, np.abs(real), model.export)

    def cost(work: Callable[[], object]) -> float:
        before = time.process_time()
        work()
        return time.process_time() - before

    pairs = [(cost(beside), cost(lambda: model.patches.run(feed))) for _ in range(30)]
    assert min(b for b, _ in pairs) <= 0.05 * min(run for _, run in pairs)


def test_patches_equal_ptychopinns(model: ptycho_runtime.Reconstructor) -> None:
    wanted = golden("cnn-2026-07-n64-g1-demo")
    found = model.predict(wanted["x"], wanted["input_scale_factor"].ravel())
    assert found.dtype == np.complex64
    assert np.linalg.norm(found - wanted["object_patches"]) <= 1e-5 * np.linalg.norm(wanted["object_patches"])


def test_groups_of_four(group_model: Path) -> None:
    four = ptycho_runtime.open(group_model, "cpu")
    wanted = golden("cnn-2026-07-n64-g2")
    found = four.predict(wanted["x"], wanted["input_scale_factor"].ravel())
    assert np.linalg.norm(found - wanted["object_patches"]) <= 1e-5 * np.linalg.norm(wanted["object_patches"])
    stitched = four.reconstruct(read_scan(SCAN, 64))
    assert stitched.done == stitched.groups == 400
    assert np.isfinite(stitched.object).all()
    assert np.isfinite(stitched.trust.scores.residual).all()
    assert np.isfinite(stitched.trust.scores.disagreement).all()


def test_scan_by_batches_of_any_size_is_the_same(model: ptycho_runtime.Reconstructor) -> None:
    first, other = (
        reconstruct(model.export, Graphs(model.patches, batch=batch), read_scan(SCAN, 64, ReadOptions(rows=(100, 200))))
        for batch in (16, 37)
    )
    assert np.abs(other.object - first.object).max() <= 1e-5


def test_pattern_that_does_not_belong_is_flagged(model: ptycho_runtime.Reconstructor, tmp_path: Path) -> None:
    with np.load(SCAN) as data:
        arrays = dict(data)
    arrays["diff3d"] = arrays["diff3d"].copy()
    arrays["diff3d"][123] = np.roll(arrays["diff3d"][123], 17, axis=1)
    np.savez(tmp_path / "s.npz", **arrays)
    found = model.reconstruct(read_scan(tmp_path / "s.npz", 64))
    assert found.trust.flagged[123]
    assert found.trust.flagged.sum() <= 4


def test_ctrl_c_keeps_what_is_finished(model: ptycho_runtime.Reconstructor, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 64:
            raise KeyboardInterrupt

    found = model.reconstruct(read_scan(SCAN, 64), progress=stop)
    assert found.partial
    assert 64 <= found.done < 400
    write(found, tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as data:
        assert bool(data["partial"])
        assert np.abs(data["object"]).max() > 0.1
    assert "scan reader" not in [thread.name for thread in threading.enumerate()]


def test_threads_may_share_a_model(model: ptycho_runtime.Reconstructor) -> None:
    x = golden("cnn-2026-07-n64-g1-demo")["x"]
    expected = model.predict(x, 0.03)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(model.predict(x, 0.03))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(np.array_equal(f, expected) for f in found)


@pytest.mark.parametrize("shape", [(64, 64), (3, 64, 64), (3, 1, 64, 64)])
def test_predict_gives_back_the_shape_it_got(shape: tuple[int, ...], model: ptycho_runtime.Reconstructor) -> None:
    assert model.predict(np.ones(shape)).shape == shape


@pytest.mark.parametrize(
    "bad", [np.ones((2, 32, 32)), np.ones((1, 4, 64, 64)), np.full((64, 64), np.nan), -np.ones((64, 64)), np.ones(64)]
)
def test_predict_refuses(bad: np.ndarray, model: ptycho_runtime.Reconstructor) -> None:
    with pytest.raises(ptycho_runtime.ReconstructionError):
        model.predict(bad)


class TestProducts:
    def test_npz_holds_the_object(self, result: Any, tmp_path: Path) -> None:
        written = write(result, tmp_path / "o.npz")
        assert [p.name for p in written] == ["o.npz", "o.png"]
        with np.load(tmp_path / "o.npz") as data:
            assert np.iscomplexobj(data["object"])
            assert np.array_equal(data["object"], result.object)
            assert not data["partial"]

    def test_ptychodus_product(self, result: Any, tmp_path: Path) -> None:
        h5py = pytest.importorskip("h5py")
        write(result, tmp_path / "o.h5")
        with h5py.File(tmp_path / "o.h5") as file:
            assert {"name", "comments", "detector_object_distance_m", "probe_energy_eV", "exposure_time_s"} <= set(
                file.attrs
            )
            needed = {
                "probe_position_indexes",
                "probe_position_x_m",
                "probe_position_y_m",
                "probe",
                "object",
                "object_layer_spacing_m",
                "loss_values",
            }
            assert needed <= set(file)
            assert np.array_equal(file["object"][0], result.object)
            assert file["probe"].ndim == 4
            assert file["probe_position_indexes"][()].tolist() == list(range(400))
            # The demo's pixel has no size, so lengths are in pixels: x_px = x − center_x + W/2
            attributes = file["object"].attrs
            assert np.isnan(attributes["pixel_width_m"])
            columns = file["object"].shape[-1]
            pixel = file["probe_position_x_px"][0] - attributes["center_x_px"] + columns / 2
            assert pixel == pytest.approx(result.scan.positions_px[0, 0] - result.canvas.x0_px)
            assert file["pattern_residual"].shape == (400,)

    def test_cxi_and_tiff_and_png(self, result: Any, tmp_path: Path) -> None:
        h5py = pytest.importorskip("h5py")
        from PIL import Image

        for name in ("o.cxi", "o.tif", "p.png"):
            write(result, tmp_path / name)
        with h5py.File(tmp_path / "o.cxi") as file:
            assert np.array_equal(file["entry_1/image_2/data"][()], result.object)
        with Image.open(tmp_path / "o.tif") as image:
            assert image.n_frames == 2
            page = np.asarray(image)
            measured = np.isfinite(page)
            assert np.array_equal(measured, result.object != 0)
            assert np.allclose(page[measured], np.abs(result.object[measured]))
        with Image.open(tmp_path / "p.png") as image:
            assert image.width > image.height > 300

    def test_other_suffixes_and_places_are_refused(self, result: Any, tmp_path: Path) -> None:
        with pytest.raises(ptycho_runtime.OutputError, match="expected one of"):
            write(result, tmp_path / "o.txt")
        (tmp_path / "file").touch()
        with pytest.raises(ptycho_runtime.OutputError, match="cannot be written"):
            write(result, tmp_path / "file" / "o.npz")
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
