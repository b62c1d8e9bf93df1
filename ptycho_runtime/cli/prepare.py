"""`ptycho-runtime prepare`: look at a scan once, for all the parts that it is reconstructed in."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ptycho_runtime.cli.options import (
    chosen_image,
    chosen_run,
    examples,
    image_options,
    read_files,
    read_options,
    run_options,
    scan_options,
    sha256_option,
)
from ptycho_runtime.cli.terminal import say, show, warn
from ptycho_runtime.cli.time_limit import timeout_option
from ptycho_runtime.errors import ReconstructionError


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser("prepare", help="look at a scan once, to reconstruct it in parts")
    options(command)
    examples(
        command,
        """
        ptycho-runtime prepare wts.h5.zip scan.h5 -o plan.h5 --intensity
        ptycho-runtime prepare wts.h5.zip scan.npz -o plan.h5 --json
        """,
    )
    command.set_defaults(run=run)


def options(command: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of this command."""
    command.add_argument("bundle", type=Path, help="exported bundle (.zip) or .onnx file")
    command.add_argument("scan", type=Path, help="as reconstruct takes it")
    command.add_argument(
        "-o", "--out", type=Path, required=True, metavar="plan.h5", help="the plan, which each part reads"
    )
    command.add_argument("--force", action="store_true", help="overwrite what is at --out, whatever it is")
    command.add_argument("--json", action="store_true", help="print JSON for machines")
    run_options(command)
    sha256_option(command)
    timeout_option(command)
    image_options(command)
    scan_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    import ptycho_runtime
    from ptycho_runtime.many.hdf5 import check_place
    from ptycho_runtime.many.plan import prepare
    from ptycho_runtime.scan.read import read_scan

    check_place(arguments.out, "plan", read_files(arguments), force=arguments.force)
    if "flagged" in arguments.exclude:
        raise ReconstructionError(
            "parts know of no first image whose flags they could leave out; leave out --exclude flagged, and give their numbers"
        )
    image, read = chosen_image(arguments), read_options(arguments)
    with (
        ptycho_runtime.open(
            arguments.bundle, chosen_run(arguments), model_domain=arguments.model_domain, sha256=arguments.sha256
        ) as model,
        read_scan(arguments.scan, model.export.N, read) as scan,
    ):
        for warning in scan.warnings:
            warn(f"{scan.name}: {warning}")
        for reason, frames in scan.skipped.items():
            warn(f"skipped {len(frames)}: {reason}")
        for line in model.graphs(image, has_probe=scan.probe is not None).said:
            say(line)
        plan = prepare(model, scan, image, arguments.out)
    if arguments.json:
        facts = {"written": str(plan.path), "groups": plan.groups, "input_scale_factor": plan.factor}
        show(json.dumps({**facts, "batch": plan.run.groups, "engine": plan.run.engine}, indent=1))
        return 0
    show(
        f"{plan.path}: {plan.groups} groups, input_scale_factor {plan.factor:.6g}, batch {plan.run.groups}, {plan.run.engine}"
    )
    return 0
