"""Every command has examples that its own grammar takes, says how much it is to say, and answers machines in JSON."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from ptycho_runtime import demo
from ptycho_runtime.cli import check, main
from ptycho_runtime.cli.log import FIRST_LINE
from ptycho_runtime.cli.terminal import ProgressBar, duration
from ptycho_runtime.engine.judging import CheckRow

COMMANDS = next(
    action for action in main.parser()._actions if isinstance(action, argparse._SubParsersAction)
).choices  # fmt: skip


@pytest.fixture
def scan_of_20(tmp_path: Path) -> list[str]:
    """Return the command line that reconstructs a few of the demo's patterns."""
    out = str(tmp_path / "object.npz")
    return [
        "reconstruct", str(demo.MODEL), str(demo.SCAN), "--intensity", "--every", "7", "-o", out, "--device", "cpu",
    ]  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_examples_that_the_grammar_takes(name: str) -> None:
    text = COMMANDS[name].format_help()
    lines = text.partition("\nexamples:\n")[2].strip().splitlines()
    assert lines
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])
        assert words[:2] == ["ptycho-runtime", name]
        main.parser().parse_args(words[1:])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_the_common_options(name: str) -> None:
    options = set(COMMANDS[name]._option_string_actions)
    assert {"--help", "--verbose", "-v", "--quiet", "-q", "--log-file", "--json"} <= options


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.run(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"ptycho-runtime \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_quiet_twice_leaves_the_answer_and_errors(scan_of_20: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([*scan_of_20, "-qq", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert json.loads(printed.out)["patterns"] == 22
    assert main.run(["inspect", "nothing.npz", "-qq"]) == 2
    assert capsys.readouterr().err.startswith("ptycho-runtime: nothing.npz: no such file")


def test_quiet_leaves_what_was_understood(scan_of_20: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([*scan_of_20, "--quiet", "--threads", "4096"]) == 0
    said = capsys.readouterr().err
    assert re.search(r"sha256 [0-9a-f]{64}\n.* patterns of 64 px, .*\n.*4096 threads were asked for, capped at", said)


def test_quiet_twice_leaves_warnings_of_a_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(demo.SCAN) as data:
        arrays = {name: data[name][:22] for name in ("diff3d", "xcoords", "ycoords")}
    np.savez(tmp_path / "s.npz", probeGuess=np.zeros((64, 64), complex), **arrays)
    names = [
        str(demo.MODEL),
        str(tmp_path / "s.npz"),
        "-o",
        str(tmp_path / "o.npz"),
        "--intensity",
        "--position-unit",
        "px",
    ]
    assert main.run(["reconstruct", *names, "-qq", "--exclude", "3"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("ptycho-runtime: s.npz: the probe is not used: it is zero everywhere")
    assert said[1] == "ptycho-runtime: skipped 1: left out with --exclude: 3"


def test_verbose_says_versions_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["inspect", str(demo.MODEL), "--verbose"]) == 0
    said = capsys.readouterr().err
    assert f"ptycho-runtime inspect {demo.MODEL} --verbose" in said
    assert re.search(r"exit code 0 after \d+\.\d\d s", said)


def test_log_gets_all_that_is_said_with_its_time(
    scan_of_20: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "run.log"
    assert main.run([*scan_of_20, "--quiet", "--log-file", str(log)]) == 0
    assert main.run(["inspect", "nothing.npz", "--log-file", str(log)]) == 2
    first, *lines = log.read_text().splitlines()
    assert first == FIRST_LINE
    assert all(
        re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d (error|warning|note|detail|answer) ", x)
        for x in lines
    )
    text = "\n".join(lines)
    assert re.search(r"answer (not )?trusted: object \d+ x \d+ px", text)
    assert "note   model.onnx: sha256" in text
    assert "error  nothing.npz: no such file" in text
    capsys.readouterr()


@pytest.mark.parametrize("content", [b"precious", b"# ptycho-export lo"])
def test_log_is_never_appended_to_what_is_no_log(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scan.npz"
    file.write_bytes(content)
    assert main.run(["doctor", "--log-file", str(file)]) == 2
    assert "exists, and is no earlier log" in capsys.readouterr().err
    assert file.read_bytes() == content
    assert main.run(["doctor", "--log-file", str(tmp_path / "none" / "run.log")]) == 2
    assert "no log can be written there" in capsys.readouterr().err


def test_no_bar_without_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("ptycho_runtime.cli.terminal._LINE_EVERY_S", 0.0)
    with ProgressBar() as progress:
        progress(16, 400)
        progress(400, 400)
    said = capsys.readouterr().err
    assert re.fullmatch(r"ptycho-runtime: 16 of 400 groups, \S+/s, about 1 s left\n", said)


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "1 s"), (89, "89 s"), (200, "3 min"), (9000, "2.5 h")])
def test_times_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_table_of_a_check_fits_80_columns() -> None:
    rows = [
        CheckRow("autoencoder", "predicted_diffraction", "cuda", 1.2e-4, 7.3e-4, 1e-6, 5.5e-6),
        CheckRow("autoencoder", "phase", "cuda", 1e-3, 7.3e-4, 1e-6, 5.5e-6),
        CheckRow("autoencoder", "phase", "cpu", 1e-3, 7.3e-4, 1e-6, 5.5e-6, engine="openvino", runs=False),
        CheckRow("autoencoder", "object", "int8 cpu", 0, 1, 0, 1, not_run="OpenVINO is not installed"),
    ]
    lines = check.table(rows)
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if not line.startswith(" ")] == [
        "autoencoder on cuda",
        "autoencoder on cpu, openvino, not used",
        "autoencoder on int8 cpu",
    ]
    assert lines[3].endswith("FAILED")
    assert lines[-1] == "  not run: OpenVINO is not installed"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert main.run(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("reconstruct", "doctor"):
        assert word in script
    assert main.run(["completion", shell, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"shell": shell, "script": script.removesuffix("\n")}
