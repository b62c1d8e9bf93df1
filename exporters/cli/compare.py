"""`ptycho-export compare`: two reports side by side, on any host."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from exporters.cli import options
from exporters.cli.terminal import EXIT_PARITY, Say, echo, guarded
from exporters.parity.forms.markdown import compare as differences
from exporters.parity.forms.reading import read_report


@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@options.as_json
@click.option("--fail-on-change", is_flag=True, help="End with exit code 3 where anything changed beyond rounding.")
def compare(first: Path, second: Path, fail_on_change: bool, as_json: bool) -> None:
    """Say what changed between two parity.json reports: files, hosts, versions, verdicts, errors that doubled or halved.

    Exit code 0 where both could be read, whatever changed; 2 where one is cut, is no report, or holds figures that do not belong together.
    A report that was edited into another that is consistent cannot be told from a true one: `verify` proves the files themselves.
    """

    def run(say: Say) -> int:
        say("reading")
        old, new = read_report(first), read_report(second)
        changes = differences(old, new)
        unchanged = f"no change beyond rounding; both {'passed' if new.passed else 'failed'}"
        if as_json:
            echo(json.dumps({"changes": changes, "passed": new.passed}, indent=1, ensure_ascii=False))
        else:
            echo("\n".join(changes or [unchanged]))
        return EXIT_PARITY if changes and fail_on_change else 0

    ended = guarded(str(first), run)
    sys.exit(ended.exit_code or ended.value)
