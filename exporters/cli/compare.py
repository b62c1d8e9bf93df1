"""`ptycho-export compare`: two reports side by side, on any host."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from exporters.cli.terminal import Say, guarded
from exporters.parity.forms.markdown import compare as differences
from exporters.parity.forms.reading import read_report


@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
def compare(first: Path, second: Path) -> None:
    """Say what changed between two parity.json reports: files, hosts, versions, verdicts, errors that doubled or halved.

    Exit code 0 where both could be read, whatever changed; 2 where one is cut, edited or no report.
    """

    def run(say: Say) -> list[str]:
        say("reading")
        old, new = read_report(first), read_report(second)
        return differences(old, new) or [f"no change beyond rounding; both {'passed' if new.passed else 'failed'}"]

    ended = guarded(str(first), run)
    if ended.value is not None:
        click.echo("\n".join(ended.value))
    sys.exit(ended.exit_code)
