"""The bench's whole reconstruction: what is written for it, what is measured, and how the report says it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("rich")
sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))

from one_layer import write_model, write_scan

import ptycho_runtime
from exporters.bench import end_to_end as module
from exporters.bench.end_to_end import EndToEnd, end_to_end, measured, write_long
from exporters.bench.report import BenchReport
from exporters.bench.tables import to_markdown

FOUND = EndToEnd(
    patterns=1000, engine="onnxruntime float32, batch 16, 2 threads", look_s=1.0, reconstruct_s=4.0, session_s=3.6,
    verdict_s=0.2, alone_per_s=275.0,
)  # fmt: skip


def report(found: EndToEnd | None) -> BenchReport:
    return BenchReport("demo", 2, 1, 1000, rows=[], costs=[], limits={}, end_to_end=found)


def test_fields_lie_beyond_each_others_reach_and_have_the_scans_patterns(tmp_path: Path) -> None:
    with ptycho_runtime.read_scan(write_scan(tmp_path / "scan.npz", side=6, probe=True), 32) as short:
        options = write_long(tmp_path / "long.h5", short, 100, 32)
        with ptycho_runtime.read_scan(tmp_path / "long.h5", 32, options) as long:
            assert len(long) == 100
            for field in range(2):
                own = long.positions_px[36 * field : 36 * (field + 1)]
                others = np.delete(long.positions_px, np.s_[36 * field : 36 * (field + 1)], axis=0)
                assert np.abs(own[:, None] - others).max(-1).min() >= 2 * 32
            last = long.patterns(np.array([99]), 32, "amplitude")
            np.testing.assert_array_equal(last, short.patterns(np.array([99 % 36]), 32, "amplitude"))
            assert long.probe is not None and short.probe is not None
            np.testing.assert_array_equal(long.probe, short.probe)


def test_what_is_measured_is_a_whole_reconstruction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "_ALONE_S", 0.01)
    model, scan = write_model(tmp_path / "model.onnx"), write_scan(tmp_path / "scan.npz", probe=True)
    found = measured(str(model), scan, 80, tmp_path)
    assert found.patterns == 80
    assert found.engine.startswith("onnxruntime float32, batch 16, ")
    assert found.stored_bytes == (tmp_path / "long.h5").stat().st_size
    assert 0 < found.session_s < found.reconstruct_s
    assert 0 < found.verdict_s < found.reconstruct_s
    assert min(found.look_s, found.alone_per_s) > 0


def test_what_stops_it_is_the_reason(tmp_path: Path) -> None:
    found = end_to_end(str(tmp_path / "none.zip"), tmp_path / "none.npz", 80, 1)
    assert found.reason.startswith("its process ended with code 1: FileNotFoundError: ")
    assert report(found).missing() == [("end to end", "cpu", found.reason)]
    assert [target.verdict for target in report(found).targets()][-5:-3] == ["not measured", "not measured"]


def test_shares_and_rates() -> None:
    assert (FOUND.share, FOUND.share_of_all) == pytest.approx((0.9, 0.72))
    assert (FOUND.rate, FOUND.rate_of_all) == pytest.approx((1000 / 4 / 275, 1000 / 5 / 275))


def test_report_has_the_rows_the_goals_and_comes_back_from_json() -> None:
    text = to_markdown(report(FOUND))
    for line in (
        "| end to end, 1000 patterns: share of the time in the session | ≥ 0.85 | 0.90 | reached |",
        "| end to end, 1000 patterns: rate over the session's alone | ≥ 0.9 | 0.91 | reached |",
        "| share of the time in the session | 0.90 | 0.72 |",
        "| patterns/s | 250 | 200 |",
    ):
        assert line in text.splitlines()
    assert BenchReport.from_json(report(FOUND).to_json()) == report(FOUND)
    slower = replace(FOUND, reconstruct_s=4.5)
    assert [target.verdict for target in report(slower).targets() if "end to end" in target.text] == [
        "not reached",
        "not reached",
    ]


def test_without_a_scan_there_are_no_such_rows() -> None:
    assert not [target for target in report(None).targets() if "end to end" in target.text]
    assert "end to end" not in to_markdown(report(None)).lower()
