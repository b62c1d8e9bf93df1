"""Scans as they are completed: a folder is looked at again and again, and each scan is reconstructed once, however often this starts."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.many.batch import Executor
from ptycho_runtime.many.one_scan import Work
from ptycho_runtime.many.records import Fingerprint, ScanRecord
from ptycho_runtime.many.results import Results
from ptycho_runtime.many.summary import EVERY_S, write_summary

if sys.platform != "win32":
    import fcntl


@dataclass(frozen=True)
class Place:
    """Where scans come to, and when one is complete."""

    folder: Path
    pattern: str = "*.h5"
    """Of the scans' names, `**/` for folders in it too."""
    marker: str = ""
    """A scan is complete when a file of its name with this behind it is there; where empty, when it is settled and nobody writes to it."""
    settled_s: float = 10.0
    """For how long size and time of a file must not have changed."""


class Arrivals:
    """Says which scans of a place are complete."""

    def __init__(self, place: Place, results: Path) -> None:
        """Look at nothing yet.

        Args:
            place: where scans come to.
            results: a folder whose files are no scans, though it may lie in the place.

        Raises:
            ReconstructionError: the place is no folder, or is that of the results; the pattern is none.
        """
        self.place, self.results = place, results.resolve()
        if not place.folder.is_dir():
            raise ReconstructionError(f"{place.folder}: is no folder that scans could come to")
        if place.folder.resolve() == self.results:
            raise ReconstructionError(
                f"{place.folder}: results would be taken for scans there; give another folder with -o"
            )
        try:
            self.files()
        except (ValueError, NotImplementedError) as error:
            raise ReconstructionError(
                f"--pattern {place.pattern!r} is no pattern of names in a folder ({error}); expected one such as '*.h5' or '**/*.h5'"
            ) from error
        self._seen: dict[Path, tuple[Fingerprint, float]] = {}

    def files(self) -> list[Path]:
        """Return all scans that are there, complete or not."""
        found = sorted(self.place.folder.glob(self.place.pattern))
        return [path for path in found if path.is_file() and self.results not in path.resolve().parents]

    def complete(self, files: list[Path]) -> list[Path]:
        """Return which of some files are complete now."""
        return [path for path in files if self._is_complete(path)]

    def _is_complete(self, path: Path) -> bool:
        if self.place.marker:
            return path.with_name(path.name + self.place.marker).exists()
        mark = Fingerprint.if_any(path)
        if mark is None:
            return False
        now = time.monotonic()
        before, since = self._seen.get(path, (None, now))
        if mark != before:
            since = now
        self._seen[path] = (mark, since)
        return mark.size_bytes > 0 and now - since >= self.place.settled_s and not has_writer(path)


def has_writer(path: Path) -> bool:
    """Say whether a process of this host has a file open for writing, as far as the system tells.

    Linux grants a lease for reading only where nobody writes; where it grants none, as to other users' files, a lock such as HDF5's
    writers take is asked for. A writer on another host, or on a file system without either, is not seen: then size and time must do.
    """
    try:
        with path.open("rb") as file:
            return _is_written(file)
    except OSError:
        return False


def _is_written(file: IO[bytes]) -> bool:
    if sys.platform == "linux":
        try:
            # Who opens the file for writing in this moment has the lease's holder told by a signal: by one that means nothing.
            fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            return False
        except BlockingIOError:
            return True
        except OSError:
            pass
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@dataclass(frozen=True)
class Rhythm:
    """How often a watch looks, and when it ends."""

    every_s: float = 2.0
    once: bool = False
    """End when every scan that is there is done."""
    sleep: Callable[[float], None] = time.sleep


def watch(
    executor: Executor,
    work: Work,
    results: Results,
    arrivals: Arrivals,
    rhythm: Rhythm,
    finished: Callable[[ScanRecord], None],
) -> list[ScanRecord]:
    """Reconstruct scans as they are completed; returns the records of all, when it ends.

    Args:
        executor: what runs them.
        work: what is done with each scan.
        results: the folder; what is done or failed in it is not begun again, unless the scan's file has changed since.
        arrivals: where scans come to.
        rhythm: how often to look.
        finished: told of each.

    Raises:
        OutputError: the folder of results cannot be written any more.
    """
    written = -EVERY_S
    changed = bool(results.records)
    try:
        while True:
            waiting = [path for path in arrivals.files() if results.ended(work, path) is None]
            for record in executor.run(results.task(path) for path in arrivals.complete(waiting)):
                results.records[record.scan] = record
                changed = True
                finished(record)
            if changed and time.monotonic() - written > EVERY_S:
                _sum_up(work, results)
                changed, written = False, time.monotonic()
            if rhythm.once and all(results.ended(work, path) is not None for path in arrivals.files()):
                break
            rhythm.sleep(rhythm.every_s)
    finally:
        if changed:
            with contextlib.suppress(KeyboardInterrupt):
                _sum_up(work, results)
    return list(results.records.values())


def _sum_up(work: Work, results: Results) -> None:
    write_summary(work.folder, list(results.records.values()), len(results.records))
