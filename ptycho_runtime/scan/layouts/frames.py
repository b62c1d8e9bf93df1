"""Frames that lie one after the other in a file, and frames that lie in several."""

from __future__ import annotations

import os
from typing import IO, Any

import numpy as np

from ptycho_runtime.errors import ScanError


class FramesOnDisk:
    """Frames (n, h, w) of an open file, read when asked for, by several threads if need be.

    A memory map would do, but its pages count as the process's memory until the system takes them back.
    """

    def __init__(self, file: IO[bytes], offset_bytes: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Take the place of the first frame."""
        self.file, self.offset_bytes, self.shape, self.dtype = file, offset_bytes, shape, dtype
        self.frame_bytes = int(np.prod(shape[1:])) * dtype.itemsize

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        """Return some frames: a slice without step, or ascending numbers."""
        frames = np.arange(self.shape[0])[key]
        values: np.ndarray = np.empty((len(frames), *self.shape[1:]), self.dtype)
        starts = np.flatnonzero(np.diff(frames, prepend=-2) != 1)
        for first, stop in zip(starts, [*starts[1:], len(frames)], strict=True):
            self._fill(values[first:stop], int(frames[first]))
        return values

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _fill(self, part: np.ndarray, frame: int) -> None:
        view = part.data.cast("B")
        at = self.offset_bytes + frame * self.frame_bytes
        while len(view):
            got = os.preadv(self.file.fileno(), [view], at)
            if not got:
                raise ScanError(f"{self.file.name}: is cut short; frame {frame} is not in it whole")
            view, at = view[got:], at + got


class JoinedFrames:
    """Frames of several datasets, one after the other."""

    def __init__(self, parts: list[Any]) -> None:
        """Take the parts in their order; all have frames of one shape and type."""
        self.parts = parts
        self.starts = np.cumsum([0, *(part.shape[0] for part in parts)])
        self.shape = (int(self.starts[-1]), *parts[0].shape[1:])
        self.dtype = parts[0].dtype

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        """Return some frames: a slice without step, or ascending numbers."""
        frames = np.arange(self.shape[0])[key]
        values: np.ndarray = np.empty((len(frames), *self.shape[1:]), self.dtype)
        for part, start, stop in zip(self.parts, self.starts, self.starts[1:], strict=False):
            here = (frames >= start) & (frames < stop)
            if here.any():
                rows = frames[here] - start
                whole = rows[-1] - rows[0] == len(rows) - 1
                values[here] = part[int(rows[0]) : int(rows[-1]) + 1] if whole else part[rows]
        return values
