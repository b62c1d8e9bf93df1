"""`ptycho-runtime batch`: many scans, each to its image, and a summary of all."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ptycho_runtime.cli.options import examples
from ptycho_runtime.cli.parts import dask_option
from ptycho_runtime.cli.terminal import EXIT_STOPPED, say, show
from ptycho_runtime.cli.time_limit import timeout_option
from ptycho_runtime.cli.work import chosen_work, say_record, work_options
from ptycho_runtime.errors import ReconstructionError

if TYPE_CHECKING:
    from ptycho_runtime.many.cluster import Cluster
    from ptycho_runtime.many.one_scan import Work
    from ptycho_runtime.many.records import ScanRecord
    from ptycho_runtime.many.workers import Workers


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser("batch", help="turn many scans into images, and sum up how they ended")
    command.add_argument("bundle", type=Path, help="exported bundle (.zip) or .onnx file")
    command.add_argument(
        "scans", nargs="+", metavar="SCAN", help="scans, patterns of their names, or @LIST: a file with one a line"
    )
    command.add_argument(
        "--resume", action="store_true", help="go on where an earlier batch ended; what is done is not repeated"
    )
    command.add_argument("--json", action="store_true", help="print JSON for machines")
    timeout_option(command)
    dask_option(command)
    work_options(command)
    examples(
        command,
        """
        ptycho-runtime batch wts.h5.zip "scans/*.h5" -o results --jobs 2
        ptycho-runtime batch wts.h5.zip @scans.txt -o results --resume --json
        """,
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code: the gravest of all scans'."""
    from ptycho_runtime.many.batch import plan_batch, run_batch
    from ptycho_runtime.many.records import gravest
    from ptycho_runtime.many.results import SUMMARIES, Results, listed
    from ptycho_runtime.many.summary import counts, document

    scans = listed(arguments.scans)
    work = chosen_work(arguments)
    results = Results(work.folder)
    done, tasks = plan_batch(work, results, scans, resume=arguments.resume)
    if done:
        say(f"{len(done)} of {len(scans)} scans are done already")

    def finished(record: ScanRecord, count: int, total: int) -> None:
        say_record(record, f"{count}/{total} ")

    try:
        with results.locked(), _executor(arguments, work) as executor:
            records = run_batch(executor, work, done, tasks, finished)
    except KeyboardInterrupt:
        say("stopped; what is done is kept, and --resume goes on from there")
        return EXIT_STOPPED
    if arguments.json:
        show(document(records, len(scans)).rstrip())
    else:
        ways = ", ".join(f"{count} {name}" for name, count in counts(records).items())
        show(f"{len(scans)} scans: {ways}; {', '.join(str(work.folder / name) for name in SUMMARIES)}")
    return gravest(record.exit_code for record in records)


def _executor(arguments: argparse.Namespace, work: Work) -> Workers | Cluster:
    if arguments.dask is None:
        from ptycho_runtime.many.workers import Workers

        return Workers(work, arguments.jobs, arguments.scan_timeout)
    from ptycho_runtime.many.cluster import Cluster, share_of_threads

    if arguments.scan_timeout is not None or arguments.jobs > 1:
        raise ReconstructionError(
            "--jobs and --scan-timeout are for processes of this host; leave them out with --dask"
        )
    return Cluster(arguments.dask, replace(work, run=share_of_threads(arguments.dask, work.run)))
