"""Arrays by number in a temporary file: memory stays flat, however many patterns come."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np


class Spool:
    """As many records of one shape as are put, in a file that is gone when this process is."""

    def __init__(self, count: int, shape: tuple[int, ...], dtype: Any) -> None:
        """Make room.

        Args:
            count: records.
            shape: of one.
            dtype: of its values.

        Raises:
            OSError: the folder for temporary files refuses.
        """
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.copies = np.zeros(count, np.int64)
        """How often each record was added."""
        self._bytes = int(np.prod(shape)) * self.dtype.itemsize
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - open for as long as this is; `close` ends it

    def add(self, which: np.ndarray, values: np.ndarray) -> None:
        """Put records (k, *shape) at the numbers `which`; what is there already is added up."""
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
        """Return records (k, *shape); zeros where none was put."""
        found = np.zeros((len(which), *self.shape), self.dtype)
        breaks = np.flatnonzero(np.diff(which) != 1) + 1
        for run in np.split(np.arange(len(which)), breaks):
            if len(run):
                self._file.seek(int(which[run[0]]) * self._bytes)
                self._read(found[run[0] : run[-1] + 1].data.cast("B"))
        found[self.copies[which] == 0] = 0
        return found

    def close(self) -> None:
        """Give the room back."""
        self._file.close()

    def _write(self, first: int, values: np.ndarray) -> None:
        self._file.seek(first * self._bytes)
        rest = values.data.cast("B")
        while rest:
            rest = rest[self._file.write(rest) :]

    def _read(self, rest: memoryview) -> None:
        while rest:
            got = self._file.readinto(rest)
            if not got:
                return
            rest = rest[got:]
