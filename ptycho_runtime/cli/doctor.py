"""`ptycho-runtime doctor`: what this host can do."""

from __future__ import annotations

import argparse
import json

from ptycho_runtime.cli.options import examples
from ptycho_runtime.cli.terminal import show


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser("doctor", help="say what this host can do and what to install")
    command.add_argument("--json", action="store_true", help="print JSON for machines")
    examples(
        command,
        """
        ptycho-runtime doctor
        ptycho-runtime doctor --json
        """,
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from ptycho_runtime import doctor

    facts = doctor.report()
    if arguments.json:
        show(json.dumps(facts, indent=1))
    else:
        for topic, text in facts.items():
            show(f"{topic:12s} {text}")
    return 0
