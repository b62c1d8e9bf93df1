"""Options that the commands for many scans share, and what they say of each scan."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ptycho_runtime.cli.options import (
    chosen_image,
    chosen_run,
    image_options,
    positive,
    read_options,
    run_options,
    scan_options,
    sha256_option,
)
from ptycho_runtime.cli.terminal import say
from ptycho_runtime.errors import NotExportedError

if TYPE_CHECKING:
    from ptycho_runtime.many.one_scan import Work
    from ptycho_runtime.many.records import ScanRecord

FORMATS = ("h5", "npz", "cxi", "tif", "png")


def work_options(command: argparse.ArgumentParser) -> None:
    """Add what decides how each of many scans is reconstructed; `chosen_work` returns it."""
    command.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder for results and summary")
    command.add_argument(
        "--format", choices=FORMATS, default="h5", help="of the results (h5: Ptychodus product); a .png comes with each"
    )
    command.add_argument("--jobs", type=positive, default=1, metavar="N", help="scans at a time, a process each (1)")
    command.add_argument(
        "--scan-timeout", type=seconds, metavar="SECONDS", help="give a scan up that is not done by then, and go on"
    )
    command.add_argument("--strict", action="store_true", help="exit with 5 where an image is not trusted")
    command.add_argument(
        "--force", action="store_true", help="overwrite files that are no earlier results, and make results anew"
    )
    run_options(command)
    sha256_option(command)
    image_options(command)
    scan_options(command)


def chosen_work(arguments: argparse.Namespace) -> Work:
    """Return what `work_options` were given; the bundle is opened once to see that it can be.

    Raises what opening a bundle raises.
    """
    from ptycho_runtime.export.bundle import open_export
    from ptycho_runtime.export.domain import with_domain
    from ptycho_runtime.many.one_scan import Work, sharing_threads

    export = with_domain(open_export(arguments.bundle, arguments.sha256), arguments.model_domain)
    if "diffraction_to_obj" not in export.graphs:
        raise NotExportedError(f"{export.path.name}: holds no diffraction_to_obj graph, which object patches come from")
    run = chosen_run(arguments)
    if arguments.jobs > 1:
        run = sharing_threads(run, arguments.jobs)
    return Work(
        bundle=arguments.bundle.absolute(),
        bundle_sha256=export.sha256,
        folder=arguments.out.absolute(),
        suffix=f".{arguments.format}",
        model_domain=arguments.model_domain,
        run=run,
        read=read_options(arguments),
        image=chosen_image(arguments),
        exclude_flagged="flagged" in arguments.exclude,
        strict=arguments.strict,
        force=arguments.force,
    )


def seconds(text: str) -> float:
    """Return a time in seconds."""
    value = float(text)
    if not 0.0 <= value < 1e7:
        raise argparse.ArgumentTypeError(f"{text} is no time in seconds")
    return value


def say_record(record: ScanRecord, count: str = "") -> None:
    """Say how a scan ended."""
    how = f"failed: {record.message}" if record.failed else record.verdict
    say(f"{count}{record.name}: {how} ({record.seconds:.1f} s)")
