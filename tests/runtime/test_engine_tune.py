"""What tuning measures and chooses, and what it remembers for which graph and host."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from hypothesis import given
from hypothesis import strategies as st
from one_layer import write_model
from proven_layer import GRAPH, computing_wrongly, proven_export

from ptycho_runtime.cli import main as cli
from ptycho_runtime.engine import tune
from ptycho_runtime.engine.tuned import Setting, Trial, Tuned, Wanted, choose, key, remember, remembered
from ptycho_runtime.export.bundle import Export, open_export
from ptycho_runtime.export.precision import Budget, PrecisionErrors, Variant

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")


def trial(batch: int, threads: int, rate: float, engine: str = "onnxruntime", *, reduced: bool = False) -> Trial:
    return Trial(Setting(batch, threads, engine, reduced), rate, 0.0)


class TestChoose:
    def test_the_fastest_wins(self) -> None:
        assert choose([trial(1, 1, 50.0), trial(16, 2, 100.0), trial(64, 2, 90.0)]) == Setting(16, 2)

    def test_what_is_nearly_as_fast_with_less_in_flight_is_preferred(self) -> None:
        assert choose([trial(8, 2, 98.5), trial(16, 1, 99.0), trial(64, 2, 100.0)]) == Setting(8, 2)

    def test_another_engine_has_to_be_faster_by_more_than_two_percent(self) -> None:
        assert choose([trial(16, 2, 98.1), trial(4, 2, 100.0, "openvino")]) == Setting(16, 2)
        assert choose([trial(16, 2, 97.9), trial(4, 2, 100.0, "openvino")]) == Setting(4, 2, "openvino")

    def test_reduced_precision_is_chosen_only_where_it_may_be(self) -> None:
        trials = [trial(16, 2, 100.0), trial(16, 2, 150.0, "openvino", reduced=True)]
        assert choose(trials) == Setting(16, 2)
        assert choose(trials, Wanted(reduced=None)) == Setting(16, 2, "openvino", reduced=True)

    def test_what_the_caller_fixed_stays(self) -> None:
        trials = [trial(4, 1, 10.0), trial(16, 1, 20.0, "openvino"), trial(4, 2, 30.0)]
        assert choose(trials, Wanted(threads=1)) == Setting(16, 1, "openvino")
        assert choose(trials, Wanted(threads=1, engine="onnxruntime")) == Setting(4, 1)
        assert choose(trials, Wanted(batch=7)) is None

    @given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 8), st.floats(1.0, 1e6)), min_size=1))
    def test_never_more_than_two_percent_slower_than_the_fastest(self, drawn: list[tuple[int, int, float]]) -> None:
        trials = [trial(*values) for values in drawn]
        chosen = choose(trials)
        best = max(t.groups_per_s for t in trials)
        assert max(t.groups_per_s for t in trials if t.setting == chosen) >= 0.98 * best


TUNED = Tuned((trial(8, 1, 10.0), trial(4, 1, 20.0, "openvino")), {"openvino": "2026.4"})


class TestMemory:
    @pytest.fixture
    def export(self, tmp_path: Path) -> Export:
        return open_export(write_model(tmp_path / "model.onnx"))

    def test_what_was_measured_comes_back_for_the_same_graph_and_device_alone(
        self, export: Export, tmp_path: Path
    ) -> None:
        remember(export, GRAPH, "cpu", TUNED, tmp_path)
        assert remembered(export, GRAPH, "cpu", tmp_path) == TUNED
        assert remembered(export, GRAPH, "cuda", tmp_path) is None
        other = replace(export, graphs={GRAPH: export.graphs[GRAPH] + b"\0"})
        assert remembered(other, GRAPH, "cpu", tmp_path) is None

    def test_another_onnxruntime_has_to_be_tuned_anew(
        self, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        remember(export, GRAPH, "cpu", TUNED, tmp_path)
        monkeypatch.setattr("onnxruntime.__version__", "9.9")
        assert remembered(export, GRAPH, "cpu", tmp_path) is None

    def test_others_stay_remembered(self, export: Export, tmp_path: Path) -> None:
        remember(export, GRAPH, "cpu", TUNED, tmp_path / "cache")
        remember(export, GRAPH, "cuda", Tuned((trial(64, 1, 1.0),)), tmp_path / "cache")
        assert remembered(export, GRAPH, "cpu", tmp_path / "cache") == TUNED
        assert [path.name for path in (tmp_path / "cache").iterdir()] == ["tuned.json"]

    def test_speeds_of_another_variant_are_left_out(self, export: Export, tmp_path: Path) -> None:
        trials = (trial(8, 1, 10.0), trial(8, 1, 20.0, "openvino", reduced=True))
        remember(export, GRAPH, "cpu", Tuned(trials, {}, "0" * 64), tmp_path)
        assert remembered(export, GRAPH, "cpu", tmp_path) == Tuned(trials[:1])

    @pytest.mark.parametrize(
        "change",
        [{"batch": 0}, {"batch": True}, {"threads": 5000}, {"engine": "caffe"}, {"reduced": 1}, {"groups_per_s": -1.0},
         {"groups_per_s": float("nan")}, {"more": 1}],
    )  # fmt: skip
    def test_a_trial_that_cannot_be_is_nothing(self, change: dict[str, object], export: Export, tmp_path: Path) -> None:
        path = remember(export, GRAPH, "cpu", TUNED, tmp_path)
        document = json.loads(path.read_text())
        document[key(export, GRAPH, "cpu")]["trials"][0] |= change
        path.write_text(json.dumps(document))
        assert remembered(export, GRAPH, "cpu", tmp_path) is None

    @pytest.mark.parametrize("text", ["", "[]", "not json", '{"KEY": 3}', '{"KEY": {"batch": 4, "threads": 1}}'])
    def test_anything_else_in_the_file_is_nothing(self, text: str, export: Export, tmp_path: Path) -> None:
        (tmp_path / "tuned.json").write_text(text.replace("KEY", key(export, GRAPH, "cpu")))
        assert remembered(export, GRAPH, "cpu", tmp_path) is None


class TestMeasuring:
    def test_every_setting_has_its_turn_in_every_round(self, tmp_path: Path) -> None:
        turns: list[str] = []
        export = open_export(write_model(tmp_path / "model.onnx"))
        found = tune.tune(export, GRAPH, "cpu", (1, 2), rounds=2, progress=turns.append)
        assert found.device == "cpu"
        assert [text.partition(",")[0] for text in turns] == [f"{GRAPH}: round {number} of 2" for number in (1, 2)]
        assert re.fullmatch(rf"{GRAPH}: round 2 of 2, \d+ settings, about \d+ s left", turns[1])
        assert {(t.setting.batch, t.setting.engine) for t in found.tuned.trials} == {
            (1, "onnxruntime"),
            (2, "onnxruntime"),
        }
        assert all(t.groups_per_s > 0 for t in found.tuned.trials)

    def test_what_is_far_behind_has_no_further_turn(self) -> None:
        fast, slow, alone = Setting(4, 2), Setting(1, 2), Setting(1, 1)
        rates = {fast: 10.0, slow: 6.9, alone: 1.0}
        found = tune._raced({setting: lambda r=rate: r for setting, rate in rates.items()}, 5, lambda text: None, "g")  # type: ignore[misc]
        # The only one with so many threads stays: who asks for these is to have the fastest of them.
        assert {setting: len(each) for setting, each in found.items()} == {fast: 5, slow: 2, alone: 5}

    @needs_openvino
    def test_openvino_is_measured_once_it_is_proven(self, tmp_path: Path) -> None:
        found = tune.tune(proven_export(tmp_path), GRAPH, "cpu", (2,), rounds=1)
        assert {t.setting.engine for t in found.tuned.trials} == {"onnxruntime", "openvino"}
        assert found.tuned.versions["openvino"]
        assert list(found.left_out) == ["openvino reduced"]

    @needs_openvino
    def test_openvino_that_computes_something_else_is_left_out_and_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        computing_wrongly(monkeypatch)
        found = tune.tune(proven_export(tmp_path), GRAPH, "cpu", (1, 2), rounds=1)
        assert {t.setting.engine for t in found.tuned.trials} == {"onnxruntime"}
        assert "this host does not compute what was exported" in found.left_out["openvino float32"]

    @needs_openvino
    def test_without_stored_inputs_openvino_is_left_out(self, tmp_path: Path) -> None:
        found = tune.tune(open_export(write_model(tmp_path / "model.onnx")), GRAPH, "cpu", (1,), rounds=1)
        assert "holds no golden.npz" in found.left_out["openvino float32"]

    @needs_openvino
    def test_a_variant_is_measured_where_it_keeps_its_budget(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        export = proven_export(tmp_path)
        budget = Budget(0.01, 0.01)
        variant = Variant(GRAPH, export.graphs[GRAPH], "openvino", "float32", (), budget, PrecisionErrors(0, 0))
        export = replace(export, variants={(GRAPH, "cpu"): variant})
        kept = {
            name: values
            for name, values in _golden(export).items()
            if name in ("diffraction", "input_scale_factor", "object_real", "object_imag")
        }
        monkeypatch.setattr(Export, "variant_patterns", lambda export: kept)
        found = tune.tune(export, GRAPH, "cpu", (2,), rounds=1)
        assert {t.setting.label for t in found.tuned.trials} == {
            "onnxruntime float32",
            "openvino float32",
            "openvino reduced",
        }
        assert len(found.tuned.variant_sha256) == 64


def _golden(export: Export) -> dict[str, object]:
    from ptycho_runtime.export.bundle import load_golden

    return {name.rpartition(".")[2]: values for name, values in load_golden(export).items() if ".allowed." not in name}


def test_command_remembers_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "model.onnx")
    monkeypatch.setattr(tune, "BATCHES", (1, 2))
    assert cli.run(["tune", str(model), "--rounds", "1", "--json", "--device", "cpu"]) == 0
    told = json.loads(capsys.readouterr().out)[GRAPH]
    found = remembered(open_export(model), GRAPH, "cpu")
    assert found is not None
    assert choose(found.trials) == Setting(**told["chosen"]["float32"])
    assert max(row["of_fastest"] for row in told["trials"]) == 1.0
    assert cli.run(["tune", str(model), "--rounds", "1", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert f"{GRAPH} on cpu" in out and "  chosen" in out and "openvino float32 was left out: " in out


def test_cache_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tune, "BATCHES", (1,))
    model = write_model(tmp_path / "model.onnx")
    assert cli.run(["tune", str(model), "--rounds", "1", "--device", "cpu"]) == 2
    assert "set XDG_CACHE_HOME to a folder that can be written" in capsys.readouterr().err
