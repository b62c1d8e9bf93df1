"""Parity cannot pass by accident."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters.parity import ParityReport, ParityRow  # noqa: E402
from exporters.parity.inputs import EDGES, make_pool  # noqa: E402
from exporters.parity.markdown import compare, to_markdown  # noqa: E402
from exporters.parity.matrix import judge, run_parity  # noqa: E402
from exporters.parity.metrics import budget, field_errors  # noqa: E402
from exporters.parity.report import read_report  # noqa: E402
from ptycho_runtime.metrics import errors  # noqa: E402
from ptycho_torch.errors import BundleError  # noqa: E402
from ptycho_torch.spec import ModelSpec  # noqa: E402

SPEC = ModelSpec(era="J", generator="cnn", N=64, gridsize=2)
SHAPES: dict[str, tuple[list[int | str], str]] = {
    "object_real": (["batch", 1], "float32"),
    "object_imag": (["batch", 1], "float32"),
}


def row(**values: Any) -> ParityRow:
    return ParityRow(
        **{
            "graph": "g",
            "runtime": "onnx",
            "device": "cpu",
            "precision": "float32",
            "batch": 1,
            "inputs": "x",
            "verdict": "passed",
            **values,
        }
    )


def judged(**outputs: np.ndarray) -> ParityRow:
    reference = {"object_real": np.ones((2, 1)), "object_imag": np.full((2, 1), 2.0)}
    eager32 = {k: (v * (1 + 1e-7)).astype(np.float32) for k, v in reference.items()}
    found = {k: v.astype(np.float32) for k, v in reference.items()} | outputs
    made = row()
    judge(made, {k: v for k, v in found.items() if v is not None}, reference, eager32, SHAPES)
    return made


class TestJudge:
    def test_equal_outputs_pass(self) -> None:
        assert judged().verdict == "passed"

    @pytest.mark.parametrize(
        ("output", "reason"),
        [
            (None, "outputs"),
            (np.ones((2, 1)), "float64"),
            (np.ones((1, 1), np.float32), r"(1, 1)"),
            (np.full((2, 1), np.nan, np.float32), "2 values that are not finite"),
            (np.array([[1.0], [np.inf]], np.float32), "1 values that are not finite"),
        ],
    )
    def test_what_is_missing_or_of_another_kind_fails(self, output: Any, reason: str) -> None:
        made = judged(object_real=output)
        assert made.verdict == "failed"
        assert reason in made.reason

    def test_error_beyond_the_budget_fails(self) -> None:
        made = judged(object_real=np.full((2, 1), 1.0 + 3e-6, np.float32))
        assert made.verdict == "failed"
        assert made.worst()[0] == "object_real"
        assert made.worst()[1] > 1.0


class TestBudget:
    def test_four_times_eager_float32s_own_error(self) -> None:
        reference, eager32 = np.ones(1000), np.ones(1000, np.float32)
        eager32[7] += 1e-3
        assert budget("object_real", eager32, reference).max_abs == pytest.approx(4e-3, rel=1e-3)

    def test_a_lucky_maximum_counts_as_eight_times_the_root_mean_square(self) -> None:
        eager32 = np.full(1000, 1.0 + 2.0**-20, np.float32)
        assert budget("object_real", eager32, np.ones(1000)).max_abs == pytest.approx(32 * 2.0**-20)

    def test_floor_is_eight_ulps_of_the_largest_magnitude(self) -> None:
        reference = np.array([0.0, 3.0])
        allowed = budget("object_real", reference.astype(np.float32), reference)
        assert allowed.max_abs == pytest.approx(8 * 2.0**-22)
        assert allowed.rel_l2 <= 8 * 2.0**-23

    def test_zero_reference_allows_nothing_relative(self) -> None:
        allowed = budget("object_real", np.zeros(4, np.float32), np.zeros(4))
        assert allowed.rel_l2 == 0.0
        assert errors("object_real", np.full(4, 1e-6), np.zeros(4))[1] == float("inf")

    def test_phase_may_differ_by_a_turn_only_at_the_cut(self) -> None:
        reference = np.array([np.pi, 1.0])
        assert errors("phase", np.array([-np.pi, 1.0]), reference)[0] == pytest.approx(0.0, abs=1e-12)
        assert errors("phase", np.array([np.pi, 1.0 + 2 * np.pi]), reference)[0] == pytest.approx(2 * np.pi)

    def test_phase_error_is_weighted_by_amplitude(self) -> None:
        reference = {"amplitude": np.array([1.0, 1e-6]), "phase": np.array([0.0, 0.0])}
        found = {"amplitude": np.array([1.0, 1e-6]), "phase": np.array([0.01, 3.0])}
        assert field_errors(found, reference)["phase_rad"] == pytest.approx(0.01, rel=1e-3)


class TestReport:
    def rows(self) -> list[ParityRow]:
        share = {"x": {"share": 0.5, "max_abs": 1e-7, "rel_l2": 1e-7, "allowed_max_abs": 1.0, "allowed_rel_l2": 1.0}}
        return [row(runtime="onnx", outputs=share), row(runtime="torchscript", outputs=share)]

    def test_no_rows_is_no_pass(self) -> None:
        assert not ParityReport("b", []).passed

    def test_rows_that_did_not_run_are_no_pass(self) -> None:
        report = ParityReport("b", [row(verdict="not run", reason="no CUDA device")])
        assert not report.passed
        assert report.summary() == "parity failed: nothing was compared"

    def test_every_stored_format_must_have_been_compared(self) -> None:
        assert ParityReport("b", self.rows()).passed
        assert not ParityReport("b", self.rows()[:1]).passed

    def test_a_row_without_figures_is_no_pass(self) -> None:
        assert not ParityReport("b", [row(), row(runtime="torchscript")]).passed

    def test_a_problem_with_a_stored_file_is_no_pass(self) -> None:
        assert not ParityReport("b", self.rows(), problems=["model.onnx is another"]).passed

    def test_required_device_that_did_not_run(self) -> None:
        rows = [*self.rows(), row(device="cuda", verdict="not run", reason="no CUDA device")]
        assert ParityReport("b", rows, ("cuda",)).missing_devices() == ["cuda"]
        assert ParityReport("b", rows, ("tensorrt",)).missing_devices() == ["tensorrt"]

    def test_json_round_trip(self) -> None:
        report = ParityReport("b", self.rows(), ("cuda",), {"python": "3"}, {"groups": 3}, ["p"])
        assert ParityReport.from_json(report.to_json()) == report
        with pytest.raises(ValueError, match="schema"):
            ParityReport.from_json(json.dumps({"schema": "other"}))


class TestInputs:
    def test_pool_is_the_same_every_time(self) -> None:
        first, second = make_pool(SPEC, 8), make_pool(SPEC, 8)
        assert all(np.array_equal(first.feed[k], second.feed[k]) for k in first.feed)

    def test_edges_are_in_it(self) -> None:
        pool = make_pool(SPEC, 8)
        assert pool.kinds[1:5] == list(EDGES)
        zero, one, saturated = (pool.feed["diffraction"][i] for i in (1, 2, 3))
        assert not zero.any()
        assert one.sum() == one.shape[0]
        assert saturated.max() <= np.sqrt(65535) + 1e-3

    def test_scan_gives_its_own_patterns(self) -> None:
        from sample_bundles import ROOT

        pool = make_pool(
            ModelSpec(era="J", generator="cnn", N=64, gridsize=1), 8, ROOT / "examples" / "demo" / "scan.npz"
        )
        assert pool.kinds[0] == "scan"
        with np.load(ROOT / "examples" / "demo" / "scan.npz") as scan:
            assert np.array_equal(pool.feed["diffraction"][0, 0], scan["diff3d"][0])

    def test_scan_of_another_pattern_size_is_refused(self, tmp_path: Any) -> None:
        np.savez(tmp_path / "s.npz", diff3d=np.ones((3, 32, 32)), probeGuess=np.ones((32, 32)))
        with pytest.raises(BundleError, match=r"the model takes \(n, 64, 64\)"):
            make_pool(SPEC, 8, tmp_path / "s.npz")


def test_no_batches_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        run_parity({}, SPEC, {}, batches=())


class TestMarkdownAndCompare:
    def report(self, **changes: Any) -> ParityReport:
        figures = {
            "share": 0.5,
            "max_abs": 1e-7,
            "rel_l2": 1e-7,
            "allowed_max_abs": 2e-7,
            "allowed_rel_l2": 2e-7,
            **changes,
        }
        rows = [row(runtime=runtime, outputs={"x": dict(figures)}) for runtime in ("onnx", "torchscript")]
        rows.append(row(device="cuda", verdict="not run", reason="no CUDA device"))
        return ParityReport("b", rows, (), {"platform": "here", "packages": {"torch": "2.13"}})

    def test_table_has_figures_and_reasons(self) -> None:
        text = to_markdown(self.report())
        assert "| g | onnx | cpu | float32 | 1 | 1.0e-07 | 1.0e-07 | 0.50 | passed |" in text
        assert "not run: no CUDA device" in text

    def test_equal_reports_differ_in_nothing(self) -> None:
        assert compare(self.report(), self.report(max_abs=1.5e-7)) == []

    def test_changes_are_named(self) -> None:
        other = self.report(rel_l2=1e-5)
        other.host["packages"]["torch"] = "2.14"
        other.rows[0].verdict, other.rows[0].reason = "failed", "x is NaN"
        lines = compare(self.report(), other)
        assert "verdict: passed → failed" in lines
        assert "torch: 2.13 → 2.14" in lines
        assert "g onnx cpu float32 batch 1: passed → failed (x is NaN)" in lines
        assert "g torchscript cpu float32 batch 1: x rel_l2 1.0e-07 → 1.0e-05" in lines

    def test_report_file_that_is_none(self, tmp_path: Any) -> None:
        (tmp_path / "r.json").write_text("{}")
        with pytest.raises(BundleError, match="is no parity report"):
            read_report(tmp_path / "r.json")
