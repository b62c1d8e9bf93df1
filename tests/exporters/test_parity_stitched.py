"""Fourier ring correlation and structural similarity between stitched objects."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sample_bundles import DEMO
from shared_exports import TINY

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters import ExportResult, pipeline, verify_bundle  # noqa: E402
from exporters.options import ProofOptions  # noqa: E402
from exporters.parity import baseline, stitched  # noqa: E402
from exporters.parity.forms.reading import report_from_json  # noqa: E402
from exporters.parity.inputs import Source  # noqa: E402
from exporters.parity.report import ParityReport  # noqa: E402
from exporters.parity.rows import StitchedRow  # noqa: E402
from exporters.parity.stitched import figures, ring_correlation  # noqa: E402
from exporters.preflight import usable_scan  # noqa: E402
from ptycho_runtime.contract import EXPORTS_JSON, onnx_member  # noqa: E402
from ptycho_runtime.errors import OutputError  # noqa: E402
from ptycho_runtime.export.bundle import open_export  # noqa: E402
from ptycho_runtime.export.record import TrustBaseline  # noqa: E402

Exported = Callable[[str], ExportResult]
TRAINED = "cnn-2026-07-n64-g1-demo"
SCAN = DEMO.parent / "scan.npz"


def random() -> np.random.Generator:
    """Return the same numbers to each test, whichever ran before it."""
    return np.random.default_rng(5)


def noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


OBJECT = np.exp(1j * random().uniform(-1, 1, (48, 56))) * random().uniform(0.5, 1.5, (48, 56))
COVERED = np.ones(OBJECT.shape, bool)


def test_equal_objects_have_no_deficit() -> None:
    assert figures(OBJECT, OBJECT, COVERED) == pytest.approx((0.0, 0.0, 0.0), abs=1e-14)


def test_independent_noise_does_not_correlate() -> None:
    other = noise(6, OBJECT.shape)
    assert np.median(ring_correlation(OBJECT - OBJECT.mean(), other)) < 0.3


def test_a_known_share_of_noise_gives_its_correlation() -> None:
    # Two images s + n1, s + n2 of equal noise power correlate like S / (S + N).
    signal, first, second = (noise(seed, (256, 256)) for seed in (7, 8, 9))
    found = ring_correlation(signal + 0.5 * first, signal + 0.5 * second)[8:]
    assert found.mean() == pytest.approx(1 / 1.25, abs=0.01)


@pytest.mark.parametrize("error", [1e-3, 1e-2])
def test_deficits_fall_with_the_square_of_the_error(error: float) -> None:
    other = noise(10, OBJECT.shape)
    one, ten = (figures(OBJECT + e * other, OBJECT, COVERED) for e in (error, error / 10))
    assert np.array(one) / np.array(ten) == pytest.approx([100.0] * 3, rel=0.3)


def test_what_is_not_finite_agrees_with_nothing() -> None:
    bad = OBJECT.copy()
    bad[3, 3] = np.nan
    assert figures(bad, OBJECT, COVERED) == (np.inf, np.inf, np.inf)


def test_a_runtime_that_stitches_another_object_fails_the_report() -> None:
    good = StitchedRow("eager", "cpu", 9, 1e-12, 1e-12, 1e-12, (1e-9, 1e-9, 1e-9))
    bad = StitchedRow("onnx", "cpu", 9, 1e-3, 1e-12, 1e-12, (1e-9, 1e-9, 1e-9))
    report = ParityReport("b", [], stitched=[good, bad])
    assert not report.passed
    assert (
        report.summary()
        == "parity failed: the object that onnx stitches on cpu differs (1−FRC, 1−SSIM: 1.0e-03, 1.0e-12, 1.0e-12)"
    )


def checksums(bundle: Path) -> dict[str, int]:
    """Return the checksum of each member but `exports.json`, in their order."""
    with zipfile.ZipFile(bundle) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist() if entry.filename != EXPORTS_JSON}


@pytest.fixture
def few_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stitched, "MAX_PATTERNS", 48)
    monkeypatch.setattr(baseline, "MAX_PATTERNS", 48)


def stitched_and_stored(bundle: Path) -> TrustBaseline:
    """Verify a bundle with the demo's scan, look at what was stitched, and return what is stored of it."""
    before = checksums(bundle)
    report = verify_bundle(bundle, scan=SCAN, batches=(1,), store_baseline=True)
    assert report.passed
    assert [row.runtime for row in report.stitched] == ["eager", "torchscript", "onnx"]
    assert all(row.patterns == 48 and max(row.deficits) < 1e-9 for row in report.stitched)
    assert report_from_json(report.to_json()).stitched == report.stitched
    # The same pass stores what the model leaves unexplained, and nothing else changes.
    kept = open_export(bundle).record.trust_baseline
    assert kept is not None
    assert f"exports.json keeps as baseline of trust: on this scan {kept}" in report.notices
    assert checksums(bundle) == before
    return kept


@pytest.mark.usefixtures("few_patterns")
def test_scan_of_a_bundle_is_stitched_by_every_runtime(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = TrustBaseline(0.03, 0.04)  # an untrained model gives none
    monkeypatch.setattr(pipeline, "trust_baseline", lambda spec, onnx, source: (found, ""))
    assert stitched_and_stored(Path(shutil.copy(exported(TINY).bundle, tmp_path))) == found


@pytest.mark.long
@pytest.mark.usefixtures("few_patterns")
def test_scan_of_a_trained_bundle_is_stitched_by_every_runtime(exported: Exported, tmp_path: Path) -> None:
    kept = stitched_and_stored(Path(shutil.copy(exported(TRAINED).bundle, tmp_path)))
    assert 0.01 < kept.disagreement < 0.06


@pytest.mark.usefixtures("few_patterns")
def test_baseline_is_what_a_trained_model_leaves_unexplained(exported: Exported) -> None:
    result = exported(TRAINED)
    scan = usable_scan(result.spec, ProofOptions(scan=SCAN))
    file = (result.folder / onnx_member("diffraction_to_obj")).read_bytes()
    found, why_not = baseline.trust_baseline(result.spec, file, Source(scan=scan))
    assert found is not None, why_not
    assert 0.01 < found.disagreement < 0.06


def test_baseline_without_a_scan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="give --scan SCAN with --store-baseline"):
        verify_bundle(tmp_path, store_baseline=True)
