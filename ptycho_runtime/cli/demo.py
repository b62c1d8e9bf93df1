"""`ptycho-runtime demo`: a first picture, with the model and the scan that come with this package."""

from __future__ import annotations

import argparse
from pathlib import Path

from ptycho_runtime import demo
from ptycho_runtime.cli import reconstruct
from ptycho_runtime.cli.options import examples, figure_option
from ptycho_runtime.cli.terminal import say


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser("demo", help="make a first picture with the small model and scan of this package")
    command.add_argument(
        "--out", type=Path, default=Path("ptycho-demo"), metavar="FOLDER", help="where it goes (ptycho-demo)"
    )
    figure_option(command)
    command.add_argument("--force", action="store_true", help="overwrite files there that are not earlier results")
    command.add_argument("--json", action="store_true", help="print JSON for machines")
    examples(
        command,
        """
        ptycho-runtime demo
        ptycho-runtime demo --out first --figure first/figure.png
        """,
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    out = str(arguments.out / "object.h5")
    given = [str(demo.MODEL), str(demo.SCAN), "--intensity", "-o", out]
    say("a simulated scan, and a model that was trained for such scans alone; what runs is")
    say(f"ptycho-runtime reconstruct {' '.join(given)}")
    given += [] if arguments.figure is None else ["--figure", str(arguments.figure)]
    given += ["--force"] * arguments.force + ["--json"] * arguments.json
    command = argparse.ArgumentParser()
    reconstruct.options(command)
    # What the demo says is logged already; `reconstruct` looks where, so as not to write over it.
    return reconstruct.run(command.parse_args(given, argparse.Namespace(log_file=arguments.log_file)))
