"""`ptycho-runtime watch`: scans of a folder as they are completed, each once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ptycho_runtime.cli.options import examples
from ptycho_runtime.cli.terminal import EXIT_STOPPED, say, show
from ptycho_runtime.cli.work import chosen_work, say_record, seconds, work_options

if TYPE_CHECKING:
    from ptycho_runtime.many.records import ScanRecord


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser("watch", help="turn the scans of a folder into images as they are completed")
    command.add_argument("bundle", type=Path, help="exported bundle (.zip) or .onnx file")
    command.add_argument("folder", type=Path, metavar="DIR", help="where scans come to")
    command.add_argument("--pattern", default="*.h5", help="of the scans' names; **/*.h5 for folders in DIR too (*.h5)")
    command.add_argument(
        "--marker", default="", metavar="SUFFIX", help="a scan is complete when NAME + SUFFIX is there, such as .done"
    )
    command.add_argument(
        "--settled",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="without a marker: complete when unchanged for so long (10)",
    )
    command.add_argument("--look-every", type=seconds, default=2.0, metavar="SECONDS", help="how often to look (2)")
    command.add_argument("--once", action="store_true", help="end when every scan that is there is done")
    command.add_argument("--json", action="store_true", help="print JSON for machines at the end")
    work_options(command)
    examples(
        command,
        """
        ptycho-runtime watch wts.h5.zip incoming -o results --pattern "*.cxi"
        ptycho-runtime watch wts.h5.zip incoming -o results --marker .done --once
        """,
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code; it ends by Ctrl-C or SIGTERM, unless `--once`."""
    from ptycho_runtime.many.records import gravest
    from ptycho_runtime.many.results import Results
    from ptycho_runtime.many.summary import counts, document
    from ptycho_runtime.many.watch import Arrivals, Place, Rhythm, watch
    from ptycho_runtime.many.workers import Workers

    place = Place(arguments.folder, arguments.pattern, arguments.marker, arguments.settled)
    arrivals = Arrivals(place, arguments.out)
    work = chosen_work(arguments)
    results = Results(work.folder)
    rhythm = Rhythm(arguments.look_every, arguments.once)

    def finished(record: ScanRecord) -> None:
        say_record(record)

    say(f"{place.folder / place.pattern}: results go to {work.folder}; {len(results.records)} are there")
    try:
        with results.locked(), Workers(work, arguments.jobs, arguments.scan_timeout) as workers:
            records = watch(workers, work, results, arrivals, rhythm, finished)
    except KeyboardInterrupt:
        say("stopped; a scan that was begun will be begun again")
        return EXIT_STOPPED
    if arguments.json:
        show(document(records, len(records)).rstrip())
    else:
        show(", ".join(f"{count} {name}" for name, count in counts(records).items()) or "no scan was there")
    return gravest(record.exit_code for record in records)
