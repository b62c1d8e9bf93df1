"""Many scans, each by itself: those that have their image already are passed over, and one that fails stops no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ptycho_runtime.errors import OutputError, exit_code_of
from ptycho_runtime.many.one_scan import Task, Work
from ptycho_runtime.many.records import ScanRecord
from ptycho_runtime.many.results import Results
from ptycho_runtime.many.summary import EVERY_S, write_summary

Finished = Callable[[ScanRecord, int, int], None]
"""Called with (record, scans that are done, scans in all)."""


class Executor(Protocol):
    """What runs scans: processes of this host, or a cluster."""

    def run(self, tasks: Iterable[Task]) -> Iterator[ScanRecord]:
        """Yield the record of each scan as it is done, with its files written."""


def plan_batch(
    work: Work, results: Results, scans: Sequence[Path], *, resume: bool
) -> tuple[list[ScanRecord], list[Task]]:
    """Return (records of scans that are done, scans to do).

    Args:
        work: what is done with each scan.
        results: the folder.
        scans: each once.
        resume: pass over what is done.

    Raises:
        OutputError: there are results already, and it was not said to go on with them or to make them anew; or a result would
            replace a scan.
    """
    there = [scan for scan in scans if str(scan.absolute()) in results.records]
    if there and not resume and not work.force:
        raise OutputError(
            f"{work.folder}: has results of {len(there)} of these scans; give --resume to go on, --force to make them anew, or another folder"
        )
    found = [results.done(work, scan) if resume else None for scan in scans]
    # As strict as is asked for now.
    done = [
        replace(record, exit_code=exit_code_of(record.verdict, strict=work.strict))
        for record in found
        if record is not None
    ]
    tasks = [results.task(scan) for scan, record in zip(scans, found, strict=True) if record is None]
    inputs = {scan.resolve() for scan in scans}
    for task in tasks:
        for suffix in (work.suffix, ".png"):
            place = work.folder / f"{task.name}{suffix}"
            if place.resolve() in inputs:
                raise OutputError(f"{place}: is one of the scans; give another folder with -o")
    return done, tasks


def run_batch(
    executor: Executor, work: Work, done: Sequence[ScanRecord], tasks: Sequence[Task], finished: Finished
) -> list[ScanRecord]:
    """Run scans and keep the summary up to date; returns all records, sorted by the scans' paths.

    Args:
        executor: what runs them.
        work: what is done with each scan.
        done: records of those that are done already.
        tasks: the others.
        finished: told of each.

    Raises:
        OutputError: the folder cannot be written any more.
    """
    records = list(done)
    total = len(done) + len(tasks)
    written = time.monotonic()
    try:
        for record in executor.run(tasks):
            records.append(record)
            finished(record, len(records), total)
            if time.monotonic() - written > EVERY_S:
                write_summary(work.folder, records, total)
                written = time.monotonic()
    finally:
        # Stopped by Ctrl-C too: what is done is summed up.
        write_summary(work.folder, records, total)
    return sorted(records, key=lambda record: record.scan)
