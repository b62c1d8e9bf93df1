"""Parity cannot pass by accident."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from sample_bundles import ROOT

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters.parity.evidence import Case, Evidence  # noqa: E402
from exporters.parity.forms.markdown import compare, to_markdown  # noqa: E402
from exporters.parity.forms.reading import read_report, report_from_json  # noqa: E402
from exporters.parity.inputs import EDGES, FARTHEST, REACH_PX, WHOLE_PIXELS, Source, make_pool, open_scan  # noqa: E402
from exporters.parity.matrix import run_parity  # noqa: E402
from exporters.parity.metrics import budget, figures  # noqa: E402
from exporters.parity.prepare import telling_batches  # noqa: E402
from exporters.parity.report import ParityReport  # noqa: E402
from exporters.parity.rows import ParityRow  # noqa: E402
from exporters.parity.trials import GraphCase, Trial, judge, trial_rows  # noqa: E402
from ptycho_runtime.errors import ScanError  # noqa: E402
from ptycho_runtime.metrics import errors, field_errors  # noqa: E402
from ptycho_runtime.scan.grouping import group_neighbours, group_offsets  # noqa: E402
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

    def test_nothing_to_compare_fails(self) -> None:
        for reference, shapes in (
            ({}, {}),
            ({"object_real": np.ones((0, 1))}, {"object_real": (["batch", 1], "float32")}),
        ):
            made = row()
            judge(made, {k: v.astype(np.float32) for k, v in reference.items()}, reference, reference, shapes)
            assert (made.verdict, made.reason) == ("failed", "there was nothing to compare")

    @pytest.mark.parametrize("which", ["reference", "eager32"])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_reference_that_is_not_finite_lets_nothing_pass(self, which: str, value: float) -> None:
        shapes = {"object_real": SHAPES["object_real"]}
        arrays = {"reference": np.ones((2, 1)), "eager32": np.ones((2, 1), np.float32)}
        arrays[which][1] = value
        made = row()
        found = {"object_real": np.ones((2, 1), np.float32)}
        judge(made, found, {"object_real": arrays["reference"]}, {"object_real": arrays["eager32"]}, shapes)
        assert made.verdict == "failed"
        assert made.reason == "object_real: the eager model itself gives values that are not finite"

    def test_a_model_that_float32_cannot_compute_lets_nothing_pass(self) -> None:
        shapes = {"object_real": SHAPES["object_real"]}
        wanted, eager32 = {"object_real": np.ones((2, 1))}, {"object_real": np.full((2, 1), 1.5, np.float32)}
        made = row()
        judge(made, {"object_real": np.zeros((2, 1), np.float32)}, wanted, eager32, shapes)
        assert made.verdict == "failed"
        assert (
            made.reason
            == "object_real: the eager model's own rounding is a relative L2 of 5.0e-01, which proves nothing"
        )

    @pytest.mark.parametrize(
        ("device", "precision", "allowed"), [("cpu", "float32", 1.0), ("cuda", "float32", 2.0), ("cuda", "tf32", 1.0)]
    )
    def test_a_gpu_may_err_twice_as_much_in_float32(self, device: str, precision: str, allowed: float) -> None:
        wanted = {"object_real": np.ones((2, 1)), "object_imag": np.zeros((2, 1))}
        eager32 = {name: value.astype(np.float32) for name, value in wanted.items()}
        for share, verdict in ((0.75, "passed"), (1.25, "failed")):
            made = row()
            made.device, made.precision = device, precision
            judge(
                made,
                eager32 | {"object_real": np.full((2, 1), 1.0 + share * allowed * 8 * 2.0**-23, np.float32)},
                wanted,
                eager32,
                SHAPES,
            )
            assert made.verdict == verdict
            assert made.worst()[1] == pytest.approx(share)

    def test_error_beyond_the_budget_fails(self) -> None:
        made = judged(object_real=np.full((2, 1), 1.0 + 3e-6, np.float32))
        assert made.verdict == "failed"
        assert made.worst()[0] == "object_real"
        assert made.worst()[1] > 1.0


def limits(eager32: np.ndarray, reference: np.ndarray, name: str = "object_real") -> tuple[float, float]:
    allowed = budget(name, {name: eager32[None]}, {name: reference[None]})
    return float(allowed.max_abs[0]), float(allowed.rel_l2[0])


class TestBudget:
    def test_four_times_eager_float32s_own_error(self) -> None:
        reference, eager32 = np.ones(1000), np.ones(1000, np.float32)
        eager32[7] += 1e-4
        assert limits(eager32, reference)[0] == pytest.approx(4e-4, rel=1e-2)

    def test_a_lucky_maximum_counts_as_eight_times_the_root_mean_square(self) -> None:
        eager32 = np.full(1000, 1.0 + 2.0**-20, np.float32)
        assert limits(eager32, np.ones(1000))[0] == pytest.approx(32 * 2.0**-20)

    def test_one_bad_pixel_of_eager_allows_a_thousandth_of_the_signal_at_most(self) -> None:
        reference, eager32 = np.full(4096, 2.0), np.full(4096, 2.0, np.float32)
        eager32[7] += 0.1
        assert limits(eager32, reference)[0] == pytest.approx(2e-3)

    def test_a_coarse_eager_allows_a_thousandth_of_the_signal_at_most(self) -> None:
        eager32 = np.full(1000, 1.0 + 9e-4, np.float32)
        assert limits(eager32, np.ones(1000)) == pytest.approx((1e-3, 1e-3))

    def test_floor_is_eight_ulps_of_the_largest_magnitude(self) -> None:
        reference = np.array([0.0, 3.0])
        max_abs, rel_l2 = limits(reference.astype(np.float32), reference)
        assert max_abs == pytest.approx(8 * 2.0**-22)
        assert rel_l2 <= 8 * 2.0**-23

    def test_floor_of_a_predicted_pattern_follows_its_sums(self) -> None:
        for size, ulps in ((64, 24.0), (256, 48.0)):
            reference = np.ones((1, size, size))
            assert limits(reference.astype(np.float32), reference, "predicted_diffraction")[0] == ulps * 2.0**-23

    def test_each_group_is_judged_by_its_own_signal(self) -> None:
        reference = {"amplitude": np.array([[1.0], [1000.0]])}
        eager32 = {"amplitude": reference["amplitude"].astype(np.float32)}
        found = np.array([[1.00001], [1000.0]], np.float32)
        assert figures("amplitude", found, reference, budget("amplitude", eager32, reference))["share"] > 10.0

    def test_real_and_imaginary_part_are_measured_by_the_object(self) -> None:
        """An imaginary part that is all rounding fails nothing where the real part is the signal."""
        reference = {"object_real": np.ones((1, 100)), "object_imag": np.full((1, 100), 1e-9)}
        eager32 = {name: value.astype(np.float32) for name, value in reference.items()}
        allowed = budget("object_imag", eager32, reference)
        assert figures("object_imag", np.full((1, 100), 3e-7, np.float32), reference, allowed)["share"] < 0.5
        assert figures("object_imag", np.full((1, 100), 3e-6, np.float32), reference, allowed)["share"] > 2.0

    def test_phase_counts_where_there_is_amplitude(self) -> None:
        reference = {"amplitude": np.array([[1.0, 1.0, 1e-8]]), "phase": np.array([[0.5, 3.0, 2.0]])}
        eager32 = {name: value.astype(np.float32) for name, value in reference.items()}
        allowed = budget("phase", eager32, reference)
        noise = np.array([[0.5, 3.0, -1.0]], np.float32)
        assert figures("phase", noise, reference, allowed)["share"] < 0.5
        wrong = np.array([[0.5, 3.00002, 2.0]], np.float32)
        assert figures("phase", wrong, reference, allowed)["share"] > 2.0

    def test_zero_reference_allows_nothing(self) -> None:
        assert limits(np.zeros(4, np.float32), np.zeros(4)) == (0.0, 0.0)
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
        share = {"x": {"share": 0.5, "max_abs": 1e-7, "rel_l2": 1e-7, "allowed_max_abs": 2e-7, "allowed_rel_l2": 4e-7}}
        return [row(runtime=runtime, outputs=copy.deepcopy(share)) for runtime in ("onnx", "torchscript")]

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

    @pytest.mark.parametrize("runtime", ["onnx", "torchscript"])
    def test_required_device_that_did_not_run_is_no_pass(self, runtime: str) -> None:
        rows = [*self.rows(), row(runtime=runtime, device="cuda", verdict="not run", reason="no CUDA device")]
        assert ParityReport("b", rows).passed
        report = ParityReport("b", rows, ("cuda",))
        assert report.missing_devices() == ["cuda"]
        assert report.agrees
        assert not report.passed
        assert report.summary() == (
            "parity failed: required device did not run (cuda: no CUDA device); "
            "what ran passed: 2 rows on cpu, worst error 0.50 of what is allowed"
        )
        assert json.loads(report.to_json())["verdict"] == "failed"
        assert ParityReport("b", rows, ("tensorrt",)).missing_devices() == ["tensorrt"]

    def test_what_did_not_run_is_in_the_summary(self) -> None:
        rows = [*self.rows(), row(device="cuda", verdict="not run", reason="no CUDA device")]
        assert ParityReport("b", rows).summary() == (
            "parity passed: 2 rows on cpu, worst error 0.50 of what is allowed; not run: cuda"
        )

    def test_a_row_that_is_lost_is_no_pass(self) -> None:
        rows = self.rows()
        planned = tuple(r.cell for r in rows)
        assert ParityReport("b", rows, planned=planned).passed
        report = ParityReport("b", rows, planned=(*planned, ("g", "onnx", "cpu", "float32", 16)))
        assert not report.passed
        assert report.summary() == "parity failed: 1 planned rows are lost, the first is g onnx cpu float32 16"

    def test_a_graph_without_rows_is_no_pass(self) -> None:
        planned = tuple(r.cell for r in self.rows())
        assert not ParityReport("b", [], planned=planned).passed

    def written(self) -> ParityReport:
        rows = self.rows()
        return ParityReport(
            "b",
            rows,
            ("cuda",),
            {"python": "3", "packages": {}},
            {"groups": 3},
            ["p"],
            tuple(r.cell for r in rows),
            {"g": {}},
        )

    def test_json_round_trip(self) -> None:
        assert report_from_json(self.written().to_json()) == self.written()

    def test_infinite_shares_survive_json(self) -> None:
        report = self.written()
        report.rows[0].verdict = "failed"
        report.rows[0].outputs["x"] |= {"share": float("inf"), "rel_l2": float("inf")}
        assert report_from_json(report.to_json()) == report

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d.update(schema="other"), "schema 'other' 2"),
            (lambda d: d["rows"].pop(), "it has 1 rows; expected the 2 that were planned"),
            (lambda d: d["rows"].append(d["rows"][0]), "it has 3 rows"),
            (lambda d: d.update(verdict="passed"), "its verdict is 'passed', its rows say 'failed'"),
            (lambda d: d["rows"][0].update(verdict="fine"), "a row's verdict is 'fine'"),
            (
                lambda d: d["rows"][0]["outputs"]["x"].update(share=3.0, rel_l2=12e-7),
                "g onnx cpu float32 1: its verdict is 'passed', its x is beyond what is allowed",
            ),
            (
                lambda d: d["rows"][0]["outputs"]["x"].update(share=3.0),
                "x says its error is 3 of what is allowed; its figures say 0.5",
            ),
            (
                lambda d: d["rows"][0]["outputs"]["x"].update(rel_l2=2.0),
                "x says its error is 0.5 of what is allowed; its figures say 5e+06",
            ),
            (
                lambda d: d["rows"][0]["outputs"]["x"].update(max_abs="nan"),
                "x has no error that its allowed_max_abs of 2e-07 could belong to",
            ),
            (
                lambda d: d["rows"][0]["outputs"]["x"].update(allowed_rel_l2=1.0),
                "x allows a relative error of 1, which proves nothing",
            ),
            (lambda d: d["rows"][0]["outputs"]["x"].pop("share"), "x has the figures"),
            (lambda d: d.pop("planned"), "it lacks 'planned'"),
            (lambda d: d.update(rows={}), "it has 0 rows"),
            (lambda d: d.update(host=[]), "a list stands where an object is expected"),
        ],
    )
    def test_a_report_that_was_cut_or_edited_is_refused(self, change: Any, message: str, tmp_path: Any) -> None:
        document = json.loads(self.written().to_json())
        change(document)
        (tmp_path / "parity.json").write_text(json.dumps(document))
        with pytest.raises(BundleError, match=r"is no whole parity report.*; run the check again") as caught:
            read_report(tmp_path / "parity.json")
        assert message in str(caught.value)

    @pytest.mark.parametrize("text", ["", "[]", "3", "null", "[" * 100_000])
    def test_what_is_no_report_is_refused(self, text: str, tmp_path: Any) -> None:
        (tmp_path / "parity.json").write_text(text)
        with pytest.raises(BundleError, match="is no whole parity report"):
            read_report(tmp_path / "parity.json")

    def test_a_report_that_ends_early_is_refused(self, tmp_path: Any) -> None:
        text = self.written().to_json()
        (tmp_path / "parity.json").write_text(text[: len(text) // 2])
        with pytest.raises(BundleError, match="is no whole parity report"):
            read_report(tmp_path / "parity.json")


class TestInputs:
    def test_pool_is_the_same_every_time(self) -> None:
        first, second = make_pool(SPEC, 8), make_pool(SPEC, 8)
        assert all(np.array_equal(first.feed[k], second.feed[k]) for k in first.feed)

    def test_digest_tells_other_inputs_apart(self) -> None:
        first, second = make_pool(SPEC, 8), make_pool(SPEC, 8)
        assert first.sha256() == second.sha256()
        second.feed["positions"][7, 0, 0, 0] += 1.0
        assert first.sha256() != second.sha256()

    def test_edges_are_in_it(self) -> None:
        pool = make_pool(SPEC, 8)
        assert pool.kinds[1:5] == list(EDGES)
        zero, one, saturated = (pool.feed["diffraction"][i] for i in (1, 2, 3))
        assert not zero.any()
        assert one.sum() == one.shape[0]
        assert saturated.max() <= np.sqrt(65535) + 1e-3

    def test_scan_gives_its_own_patterns_and_factor(self) -> None:
        spec, path = ModelSpec(era="J", generator="cnn", N=64, gridsize=1), ROOT / "examples" / "demo" / "scan.npz"
        pool = make_pool(spec, 8, Source(scan=open_scan(path, spec)))
        assert pool.kinds[0] == "scan"
        with np.load(path) as scan:
            assert np.array_equal(pool.feed["diffraction"][0, 0], scan["diff3d"][0])
            energy = np.square(scan["diff3d"], dtype=np.float64).sum((1, 2)).mean()
            assert np.array_equal(pool.feed["probe_real"][0], np.squeeze(scan["probeGuess"]).real.astype(np.float32))
        assert pool.feed["input_scale_factor"][0, 0, 0, 0] == pytest.approx(32 / np.sqrt(energy), rel=1e-6)

    def test_the_bundles_formula_and_frozen_factor_are_taken(self) -> None:
        half, whole, frozen = (
            make_pool(SPEC, 8, source).feed["input_scale_factor"][0, 0, 0, 0]
            for source in (Source(), Source("n_over_rms"), Source(scale_value=0.0125))
        )
        assert whole == pytest.approx(2 * half, rel=1e-6)
        assert frozen == np.float32(0.0125)

    def test_a_model_of_counts_is_fed_counts(self) -> None:
        spec = ModelSpec(era="J", generator="cnn", N=64, gridsize=1, measurement_domain="counts")
        path = ROOT / "examples" / "demo" / "scan.npz"
        pool = make_pool(spec, 8, Source(scan=open_scan(path, spec)))
        with np.load(path) as scan:
            assert np.array_equal(pool.feed["diffraction"][0, 0], scan["diff3d"][0] ** 2)
        simulated = make_pool(spec, 8).feed["diffraction"][0]
        assert np.array_equal(simulated, np.round(simulated))
        assert simulated.sum() == pytest.approx(1e6, rel=0.01)

    def test_groups_of_a_scan_are_neighbours_with_their_own_offsets(self) -> None:
        path = ROOT / "examples" / "demo" / "scan.npz"
        scan = open_scan(path, SPEC)
        pool = make_pool(SPEC, 8, Source(scan=scan))
        members = group_neighbours(scan.positions_px, 4)
        assert np.array_equal(pool.feed["diffraction"][0], scan.patterns(members[0], 64, "amplitude"))
        assert np.array_equal(pool.feed["positions"][0], -group_offsets(scan.positions_px, members[:1])[0])
        assert pool.positions == "scan.npz"

    def test_a_scan_without_positions_gives_its_patterns(self, tmp_path: Any) -> None:
        patterns = np.sqrt(np.random.default_rng(0).poisson(3.0, (40, 64, 64))).astype(np.float32)
        np.savez(tmp_path / "s.npz", diff3d=patterns)
        scan = open_scan(tmp_path / "s.npz", SPEC)
        source = Source(scan=scan)
        assert not source.has_positions
        pool = make_pool(SPEC, 8, source)
        assert np.array_equal(pool.feed["diffraction"][0], patterns[[0, 1, 3, 4]])
        assert (pool.origin, pool.positions) == ("s.npz", "simulated")

    def test_a_scan_as_hdf5_gives_the_same_pool(self, tmp_path: Any) -> None:
        h5py = pytest.importorskip("h5py")
        path = ROOT / "examples" / "demo" / "scan.npz"
        with np.load(path) as data, h5py.File(tmp_path / "scan.h5", "w") as file:
            for name in ("diff3d", "xcoords", "ycoords", "probeGuess"):
                file[name] = data[name]
        pools = [make_pool(SPEC, 8, Source(scan=open_scan(p, SPEC))) for p in (path, tmp_path / "scan.h5")]
        assert pools[0].sha256() == pools[1].sha256()

    def test_no_factor_position_or_mode_is_like_another(self) -> None:
        spec = ModelSpec(era="J", generator="cnn", N=64, gridsize=2, num_datasets=3)
        pool = make_pool(spec, 33)
        factors = np.concatenate([pool.feed[name].ravel() for name in ("input_scale_factor", "output_scale_factor")])
        assert len(np.unique(factors)) == 66
        positions = np.delete(pool.feed["positions"], WHOLE_PIXELS, axis=0)
        # At the very end: a file that holds positions within anything less is wrong there.
        assert np.abs(positions[FARTHEST]).max() == np.float32(REACH_PX)
        assert np.abs(positions).max() == np.float32(REACH_PX)
        assert np.abs(positions * 64 - np.round(positions * 64)).max() > 0.4
        assert len(np.unique(np.round(positions * 64))) > 200
        probe = pool.feed["probe_real"] + 1j * pool.feed["probe_imag"]
        assert probe.shape == (3, 64, 64)
        for mode in probe:
            for other in (mode.T, mode[::-1], mode[:, ::-1], mode.conj()):
                assert np.linalg.norm(mode - other) > 0.1 * np.linalg.norm(mode)
        assert set(pool.feed["experiment_id"]) == {0, 1, 2}
        assert not np.array_equal(pool.feed["experiment_id"], np.arange(33) % 3)

    @pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04rubbish"])
    def test_scan_that_is_no_scan_is_refused(self, content: bytes, tmp_path: Any) -> None:
        (tmp_path / "s.npz").write_bytes(content)
        with pytest.raises(ScanError):
            open_scan(tmp_path / "s.npz", SPEC)

    def test_scan_that_is_a_folder_or_absent_is_said(self, tmp_path: Any) -> None:
        with pytest.raises(IsADirectoryError, match="is a folder; expected one file, the scan"):
            open_scan(tmp_path, SPEC)
        with pytest.raises(FileNotFoundError, match="no such scan"):
            open_scan(tmp_path / "none.npz", SPEC)


class TestBatches:
    @pytest.mark.parametrize("sizes", [(), (0,), (3, -1)])
    def test_sizes_that_compare_nothing_are_an_error(self, sizes: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="expected at least one, each 1 or more"):
            run_parity({}, SPEC, {}, batches=sizes)

    @pytest.mark.parametrize(
        ("asked", "used"),
        [
            ((1,), (1, 5, 11)),
            ((3, 1), (1, 3, 5, 11)),
            ((16,), (1, 16, 33)),
            ((16, 1), (1, 16, 33)),
            ((7, 6), (6, 7, 15)),
        ],
    )
    def test_what_a_proof_cannot_do_without_is_added(self, asked: tuple[int, ...], used: tuple[int, ...]) -> None:
        assert telling_batches(asked) == used

    def test_one_batch_is_larger_than_all_that_are_stored(self) -> None:
        assert telling_batches((1, 3, 16, 33)) == (1, 3, 16, 33, 67)
        assert telling_batches((1, 5), stored=(1, 3, 16, 33, 67)) == (1, 5, 68)

    def test_nothing_to_check_is_no_pass(self) -> None:
        assert not run_parity({}, SPEC, {}).passed


class FakeRunner:
    """Gives the right numbers, and facts that say how."""

    def __init__(self, **facts: Any) -> None:
        self.told = facts

    def __enter__(self) -> FakeRunner:
        return self

    def __exit__(self, *_: object) -> None: ...

    def run(self, feed: Any) -> dict[str, np.ndarray]:
        return {"predicted_diffraction": np.ones((len(feed["diffraction"]), 1), np.float32)}

    def facts(self) -> dict[str, Any]:
        return self.told


@pytest.mark.parametrize(
    ("nodes", "verdict", "reason"),
    [
        ({"CUDAExecutionProvider": 90}, "passed", ""),
        (
            {"CUDAExecutionProvider": 89, "CPUExecutionProvider": 1},
            "failed",
            "onnxruntime ran 1 on CPUExecutionProvider, of 90 node runs; expected all on CUDAExecutionProvider",
        ),
        ({}, "failed", "onnxruntime's profile says of no node which provider ran it"),
    ],
)
def test_right_numbers_from_another_device_are_no_row_of_this_one(nodes: Any, verdict: str, reason: str) -> None:
    from exporters.parity.inputs import Pool

    pool = Pool({"diffraction": np.ones((3, 1))}, ["simulated"] * 3)
    reference = {"predicted_diffraction": np.ones((3, 1))}
    trial = Trial("onnx", "cuda", "float32", lambda: FakeRunner(node_providers=nodes, tf32=False))
    shapes: dict[str, tuple[list[int | str], str]] = {"predicted_diffraction": (["batch", 1], "float32")}
    rows = trial_rows(GraphCase("g", pool, reference, {"float32": reference}, shapes), trial, (1, 3), Evidence("b"))
    assert [(r.batch, r.verdict, r.reason) for r in rows] == [(1, verdict, reason), (3, verdict, reason)]


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
        return ParityReport(
            "b", rows, (), {"platform": "here", "packages": {"torch": "2.13"}}, files={"g": {"onnx": "a" * 64}}
        )

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

    def test_another_bundle_files_inputs_and_problems_are_named(self) -> None:
        other = self.report(rel_l2=1e-5)
        other.name, other.files["g"]["onnx"], other.required = "c", "b" * 64, ("cuda",)
        other.reference["patterns"] = "scan.npz"
        other.problems.append("model.onnx is another")
        assert compare(self.report(), other) == [
            "verdict: passed → failed",
            "bundle: b → c",
            "required devices: none → cuda",
            "g onnx: another file (aaaaaaaaaaaa… → bbbbbbbbbbbb…)",
            "inputs, patterns: None → scan.npz",
            "errors are not compared, since the inputs differ",
            "problem new: model.onnx is another",
        ]

    def test_rows_that_came_and_went_are_named(self) -> None:
        other = self.report()
        other.rows[0].batch = 3
        assert compare(self.report(), other) == [
            "g onnx cpu float32 batch 3: new, passed",
            "g onnx cpu float32 batch 1: gone",
        ]

    def test_an_infinite_error_is_a_change(self) -> None:
        other = self.report(rel_l2=float("inf"), share=float("inf"))
        assert "g onnx cpu float32 batch 1: x rel_l2 1.0e-07 → inf" in compare(self.report(), other)

    def test_the_batch_that_failed_gives_the_figures(self) -> None:
        report = self.report()
        report.rows.append(row(batch=3, verdict="failed", reason="x is float64 | (3, 1)"))
        assert "| 1, 3 | – | – | – | **failed** (batch 3) x is float64 \\| (3, 1) |" in to_markdown(report)


class TestJunit:
    def suite(self, report: ParityReport) -> Any:
        from xml.etree import ElementTree

        from exporters.parity.forms.junit import to_junit

        return ElementTree.fromstring(to_junit(report))

    def test_rows_are_cases_and_the_verdict_is_one_too(self) -> None:
        suite = self.suite(TestMarkdownAndCompare().report())
        assert {k: suite.attrib[k] for k in ("tests", "failures", "skipped")} == {
            "tests": "4",
            "failures": "0",
            "skipped": "1",
        }

    def test_a_report_without_rows_fails(self) -> None:
        suite = self.suite(ParityReport("b", []))
        assert (suite.attrib["tests"], suite.attrib["failures"]) == ("1", "1")
        assert suite.find("testcase/failure").attrib["message"] == "parity failed: nothing was compared"

    def test_a_required_device_that_did_not_run_fails_its_rows(self) -> None:
        report = TestMarkdownAndCompare().report()
        report.required = ("cuda",)
        messages = [failure.attrib["message"] for failure in self.suite(report).findall("testcase/failure")]
        assert messages[0] == "required, but not run: no CUDA device"
        assert messages[1].startswith("parity failed: required device did not run")

    def test_a_stitched_object_that_differs_fails(self) -> None:
        from exporters.parity.rows import StitchedRow

        report = TestMarkdownAndCompare().report()
        report.stitched = [StitchedRow("onnx", "cpu", 9, 1e-3, 0.0, 0.0, (1e-9, 1e-9, 1e-9))]
        assert self.suite(report).attrib["failures"] == "2"  # its own case and the verdict's

    def test_control_characters_of_a_message_are_left_out(self) -> None:
        report = ParityReport("b", [row(verdict="failed", reason="bad \x00\x1b name")])
        assert self.suite(report).find("testcase/failure").attrib["message"] == "bad �� name"


def test_what_is_kept_to_show_does_not_depend_on_who_ran_it() -> None:
    def case(runtime: str, share: float, groups: int) -> Case:
        return Case(
            "autoencoder", runtime, "cpu", "float32", share, False, ["flat"] * groups, {}, {}, {}, {}, "object_real"
        )

    key = ("autoencoder", "torchscript cpu")
    first = Evidence("b", worst={"autoencoder": case("torchscript", 0.3, 1)}, histograms={key: np.array([1, 2])})
    first.shown = {"autoencoder": case("torchscript", 0.2, 16)}
    later = Evidence("b", worst={"autoencoder": case("onnx", 0.3, 3)}, histograms={key: np.array([1, 0])})
    later.shown = {"autoencoder": case("onnx", 0.1, 33)}
    first.merge(later)
    assert first.worst["autoencoder"].runtime == "torchscript"
    assert first.shown["autoencoder"].runtime == "onnx"
    assert first.histograms[key].tolist() == [2, 2]
