"""What tuning chooses, and what it remembers for which model and host."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ptycho_runtime
from ptycho_runtime.cli import main as cli
from ptycho_runtime.engine import tune
from ptycho_runtime.engine.tune import Setting, Trial, choose, remember, remembered
from ptycho_runtime.export.bundle import Export, open_export


def trial(batch: int, threads: int, rate: float) -> Trial:
    return Trial(Setting(batch, threads), rate, 0.0)


class TestChoose:
    def test_the_fastest_wins(self) -> None:
        assert choose([trial(1, 1, 50.0), trial(16, 2, 100.0), trial(64, 2, 90.0)]) == Setting(16, 2)

    def test_what_is_nearly_as_fast_with_less_in_flight_is_preferred(self) -> None:
        assert choose([trial(8, 2, 98.5), trial(16, 1, 99.0), trial(64, 2, 100.0)]) == Setting(8, 2)

    @given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 8), st.floats(1.0, 1e6)), min_size=1))
    def test_never_more_than_two_percent_slower_than_the_fastest(self, drawn: list[tuple[int, int, float]]) -> None:
        trials = [trial(*values) for values in drawn]
        chosen = choose(trials)
        best = max(t.groups_per_s for t in trials)
        assert max(t.groups_per_s for t in trials if t.setting == chosen) >= 0.98 * best


class TestMemory:
    @pytest.fixture
    def export(self, demo: Path) -> Export:
        return open_export(demo)

    def test_setting_comes_back_for_the_same_model_and_device_alone(self, export: Export, tmp_path: Path) -> None:
        remember(export, "cpu", Setting(8, 1), tmp_path)
        assert remembered(export, "cpu", tmp_path) == Setting(8, 1)
        assert remembered(export, "cuda", tmp_path) is None
        other = replace(export, graphs={tune.GRAPH: export.graphs[tune.GRAPH] + b"\0"})
        assert remembered(other, "cpu", tmp_path) is None

    def test_another_onnxruntime_has_to_be_tuned_anew(
        self, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        remember(export, "cpu", Setting(8, 1), tmp_path)
        monkeypatch.setattr("onnxruntime.__version__", "9.9")
        assert remembered(export, "cpu", tmp_path) is None

    def test_others_stay_remembered(self, export: Export, tmp_path: Path) -> None:
        remember(export, "cpu", Setting(8, 1), tmp_path)
        remember(export, "cuda", Setting(64, 1), tmp_path)
        assert remembered(export, "cpu", tmp_path) == Setting(8, 1)
        assert [path.name for path in tmp_path.iterdir()] == ["tuned.json"]

    @pytest.mark.parametrize(
        "value", ["3", '{"batch": 0, "threads": 1}', '{"batch": true, "threads": 1}', '{"batch": 4}']
    )
    @pytest.mark.parametrize("frame", ["", "[]", "not json", '{"KEY": VALUE}'])
    def test_anything_else_in_the_file_is_nothing(self, frame: str, value: str, export: Export, tmp_path: Path) -> None:
        text = frame.replace("KEY", tune.key(export, "cpu")).replace("VALUE", value)
        (tmp_path / "tuned.json").write_text(text)
        assert remembered(export, "cpu", tmp_path) is None


def test_open_takes_what_was_tuned_unless_told_otherwise(demo: Path) -> None:
    export = open_export(demo)
    assert ptycho_runtime.open(demo).batch == 16
    remember(export, "cpu", Setting(5, 1))
    assert ptycho_runtime.open(demo, "cpu").batch == 5
    assert ptycho_runtime.open(demo, "cpu").tuned == Setting(5, 1)
    assert ptycho_runtime.open(demo, "cpu", batch=7).batch == 7
    assert ptycho_runtime.open(demo, "cpu", threads=1).tuned is None


def test_every_setting_has_its_turn_in_every_round(demo: Path) -> None:
    turns: list[str] = []
    device, trials = tune.tune(open_export(demo), "cpu", (1, 2), rounds=2, progress=turns.append)
    assert device == "cpu"
    assert turns == ["round 1 of 2", "round 2 of 2"]
    assert {t.setting.batch for t in trials} == {1, 2}
    assert all(t.groups_per_s > 0 for t in trials)


def test_command_remembers_and_says_so(
    demo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "BATCHES", (1, 2))
    assert cli.run(["tune", str(demo), "--rounds", "1", "--json", "--device", "cpu"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert remembered(open_export(demo), "cpu") == Setting(**told["chosen"])
    assert max(row["of_fastest"] for row in told["trials"]) == 1.0


def test_cache_that_cannot_be_written_is_one_line(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tune, "BATCHES", (1,))
    assert cli.run(["tune", str(demo), "--rounds", "1", "--device", "cpu"]) == 2
    assert "set XDG_CACHE_HOME to a folder that can be written" in capsys.readouterr().err
