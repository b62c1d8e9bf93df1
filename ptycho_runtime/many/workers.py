"""Processes that take scans one by one: what ends one of them ends the scan it was at, and no other."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ptycho_runtime.closing import Closing
from ptycho_runtime.many.one_scan import Open, Task, Work, record_of, run_scan
from ptycho_runtime.many.records import EXIT_BUG, EXIT_INPUT, ScanRecord

_GRACE_S = 5.0  # for a process to end by itself


@dataclass
class _Worker:
    process: Any  # of the `spawn` context
    connection: Connection
    task: Task | None = None
    began: float = 0.0


class Workers(Closing):
    """As many processes as are asked for, each with the model open; a context manager."""

    def __init__(self, work: Work, count: int, most_s: float | None = None) -> None:
        """Start no process yet.

        Args:
            work: what is done with every scan.
            count: processes.
            most_s: seconds that a scan may take before its process is ended; as long as it likes where None.
        """
        self.work, self.count, self.most_s = work, count, most_s
        self._workers: list[_Worker] = []

    def close(self) -> None:
        """End the processes; a scan that one is at is given up."""
        for worker in self._workers:
            worker.connection.close()
            if worker.task is not None:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_GRACE_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()

    def run(self, tasks: Iterable[Task]) -> Iterator[ScanRecord]:
        """Yield the record of each scan as it is done; its files, and the record among them, are written by then.

        Raises:
            OutputError: the record of a scan whose process ended cannot be written.
        """
        waiting = iter(tasks)
        left = True
        while left or self._busy():
            while left and len(self._busy()) < self.count:
                task = next(waiting, None)
                left = task is not None
                if task is not None:
                    self._give(task)
            yield from self._finished()

    def signal_all(self, number: int) -> None:
        """Send a signal to all processes."""
        for worker in self._workers:
            os.kill(worker.process.pid, number)

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.task is not None]

    def _give(self, task: Task) -> None:
        worker = next((worker for worker in self._workers if worker.task is None), None)
        if worker is None:
            worker = _started(self.work)
            self._workers.append(worker)
        worker.task, worker.began = task, time.monotonic()
        # One that ended between two scans is found as one that ended at this scan.
        with contextlib.suppress(BrokenPipeError):
            worker.connection.send(task)

    def _finished(self) -> Iterator[ScanRecord]:
        busy = {worker.connection: worker for worker in self._busy()}
        if not busy:
            return
        rest_s = None
        if self.most_s is not None:
            rest_s = max(min(worker.began for worker in busy.values()) + self.most_s - time.monotonic(), 0.0)
        for ready in multiprocessing.connection.wait(list(busy), rest_s):
            worker = busy.pop(ready)  # type: ignore[call-overload]  # they are the connections that were given
            try:
                record: ScanRecord = worker.connection.recv()
                worker.task = None
            except (EOFError, ConnectionError):
                record = self._lost(worker, _ending(worker.process))
            yield record
        for worker in busy.values():
            if self.most_s is not None and time.monotonic() - worker.began >= self.most_s:
                worker.process.kill()
                yield self._lost(worker, (EXIT_INPUT, f"not done after {self.most_s:g} s (--scan-timeout)"))

    def _lost(self, worker: _Worker, ending: tuple[int, str]) -> ScanRecord:
        """Return and write the record of a scan whose process has ended; the next scan gets a new process."""
        worker.process.join()
        worker.connection.close()
        self._workers.remove(worker)
        assert worker.task is not None
        record = record_of(self.work, worker.task, *ending)
        record.write(self.work.folder)
        return record


def _ending(process: Any) -> tuple[int, str]:
    """Return exit code and words for a process that ended without an answer."""
    process.join()
    code = process.exitcode
    if code == -signal.SIGKILL:
        return EXIT_INPUT, "the process that was at it was killed (SIGKILL); was there too little memory?"
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return EXIT_BUG, f"the process that was at it ended by {name}; this is a bug in ptycho-runtime or onnxruntime"
    return EXIT_BUG, f"the process that was at it ended with exit code {code}; this is a bug in ptycho-runtime"


def _started(work: Work) -> _Worker:
    # A fresh interpreter and no fork: threads of a session do not survive a fork.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _serve(work: Work, connection: Connection) -> None:
    """Take scans until nobody gives any more."""
    # Ctrl-C reaches the whole group of processes: the one that gives scans decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    opened = Open()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(run_scan(work, task, opened))


def _end_with(parent: Any) -> None:
    """End this process when the one that gives scans has ended, however that was."""
    parent.join()
    os._exit(EXIT_BUG)
