"""Frames of an HDF5 file that is still being written (SWMR), as they come."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.files import check_is_file, printable
from ptycho_runtime.live.values import FaultError, Frame, Positions, Sink
from ptycho_runtime.scan.layouts.units import unit_text
from ptycho_runtime.scan.options import PATTERN_KEYS

_POLL_S = 0.1
_AT_ONCE = 64  # frames read in one go
_MOST_AXES = 3


class FollowSource:
    """The patterns of a file by row, and the positions that lie beside them.

    A frame's id is its number in `indexes` where the file has these, else its row. A row that nobody has written yet reads as
    zeros: it is asked for again until later rows are there.
    """

    def __init__(
        self,
        path: Path,
        *,
        patterns_key: str | None = None,
        position_keys: tuple[str, str] | None = ("xcoords", "ycoords"),
    ) -> None:
        """Name the file and what is in it.

        Args:
            path: of the file.
            patterns_key: of the patterns (n, rows, columns); one of `PATTERN_KEYS` where None.
            position_keys: of x and y, pixels; None where positions come another way.

        Raises:
            OSError: no file is there.
        """
        check_is_file(path, "scan")
        self.path, self.patterns_key, self.position_keys = path, patterns_key, position_keys
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, sink: Sink) -> None:
        """See `Source.start`."""
        self._thread = threading.Thread(target=self._run, args=(sink,), name="follow", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """See `Source.close`."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, sink: Sink) -> None:
        try:
            file = _opened(self.path)
            with file:
                self._follow(file, sink)
        except Exception as error:  # in this thread nobody would see it
            sink.fault(
                error if isinstance(error, ScanError) else FaultError(f"{self.path.name}: cannot be read ({error})")
            )

    def _follow(self, file: Any, sink: Sink) -> None:
        patterns, xy = self._datasets(file)
        numbers = file.get("indexes")
        row = positions = 0
        while not self._stop.is_set():
            if xy is not None:
                positions = self._take_positions(xy, numbers, positions, sink)
            before = row
            row = self._take_frames(patterns, numbers, row, sink)
            if row == before:
                self._stop.wait(_POLL_S)

    def _datasets(self, file: Any) -> tuple[Any, tuple[Any, Any] | None]:
        keys = PATTERN_KEYS if self.patterns_key is None else (self.patterns_key,)
        found = [file[key] for key in keys if key in file]
        if not found or len(found[0].shape) != _MOST_AXES:
            raise FaultError(
                f"{self.path.name}: has no patterns (n, rows, columns) under {', '.join(map(printable, keys))}; name them with --patterns-key"
            )
        if self.position_keys is None:
            return found[0], None
        lacking = [key for key in self.position_keys if key not in file]
        if lacking:
            raise FaultError(
                f"{self.path.name}: has no positions {', '.join(map(printable, lacking))}; name them with --x-key and --y-key, or give "
                "--positions"
            )
        x, y = (file[key] for key in self.position_keys)
        for key, dataset in zip(self.position_keys, (x, y), strict=True):
            unit = unit_text(dataset)
            if unit and unit.lower() not in ("px", "pixel", "pixels"):
                raise FaultError(
                    f"{self.path.name}: {printable(key)} is in {printable(unit)}; expected pixels; give --positions plan.csv with pixels"
                )
        return found[0], (x, y)

    def _take_frames(self, patterns: Any, numbers: Any, row: int, sink: Sink) -> int:
        patterns.refresh()
        stop = min(patterns.shape[0], row + _AT_ONCE)
        if stop <= row:
            return row
        stored = patterns[row:stop]
        written = stored.reshape(len(stored), -1).any(1)
        # A row without counts may be one that is still to come, unless a later one is there.
        last = int(np.flatnonzero(written)[-1]) + 1 if written.any() else 0
        if last == 0 and patterns.shape[0] > stop:
            last = len(stored)
        ids = _numbers(numbers, row, row + last)
        for number, values in zip(ids, stored[:last], strict=True):
            sink.frame(Frame(number, float("nan"), values))
        return row + last

    def _take_positions(self, xy: tuple[Any, Any], numbers: Any, first: int, sink: Sink) -> int:
        for dataset in xy:
            dataset.refresh()
        stop = min(dataset.shape[0] for dataset in xy)
        if stop <= first:
            return first
        values = np.stack([np.asarray(dataset[first:stop], np.float64) for dataset in xy], axis=-1)
        sink.positions(Positions(values, np.array(_numbers(numbers, first, stop), np.int64)))
        return int(stop)


def _numbers(numbers: Any, first: int, stop: int) -> list[int]:
    if numbers is None:
        return list(range(first, stop))
    numbers.refresh()
    found: list[int] = np.asarray(numbers[first:stop], np.int64).tolist()
    return found


def _opened(path: Path) -> Any:
    """Return a file as a reader beside its writer, or plainly where it was written without one."""
    import contextlib

    import h5py

    with contextlib.suppress(ImportError):
        import hdf5plugin  # noqa: F401 - the filters of detectors
    # Beside its writer; in the writer's own process, whose locks it has to share; as it was written without a reader.
    for how in ({"swmr": True, "locking": False}, {"swmr": True}):
        with contextlib.suppress(OSError):
            return h5py.File(path, "r", libver="latest", **how)
    return h5py.File(path, "r", locking=False)
