"""`ptycho-export audit`: what a file from a stranger would have executed."""

from __future__ import annotations

import json
import sys

import click

from exporters.cli import options
from exporters.cli.terminal import echo
from exporters.inspect.audit import scan_file


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def audit(files: tuple[str, ...], as_json: bool) -> None:
    """Say what each bundle or checkpoint would have executed, and whether it can be read safely. Runs nothing in it.

    Exit code 0 where all files are accepted, 2 where one is not.
    """
    results = [scan_file(path) for path in options.expand(files)]
    if as_json:
        echo(json.dumps([result.to_dict() for result in results], indent=1, ensure_ascii=False))
    else:
        for result in results:
            echo(result.text())
    sys.exit(max(result.exit_code for result in results))
