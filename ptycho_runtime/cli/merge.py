"""`ptycho-runtime merge`: all parts of a scan to its image."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_runtime.cli.options import examples, figure_option
from ptycho_runtime.cli.terminal import say, show
from ptycho_runtime.cli.time_limit import timeout_option
from ptycho_runtime.errors import exit_code_of

if TYPE_CHECKING:
    from ptycho_runtime.image.products.target import Target


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser("merge", help="put the parts of a scan together, in whatever order they are given")
    command.add_argument("parts", nargs="+", type=Path, metavar="PART", help="files that reconstruct --part wrote")
    command.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        help="result: .h5 (Ptychodus product), .npz, .cxi, .tif or .png; a .png comes with each",
    )
    command.add_argument("--plan", type=Path, help="where the plan lies now, if not where the parts found it")
    figure_option(command)
    timeout_option(command)
    command.add_argument("--force", action="store_true", help="overwrite files at --out that are not earlier results")
    command.add_argument("--json", action="store_true", help="print JSON for machines")
    command.add_argument("--strict", action="store_true", help="exit with 5 where the image is not trusted")
    examples(
        command,
        """
        ptycho-runtime merge part-*.h5 -o object.h5
        ptycho-runtime merge part-1.h5 part-2.h5 -o object.cxi --figure figure.png --strict
        """,
    )
    command.set_defaults(run=run)


@dataclass(frozen=True)
class Merged:
    """What is to be said of an image that was merged and written."""

    note: str
    verdict: str
    lines: list[str]
    document: dict[str, Any]

    def show(self, *, as_json: bool, strict: bool) -> int:
        """Print it; returns the exit code."""
        if self.note:
            say(self.note)
        show(json.dumps(self.document, indent=1) if as_json else "\n".join(self.lines))
        return exit_code_of(self.verdict, strict=strict)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from ptycho_runtime.image.products.target import check_target

    inputs = {"plan": arguments.plan, **{f"part {number}": path for number, path in enumerate(arguments.parts, 1)}}
    target = check_target(arguments.out, inputs, force=arguments.force, figure=arguments.figure)
    return merged(arguments.parts, target, arguments.plan).show(as_json=arguments.json, strict=arguments.strict)


def merged(parts: Sequence[Path], target: Target, plan: Path | None = None) -> Merged:
    """Merge parts and write the image; returns what is to be said."""
    from ptycho_runtime.cli import report
    from ptycho_runtime.image.products.target import refuse_input
    from ptycho_runtime.image.products.write import write_product
    from ptycho_runtime.many.merge import gathered, merge

    found = gathered(parts, plan)
    read = found.plan.read
    inputs = {"scan": found.plan.scan_path, "positions file": read.positions_file, "mask": read.mask_file}
    for path in target.paths:
        refuse_input(path, {"plan": found.plan.path, **inputs})
    result = merge(found)
    written = write_product(result, target)
    return Merged(result.note, result.trust.verdict, report.lines(result, written), report.document(result, written))
