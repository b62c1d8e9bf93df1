"""Every command of ptycho-export says as much as is asked for, has examples that its grammar takes, and answers in JSON."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("click")

from click.testing import CliRunner

from exporters.cli.main import cli
from exporters.cli.voice import EXAMPLES
from ptycho_runtime.cli.log import FIRST_LINE

SHOWN = sorted(name for name, command in cli.commands.items() if not command.hidden)


@pytest.mark.parametrize("name", SHOWN)
def test_help_ends_with_examples_that_the_grammar_takes(name: str) -> None:
    shown = CliRunner().invoke(cli, [name, "--help"]).output
    lines = [line.strip() for line in shown.partition("Examples:\n")[2].strip().splitlines()]
    assert lines == [line.strip() for line in EXAMPLES[name].strip().splitlines()]
    for line in lines:
        words = shlex.split(line)
        assert words[:2] == ["ptycho-export", name]
        cli.commands[name].make_context(name, words[2:])


@pytest.mark.parametrize("name", SHOWN)
def test_every_command_takes_the_common_options(name: str) -> None:
    options = {option for parameter in cli.commands[name].params for option in parameter.opts}
    assert options >= {"--json", "--verbose", "-v", "--quiet", "-q", "--log-file"}


def report(folder: Path, name: str) -> Path:
    from exporters.parity.report import ParityReport
    from exporters.parity.rows import ParityRow

    row = ParityRow("autoencoder", "onnx", "cpu", "float32", 1, "simulated", "not run", "no reason")
    path = folder / f"{name}.json"
    path.write_text(ParityReport(name, [row], planned=(row.cell,)).to_json())
    return path


def test_answers_for_machines_are_json_and_the_log_has_them(tmp_path: Path) -> None:
    first, second, log = report(tmp_path, "a"), report(tmp_path, "b"), tmp_path / "run.log"
    done = CliRunner().invoke(cli, ["compare", str(first), str(second), "--json", "--quiet", "--log-file", str(log)])
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    assert json.loads(done.stdout) == {"changes": ["bundle: a → b"], "passed": False}
    head, *lines = log.read_text().splitlines()
    assert head == FIRST_LINE
    assert all(re.match(r"\S+T\S+ (note|answer|error) ", line) for line in lines)
    assert any("reading" in line for line in lines)
    assert any("bundle: a → b" in line for line in lines)


def test_errors_are_said_whatever_is_to_be_heard(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["inspect", str(tmp_path / "nothing.zip"), "--quiet"])
    assert done.exit_code == 2
    assert done.stderr.startswith("ptycho-export: ")
    (tmp_path / "notes.txt").write_text("precious")
    done = CliRunner().invoke(cli, ["audit", "x", "--log-file", str(tmp_path / "notes.txt")])
    assert done.exit_code == 2
    assert "is no earlier log" in done.stderr
    assert (tmp_path / "notes.txt").read_text() == "precious"
