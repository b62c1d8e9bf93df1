"""`ptycho-runtime check`: the parity verdict again, on this host."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from ptycho_runtime.cli.options import device_options, examples, sha256_option
from ptycho_runtime.cli.terminal import say, show
from ptycho_runtime.cli.time_limit import timeout_option

if TYPE_CHECKING:
    from ptycho_runtime.engine.judging import CheckRow


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser("check", help="repeat the parity verdict on this host, from golden.npz")
    command.add_argument("bundle", type=Path)
    command.add_argument("--json", action="store_true", help="print JSON for machines")
    device_options(command)
    sha256_option(command)
    timeout_option(command)
    examples(
        command,
        """
        ptycho-runtime check wts.h5.zip
        ptycho-runtime check wts.h5.zip --device cuda --json
        """,
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from ptycho_runtime.check import check_host
    from ptycho_runtime.engine.judging import raise_unless_passed
    from ptycho_runtime.engine.options import RunOptions
    from ptycho_runtime.export.bundle import open_export

    export = open_export(arguments.bundle, arguments.sha256)
    rows = check_host(export, RunOptions(arguments.device, threads=arguments.threads))
    say(f"{export.path.name}: sha256 {export.sha256}")
    if arguments.json:
        show(json.dumps([_plain({**vars(row), "passed": row.passed}) for row in rows], indent=1, allow_nan=False))
    else:
        show("\n".join(table(rows)))
    raise_unless_passed(rows, export.path.name)
    return 0


def table(rows: list[CheckRow]) -> list[str]:
    """Return the rows as lines of at most 80 columns: graph, device and engine once, then each output with its errors and what is allowed."""
    lines = [f"{'  output':26s}{'max abs of allowed':20s}{'rel. L2 of allowed':20s}verdict"]
    head = ""
    for row in rows:
        engine = "" if row.engine == "onnxruntime" or row.engine in row.device else f", {row.engine}"
        used = "" if row.runs else ", not used"
        if (where := f"{row.graph} on {row.device}{engine}{used}") != head:
            head = where
            lines.append(head)
        if row.not_run:
            lines.append(f"  {row.verdict}")
            continue
        max_abs = f"{row.max_abs:.1e} of {row.allowed_max_abs:.1e}"
        rel_l2 = f"{row.rel_l2:.1e} of {row.allowed_rel_l2:.1e}"
        lines.append(f"  {row.output:24s}{max_abs}  {rel_l2}  {row.verdict}")
    return lines


def _plain(row: dict[str, object]) -> dict[str, object]:
    """Return a row without the numbers that JSON lacks: null stands for them."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
