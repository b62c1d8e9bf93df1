"""`inspect`, `--dry-run` and `--config`: look before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ptycho_runtime.cli.main import run

SCAN = Path(__file__).parents[2] / "examples" / "demo" / "scan.npz"
BUNDLE = SCAN.parent / "wts.h5.zip"


def test_scan_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(SCAN), "--json", "--pixel-size-m", "1e-8", "--patterns", "0:100", "--every", "2"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert "diff3d (400, 64, 64) float32" in facts["holds"]
    assert facts["patterns"].startswith("50 of 64 x 64 px, diff3d float32")
    assert facts["domain"] == "amplitude, by their numbers"
    assert facts["zero frequency"] == "row 32, column 32"
    assert facts["span"].endswith("e-06 m")


def test_what_is_open_is_said_at_once_beside_what_the_file_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["entry/data/data"] = np.random.default_rng(0).random((12, 32, 32))
        file["x"], file["y"] = np.arange(12.0), np.arange(12.0)
    assert run(["inspect", str(tmp_path / "s.h5"), "--x-key", "x", "--y-key", "y", "--size", "16"]) == 2
    said = capsys.readouterr()
    assert "entry/data/data (12, 32, 32) float64" in said.out
    for option in ("--amplitude", "--position-unit", "--positions-of", "--bin"):
        assert option in said.err


def test_exchanged_arguments_are_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reconstruct", str(SCAN), str(BUNDLE), "-o", str(tmp_path / "o.h5")]) == 2
    assert "the bundle comes first, then the scan" in capsys.readouterr().err


class TestConfig:
    def inspected(self, text: str, tmp_path: Path, *more: str) -> int:
        (tmp_path / "beamline.toml").write_text(text, encoding="utf-8")
        return run(["inspect", str(SCAN), "--config", str(tmp_path / "beamline.toml"), "--json", *more])

    def test_options_of_a_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        text = 'pixel-size-m = 2e-8\nflip_x = true\n[inspect]\npatterns = "0:20"\n[reconstruct]\nbatch = 4\n'
        assert self.inspected(text, tmp_path) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["pixel"] == "2e-08 x 2e-08 m"
        assert facts["patterns"].startswith("20 of")

    def test_mark_that_editors_begin_a_file_with(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.inspected("\ufeffpixel-size-m = 2e-8", tmp_path) == 0
        assert json.loads(capsys.readouterr().out)["pixel"] == "2e-08 x 2e-08 m"

    def test_command_line_counts_more(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.inspected("pixel-size-m = 2e-8", tmp_path, "--pixel-size-m", "3e-8") == 0
        assert json.loads(capsys.readouterr().out)["pixel"] == "3e-08 x 3e-08 m"

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("pixelsize = 1", "pixelsize is no option of"),
            ("flip_x = 1", "flip-x is 1; expected true or false"),
            ("every = [1]", "expected text or a number"),
            ("= 3", "cannot be read as TOML"),
            ("[inspct]\nevery = 2", "[inspct] is no command; expected a table of demo, reconstruct, live"),
        ],
    )
    def test_what_is_no_option(self, text: str, match: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.inspected(text, tmp_path) == 2
        assert match in capsys.readouterr().err


@pytest.mark.parametrize("text", ["3-", "a", "5,x", "-1", "9-3", "9" * 20])
def test_frames_to_leave_out_that_are_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(["inspect", str(SCAN), f"--exclude={text}"])
    assert stop.value.code == 2
    assert "frame number" in capsys.readouterr().err
