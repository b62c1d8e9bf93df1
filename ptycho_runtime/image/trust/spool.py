"""Arrays by number in a temporary file: memory stays flat, however many patterns come."""

from __future__ import annotations

import os
import tempfile
import threading
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

_LEAST = 1024  # records that room is made for


class Spool:
    """As many records of one shape as are put, in a file that is gone when this process is, unless it was given one that stays."""

    def __init__(self, count: int, shape: tuple[int, ...], dtype: Any, path: Path | None = None) -> None:
        """Make room.

        Args:
            count: records; more may come.
            shape: of one.
            dtype: of its values.
            path: a file that stays; what it holds is not known until `copies` say so. A temporary one where None.

        Raises:
            OSError: the folder for temporary files, or that of `path`, refuses.
        """
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._copies = np.zeros(count, np.int64)
        self._count = count
        self._at = threading.Lock()  # of the file's one position, for threads that read
        self._bytes = int(np.prod(shape)) * self.dtype.itemsize
        self._file: FileIO
        if path is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `close`
        else:
            self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)

    @property
    def copies(self) -> np.ndarray:
        """How often each record was added, (n,) int64."""
        return self._copies[: self._count]

    def room_for(self, count: int) -> None:
        """Let there be so many records at least."""
        if count > len(self._copies):
            more = max(count, 2 * len(self._copies), _LEAST) - len(self._copies)
            self._copies = np.concatenate([self._copies, np.zeros(more, np.int64)])
        self._count = max(count, self._count)

    def holds(self, copies: np.ndarray) -> None:
        """Believe that the file holds records as `copies` (n,) says."""
        self.room_for(len(copies))
        self._copies[: len(copies)] = copies

    def sync(self) -> None:
        """Make what was put last through a power failure."""
        os.fsync(self._file.fileno())

    def add(self, which: np.ndarray, values: np.ndarray) -> None:
        """Put records (k, *shape) at the numbers `which`; what is there already is added up."""
        self.room_for(int(which.max(initial=-1)) + 1)
        new = (self.copies[which] == 0).all() and len(np.unique(which)) == len(which)
        if new and (np.diff(which) == 1).all():
            self._write(int(which[0]), np.ascontiguousarray(values, self.dtype))
            self.copies[which] += 1
            return
        for number, value in zip(which.tolist(), values, strict=True):
            earlier = self.get(np.array([number]))[0] if self.copies[number] else 0
            self._write(number, np.ascontiguousarray(earlier + value, self.dtype))
            self.copies[number] += 1

    def get(self, which: np.ndarray) -> np.ndarray:
        """Return records (k, *shape); zeros where none was put. Several threads may ask at a time."""
        found = np.zeros((len(which), *self.shape), self.dtype)
        breaks = np.flatnonzero(np.diff(which) != 1) + 1
        for run in np.split(np.arange(len(which)), breaks):
            if len(run):
                with self._at:
                    self._file.seek(int(which[run[0]]) * self._bytes)
                    self._read(found[run[0] : run[-1] + 1].data.cast("B"))
        found[self.copies[which] == 0] = 0
        return found

    def close(self) -> None:
        """Give the room back."""
        self._file.close()

    def _write(self, first: int, values: np.ndarray) -> None:
        rest = values.data.cast("B")
        with self._at:
            self._file.seek(first * self._bytes)
            while rest:
                rest = rest[self._file.write(rest) :]

    def _read(self, rest: memoryview) -> None:
        while rest:
            got = self._file.readinto(rest)
            if not got:
                return
            rest = rest[got:]
