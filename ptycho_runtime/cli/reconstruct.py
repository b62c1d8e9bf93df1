"""`ptycho-runtime reconstruct`: a scan to an image."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ptycho_runtime.cli.inspect import export_facts, is_export, print_facts
from ptycho_runtime.cli.options import (
    chosen_image,
    chosen_run,
    examples,
    figure_option,
    image_options,
    read_files,
    read_options,
    run_options,
    scan_options,
    sha256_option,
)
from ptycho_runtime.cli.parts import in_parts, parts_options
from ptycho_runtime.cli.parts import run as run_in_parts
from ptycho_runtime.cli.terminal import EXIT_STOPPED, ProgressBar, say, show, warn
from ptycho_runtime.cli.time_limit import timeout_option
from ptycho_runtime.errors import ReconstructionError, exit_code_of

if TYPE_CHECKING:
    from ptycho_runtime.api import Reconstructor
    from ptycho_runtime.image.options import ReconstructOptions
    from ptycho_runtime.image.products.target import Target
    from ptycho_runtime.scan.scan import Scan


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser("reconstruct", help="turn a scan into an image")
    options(command)
    examples(
        command,
        """
        ptycho-runtime reconstruct wts.h5.zip scan.npz -o object.h5
        ptycho-runtime reconstruct wts.h5.zip scan.cxi --dry-run
        ptycho-runtime reconstruct wts.h5.zip scan.h5 -o object.cxi --intensity --position-unit um --figure figure.pdf
        ptycho-runtime reconstruct wts.h5.zip scan.h5 -o object.h5 --config beamline.toml --strict --json
        """,
    )
    command.set_defaults(run=run)


def options(command: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of this command."""
    command.add_argument("bundle", type=Path, help="exported bundle (.zip) or .onnx file")
    command.add_argument("scan", type=Path, help="PtychoPINN NPZ, CXI, HDF5 or Ptychodus diffraction file")
    command.add_argument(
        "-o",
        "--out",
        type=Path,
        help="result: .h5 (Ptychodus product), .npz, .cxi, .tif or .png; a .png comes with each",
    )
    figure_option(command)
    run_options(command)
    sha256_option(command)
    timeout_option(command)
    image_options(command)
    command.add_argument("--force", action="store_true", help="overwrite files at --out that are not earlier results")
    command.add_argument("--dry-run", action="store_true", help="say what would be understood, and run nothing")
    command.add_argument("--json", action="store_true", help="print JSON for machines")
    command.add_argument("--strict", action="store_true", help="exit with 5 where the image is not trusted")
    scan_options(command)
    parts_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    import ptycho_runtime
    from ptycho_runtime.image.products.target import check_target
    from ptycho_runtime.scan.read import read_scan

    if is_export(arguments.scan) and not is_export(arguments.bundle):
        raise ReconstructionError(
            f"{arguments.scan} is a bundle and {arguments.bundle} is none; the bundle comes first, then the scan"
        )
    if arguments.dry_run:
        return _look(arguments)
    if arguments.out is None:
        raise ReconstructionError("where the result goes is not said; give -o FILE, or --dry-run to look first")
    if in_parts(arguments):
        return run_in_parts(arguments)
    target = check_target(arguments.out, read_files(arguments), force=arguments.force, figure=arguments.figure)
    how = chosen_image(arguments)
    with (
        ptycho_runtime.open(
            arguments.bundle,
            chosen_run(arguments),
            model_domain=arguments.model_domain,
            sha256=arguments.sha256,
        ) as model,
        read_scan(arguments.scan, model.export.N, read_options(arguments)) as scan,
    ):
        return _reconstruct(arguments, how, model, scan, target)


def _reconstruct(
    arguments: argparse.Namespace, how: ReconstructOptions, model: Reconstructor, scan: Scan, target: Target
) -> int:
    """Turn an open scan into the result and return the exit code."""
    from ptycho_runtime.cli import report
    from ptycho_runtime.image.products.write import write_product

    say(f"{model.export.path.name}: sha256 {model.export.sha256}")
    say(
        f"{scan.name}: {len(scan)} patterns of {scan.size_px} px, {scan.domain}, fed as {model.export.domain}; device {model.patches.device}"
    )
    for line in model.graphs(how, has_probe=scan.probe is not None).said:
        say(line)
    for warning in scan.warnings:
        warn(f"{scan.name}: {warning}")
    for reason, frames in scan.skipped.items():
        warn(f"skipped {len(frames)}: {reason}: {', '.join(map(str, frames[:20]))}{'…' if len(frames) > 20 else ''}")
    with ProgressBar() as progress:
        result = model.reconstruct(scan, how, progress)
    if "flagged" in arguments.exclude and not result.partial:
        flagged = result.scan.frames[result.trust.flagged]
        say(f"{len(flagged)} flagged frames are left out, and the image is made again")
        if len(flagged):
            with ProgressBar() as progress:
                result = model.reconstruct(result.scan.without(flagged, "flagged in a first image"), how, progress)
    if result.note and result.note != model.patches.note:
        warn(result.note)
    written = write_product(result, target)
    if arguments.json:
        show(json.dumps(report.document(result, written), indent=1))
    else:
        show("\n".join(report.lines(result, written)))
    if result.partial:
        return EXIT_STOPPED
    return exit_code_of(result.trust.verdict, strict=arguments.strict)


def _look(arguments: argparse.Namespace) -> int:
    """Print what would be understood of bundle and scan."""
    from ptycho_runtime.export.bundle import open_export
    from ptycho_runtime.export.domain import with_domain
    from ptycho_runtime.scan.facts import scan_facts
    from ptycho_runtime.scan.read import read_scan

    export = open_export(arguments.bundle, arguments.sha256)
    print_facts(export_facts(with_domain(export, arguments.model_domain)))
    with read_scan(arguments.scan, export.N, read_options(arguments)) as scan:
        print_facts(scan_facts(scan))
    return 0
