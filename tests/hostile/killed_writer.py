"""Writes a file in processes that are killed: at every line of the writer, while others write too, and on a full disk.

Usage: killed_writer.py MODE FOLDER. Prints one JSON object. Runs on its own because it forks.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import sys
import zipfile
from pathlib import Path
from types import FrameType
from typing import Any

from ptycho_runtime import files
from ptycho_runtime.errors import OutputError
from ptycho_torch.bundle import write as writer

OLD = [("a", b"old" * 1000), ("b", b"old")]
NEW = [("a", os.urandom(40_000)), ("b", b"new")]
_SAMPLE = 29  # of zipfile's own lines, every so many


class _Killer:
    """Kills this process before the n-th line of the writer, or the n-th sampled line of zipfile underneath it."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.inner = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> _Killer:
        file = frame.f_code.co_filename
        if event == "line" and file in (writer.__file__, files.__file__):
            self.left -= 1
        elif event == "line" and file == zipfile.__file__:
            self.inner += 1
            self.left -= self.inner % _SAMPLE == 0
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self


def _child(run: Any) -> int:
    """Run something in a fork; return how it ended."""
    pid = os.fork()
    if pid == 0:
        try:
            run()
        except OutputError:
            os._exit(3)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _state(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        found = [(name, archive.read(name)) for name in archive.namelist()]
    return {str(OLD): "old", str(NEW): "new"}.get(str(found), "other")


def every_step(folder: Path) -> dict[str, Any]:
    """Kill a write at each step; after each, the file is whole, and the next write leaves nothing beside it."""
    path = folder / "wts.h5.zip"
    states, leftovers, step = [], 0, 0
    while True:
        writer.write_zip(path, OLD)
        assert [p.name for p in folder.iterdir()] == [path.name], "leftovers were not cleaned up"

        def traced(at: int = step) -> None:
            sys.settrace(_Killer(at))
            writer.write_zip(path, NEW)
            sys.settrace(None)

        ended = _child(traced)
        states.append(_state(path))
        leftovers += len(list(folder.iterdir())) - 1
        if ended == 0:
            return {"steps": step, "states": states, "leftovers": leftovers}
        assert ended == -signal.SIGKILL, ended
        step += 1


def many_writers(folder: Path) -> dict[str, Any]:
    """Let processes write one path at a time, one of them killed again and again, while this one reads."""
    path = folder / "wts.h5.zip"
    writer.write_zip(path, [("a", bytes(1000)), ("b", bytes(10))])

    enough = mmap.mmap(-1, 1)  # shared with the forks

    def write(mark: int) -> None:
        while not enough[0]:
            writer.write_zip(path, [("a", bytes([mark]) * 60_000), ("b", bytes([mark]) * 10)])

    def dying() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.004)  # SIGALRM ends the process without any clean-up
        write(9)

    writers = []
    for mark in (1, 2, 3):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                write(mark)
                code = 0
            finally:
                os._exit(code)
        writers.append(pid)
    whole = 0
    for _ in range(30):
        _child(dying)
        with zipfile.ZipFile(path) as archive:
            a, b = archive.read("a"), archive.read("b")
            assert a[:1] == b[:1] == a[-1:]
            whole += 1
    enough[0] = 1
    statuses = [os.waitpid(pid, 0)[1] for pid in writers]
    writer.write_zip(path, [("a", bytes(1000)), ("b", bytes(10))])
    return {"statuses": statuses, "whole": whole, "names": [p.name for p in folder.iterdir()]}


def full_disk(folder: Path) -> dict[str, Any]:
    """Write with less and less room; the old file stays until everything fits."""
    path = folder / "wts.h5.zip"
    codes, states = [], []
    for room_bytes in (0, 1, 100, 4096, 8192, 30_000, 39_999, 1 << 20):
        writer.write_zip(path, OLD)

        def limited(room: int = room_bytes) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
            writer.write_zip(path, NEW)

        codes.append(_child(limited))
        states.append(_state(path))
        assert [p.name for p in folder.iterdir()] == [path.name]
    return {"codes": codes, "states": states}


if __name__ == "__main__":
    modes = {"every-step": every_step, "many-writers": many_writers, "full-disk": full_disk}
    print(json.dumps(modes[sys.argv[1]](Path(sys.argv[2]))))
