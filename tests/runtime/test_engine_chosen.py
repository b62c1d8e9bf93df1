"""Which engine runs: as asked for, else as tuned, only if it passes the parity rule here, and never without a word."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from one_layer import write_model, write_scan
from proven_layer import GRAPH, computing_wrongly, proven_export, tuned_for

import ptycho_runtime
from ptycho_runtime import (
    CheckFailedError,
    DeviceUnavailableError,
    NotExportedError,
    ReconstructionError,
    RunOptions,
    contract,
)
from ptycho_runtime.api import Reconstructor
from ptycho_runtime.check import check_host
from ptycho_runtime.cli import main as cli
from ptycho_runtime.engine import chosen, openvino
from ptycho_runtime.engine.chosen import Choice, open_graph, tuned_variant
from ptycho_runtime.engine.judging import raise_unless_passed
from ptycho_runtime.engine.opening import open_session
from ptycho_runtime.engine.tuned import Setting, Trial, Tuned, remember
from ptycho_runtime.export.bundle import Export, open_export
from ptycho_runtime.export.precision import Budget, PrecisionErrors, Variant
from ptycho_runtime.image.options import ReconstructOptions
from ptycho_runtime.many.merge import gathered, merge
from ptycho_runtime.many.parts import Which, run_part
from ptycho_runtime.many.plan import open_plan, prepare
from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import read_scan

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
CPU = RunOptions("cpu")
FASTER = (Setting(4, 1, "openvino"), 20.0), (Setting(3, 1), 10.0)


@pytest.fixture
def export(tmp_path: Path) -> Export:
    return proven_export(tmp_path)


class TestAsked:
    @pytest.mark.parametrize("device", ["cuda", "tensorrt"])
    def test_openvino_is_never_for_a_gpu(self, device: str) -> None:
        with pytest.raises(DeviceUnavailableError, match=rf"^openvino runs on the CPU here, not on {device}; ask for"):
            RunOptions(device, engine="openvino")
        with pytest.raises(DeviceUnavailableError, match=r"not with CUDA graphs"):
            RunOptions(engine="openvino", cuda_graph=True)
        assert RunOptions(engine="openvino").device == "cpu"

    def test_an_engine_that_there_is_none_of_is_refused(self) -> None:
        with pytest.raises(ReconstructionError, match=r"^engine 'caffe'; expected onnxruntime or openvino$"):
            RunOptions(engine="caffe")

    @needs_openvino
    def test_openvino_by_name_runs_and_gives_the_same_to_rounding(self, export: Export) -> None:
        feed = {
            contract.DIFFRACTION: np.full((5, 1, 32, 32), 2.0, np.float32),
            contract.INPUT_SCALE: np.ones((5, 1, 1, 1), np.float32),
        }
        with (
            open_graph(export, GRAPH, replace(CPU, engine="openvino")).session as asked,
            open_graph(export, GRAPH, CPU).session as usual,
        ):
            assert (asked.engine, usual.engine) == ("openvino", "onnxruntime")
            assert (asked.options.engine, usual.options.engine) == ("openvino", "onnxruntime")
            for name, values in usual.run(feed).items():
                np.testing.assert_allclose(asked.run(feed)[name], values, rtol=0, atol=1e-6)

    @needs_openvino
    def test_openvino_by_name_that_computes_something_else_is_an_error(
        self, export: Export, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        computing_wrongly(monkeypatch)
        with pytest.raises(CheckFailedError, match=r"diffraction_to_obj object_real on cpu under openvino: max abs"):
            open_graph(export, GRAPH, replace(CPU, engine="openvino"))

    @needs_openvino
    def test_openvino_by_name_needs_stored_inputs(self, tmp_path: Path) -> None:
        with pytest.raises(NotExportedError, match=r"holds no golden\.npz"):
            open_graph(open_export(write_model(tmp_path / "model.onnx")), GRAPH, replace(CPU, engine="openvino"))

    def test_openvino_by_name_that_is_not_installed_is_an_error(
        self, export: Export, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(DeviceUnavailableError, match=r"^OpenVINO is not installed; pip install"):
            open_graph(export, GRAPH, replace(CPU, engine="openvino"))

    def test_sessions_of_onnxruntime_are_not_opened_for_another_engine(self, export: Export) -> None:
        with pytest.raises(ValueError, match="ask for openvino; open_engine opens it"):
            open_session(export.graphs[GRAPH], RunOptions(engine="openvino"))


class TestTuned:
    @needs_openvino
    def test_the_engine_that_was_tuned_runs_with_its_batch_and_threads(self, export: Export) -> None:
        tuned_for(export, *FASTER)
        with Reconstructor(export, CPU) as model:
            assert (model.patches.engine, model.batch, model.options.threads) == ("openvino", 4, 1)
            assert model.tuned == Setting(4, 1, "openvino")
            assert model.patches.note == ""

    @needs_openvino
    def test_an_engine_by_name_counts_more_than_what_was_tuned(self, export: Export) -> None:
        tuned_for(export, *FASTER)
        with Reconstructor(export, replace(CPU, engine="onnxruntime")) as model:
            assert (model.patches.engine, model.batch) == ("onnxruntime", 3)

    def test_batch_or_threads_that_were_not_measured_leave_nothing_tuned(self, export: Export) -> None:
        tuned_for(export, *FASTER)
        with Reconstructor(export, replace(CPU, batch=7)) as model:
            assert (model.patches.engine, model.batch, model.tuned) == ("onnxruntime", 7, None)

    def test_what_was_measured_with_the_threads_that_were_asked_for_is_taken(self, export: Export) -> None:
        tuned_for(export, (Setting(8, 1), 5.0), (Setting(4, 2), 10.0))
        with Reconstructor(export, replace(CPU, threads=1)) as model:
            assert (model.batch, model.options.threads) == (8, 1)

    def test_a_gpu_never_takes_what_was_tuned_for_the_cpu(self, export: Export) -> None:
        tuned_for(export, *FASTER)
        assert Choice(export, GRAPH).fit(RunOptions("cuda")) == RunOptions("cuda")
        # Not even from a file that somebody has written by hand.
        remember(export, GRAPH, "cuda", Tuned((Trial(Setting(4, 1, "openvino"), 9.0, 0.0),)))
        assert Choice(export, GRAPH).fit(RunOptions("cuda")) == RunOptions("cuda")

    @pytest.mark.parametrize(
        ("here", "reason"),
        [
            (
                "",
                r"openvino is not installed any more; pip install 'ptycho-export\[openvino\]' brings it, or tune again",
            ),
            ("2027.1", r"openvino 2026\.4 was measured, and 2027\.1 is installed; tune again"),
        ],
    )
    def test_another_openvino_gives_way_to_onnxruntime_as_it_was_tuned(
        self, export: Export, here: str, reason: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tuned_for(export, *FASTER, version="2026.4")
        monkeypatch.setattr(openvino, "installed_version", lambda: here)
        with Reconstructor(export, CPU) as model:
            assert (model.patches.engine, model.batch) == ("onnxruntime", 3)
            expected = rf"^{GRAPH} runs under onnxruntime, and not under the engine that was tuned: {reason}$"
            assert re.match(expected, model.patches.note)

    @needs_openvino
    def test_openvino_that_fails_its_proof_gives_way_and_says_why(
        self, export: Export, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tuned_for(export, *FASTER)
        computing_wrongly(monkeypatch)
        with Reconstructor(export, CPU) as model:
            assert (model.patches.engine, model.batch) == ("onnxruntime", 3)
            assert "not under the engine that was tuned: model.onnx: this host does not compute" in model.patches.note

    @needs_openvino
    def test_openvino_that_cannot_run_gives_way_and_says_why(
        self, export: Export, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tuned_for(export, *FASTER)

        def refuse() -> None:
            raise DeviceUnavailableError("no such instruction")

        monkeypatch.setattr(openvino, "_openvino", refuse)
        with Reconstructor(export, CPU) as model:
            assert model.patches.note.endswith("the engine that was tuned: no such instruction")

    @needs_openvino
    def test_without_stored_inputs_nothing_but_onnxruntime_runs(self, export: Export) -> None:
        tuned_for(export, *FASTER)
        with Reconstructor(replace(export, golden=None), CPU) as model:
            assert model.patches.engine == "onnxruntime"
            assert "holds no golden.npz" in model.patches.note

    def test_a_variant_that_is_no_faster_here_gives_way_to_float32(self, export: Export) -> None:
        budget = Budget(0.01, 0.01)
        variant = Variant(GRAPH, export.graphs[GRAPH], "openvino", "float32", (), budget, PrecisionErrors(0, 0))
        export = replace(export, variants={(GRAPH, "cpu"): variant})
        digest = chosen.remembered.__globals__["variant_sha256"](export, GRAPH, "cpu")

        def remembering(reduced: float) -> None:
            trials = (Trial(Setting(4, 1), 10.0, 0.0), Trial(Setting(8, 1, "openvino", True), reduced, 0.0))
            remember(export, GRAPH, "cpu", Tuned(trials, {}, digest))

        assert tuned_variant(export, GRAPH, CPU) == (CPU, "")
        remembering(9.0)
        found, why = tuned_variant(export, GRAPH, CPU)
        assert found is None
        assert why == "float32 in place of reduced precision, which is no faster on this host as tuned"
        remembering(12.0)
        assert tuned_variant(export, GRAPH, CPU) == (replace(CPU, batch=8, threads=1), "")


class TestCheck:
    @needs_openvino
    def test_each_engine_that_may_run_has_rows_and_what_was_tuned_decides(
        self, export: Export, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = check_host(export, CPU)
        assert {(row.engine, row.runs) for row in rows} == {("onnxruntime", True), ("openvino", False)}
        assert {row.verdict for row in rows} == {"passed"}
        computing_wrongly(monkeypatch)
        rows = check_host(export, CPU)
        assert {row.verdict for row in rows if row.engine == "openvino"} == {"FAILED"}
        raise_unless_passed(rows, "model.onnx")
        tuned_for(export, *FASTER)
        rows = check_host(export, CPU)
        assert {(row.engine, row.runs) for row in rows} == {("onnxruntime", True), ("openvino", True)}
        with pytest.raises(CheckFailedError, match=r"diffraction_to_obj object_real on cpu under openvino: max abs"):
            raise_unless_passed(rows, "model.onnx")

    def test_an_engine_that_was_tuned_and_is_gone_is_not_run(
        self, export: Export, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tuned_for(export, *FASTER, version="2026.4")
        monkeypatch.setattr(openvino, "installed_version", lambda: "")
        monkeypatch.setattr("ptycho_runtime.check.installed_version", lambda: "")
        (row,) = (row for row in check_host(export, CPU) if row.engine == "openvino")
        assert row.verdict.startswith("not run: openvino is not installed any more") and not row.passed

    def test_a_host_without_openvino_has_no_rows_of_it(self, export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ptycho_runtime.check.installed_version", lambda: "")
        assert {row.engine for row in check_host(export, CPU)} == {"onnxruntime"}


@needs_openvino
class TestWholeScans:
    @pytest.fixture
    def scan(self, tmp_path: Path) -> Path:
        return write_scan(tmp_path / "scan.npz", side=7, probe=True)

    def test_image_its_provenance_and_its_parts_name_the_engine_and_have_its_bits(
        self, export: Export, scan: Path, tmp_path: Path
    ) -> None:
        tuned_for(export, *FASTER)
        image = ReconstructOptions()
        with Reconstructor(export, CPU) as model, read_scan(scan, 32, ReadOptions(domain="amplitude")) as read:
            whole = model.reconstruct(read, image)
            plan = prepare(model, read, image, tmp_path / "plan.h5")
        assert whole.engine == "openvino float32, batch 4, 1 threads"
        assert whole.origin.facts()["engine"] == "openvino float32, batch 4, 1 threads on cpu"
        assert (plan.run.engine, plan.run.batch, plan.run.threads) == ("openvino", 4, 1)
        # What is tuned by then is another matter: the plan says what runs.
        tuned_for(export, (Setting(16, 1), 99.0))
        paths = [tmp_path / f"part{number}.h5" for number in (1, 2, 3)]
        with Reconstructor(export, plan.run) as model:
            for number, path in enumerate(paths, 1):
                run_part(plan, Which(number, 3), model, path)
        merged = merge(gathered(paths))
        assert np.array_equal(merged.object, whole.object)
        assert merged.engine.startswith("openvino float32, batch 4, 1 threads on cpu, numpy ")
        assert f"openvino {openvino.installed_version()}" in merged.engine
        with Reconstructor(export, CPU) as model, read_scan(scan, 32, ReadOptions(domain="amplitude")) as read:
            other = model.reconstruct(read, image)
        np.testing.assert_allclose(other.object, whole.object, rtol=0, atol=1e-5)

    def test_a_part_under_another_engine_than_the_plans_is_refused(
        self, export: Export, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = replace(CPU, engine="openvino")
        with Reconstructor(export, asked) as model, read_scan(scan, 32, ReadOptions(domain="amplitude")) as read:
            plan = prepare(model, read, ReconstructOptions(), tmp_path / "plan.h5")
        with (
            Reconstructor(export, replace(plan.run, engine="onnxruntime")) as model,
            pytest.raises(
                ReconstructionError, match=r"^plan\.h5 was made for openvino, and onnxruntime is what runs; open"
            ),
        ):
            run_part(plan, Which(1, 2), model, tmp_path / "part.h5")
        assert not (tmp_path / "part.h5").exists()
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(DeviceUnavailableError, match="OpenVINO is not installed"):
            Reconstructor(export, plan.run)

    def test_a_plan_of_before_there_was_a_choice_is_of_onnxruntime(
        self, export: Export, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ptycho_runtime.many import plan as module

        real = json.dumps

        def without_engine(document: dict[str, dict[str, object]], **how: object) -> str:
            document["run"].pop("engine")
            return real(document, **how)  # type: ignore[arg-type]

        monkeypatch.setattr(module.json, "dumps", without_engine)
        with Reconstructor(export, CPU) as model, read_scan(scan, 32, ReadOptions(domain="amplitude")) as read:
            prepare(model, read, ReconstructOptions(), tmp_path / "plan.h5")
        assert open_plan(tmp_path / "plan.h5").run.engine == "onnxruntime"


def test_reconstruct_says_what_runs_and_why_not_what_was_tuned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, scan = write_model(tmp_path / "model.onnx"), write_scan(tmp_path / "scan.npz")
    tuned_for(open_export(model), *FASTER, version="2026.4")
    words = ["reconstruct", str(model), str(scan), "-o", str(tmp_path / "object.npz"), "--device", "cpu", "--amplitude"]
    assert cli.run([*words, "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["engine"] == "onnxruntime float32, batch 3, 1 threads"
    assert "onnxruntime on cpu, batch 3, 1 threads, as tuned on this host" in told.err
    assert "diffraction_to_obj runs under onnxruntime, and not under the engine that was tuned: openvino" in told.err
    with np.load(tmp_path / "object.npz") as data:
        assert str(data["engine"]) == "onnxruntime float32, batch 3, 1 threads"


def test_open_takes_what_was_tuned_unless_told_otherwise(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx")
    assert ptycho_runtime.open(model).batch == 16
    tuned_for(open_export(model), (Setting(5, 1), 10.0))
    assert ptycho_runtime.open(model, "cpu").batch == 5
    assert ptycho_runtime.open(model, "cpu").tuned == Setting(5, 1)
    assert ptycho_runtime.open(model, "cpu", batch=7).batch == 7
    assert ptycho_runtime.open(model, "cpu", batch=7).tuned is None
