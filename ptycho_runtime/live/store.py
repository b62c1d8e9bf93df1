"""Frames that wait: in memory up to a number, in a file beyond it, and never more of these than was said."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_runtime.live.values import FaultError


class Store:
    """Frames of one shape and type by id."""

    def __init__(self, in_memory: int, spool_bytes: int, folder: Path | None = None) -> None:
        """Begin without frames.

        Args:
            in_memory: frames held in memory.
            spool_bytes: size of the file for those beyond it; none where 0.
            folder: for that file; the one for temporary files where None.
        """
        self.in_memory, self.spool_bytes, self.folder = in_memory, spool_bytes, folder
        self._held: dict[int, np.ndarray | int] = {}  # a frame, or its place in the file
        self._memory = 0
        self._free: list[int] = []
        self._places = 0
        self._file: Any = None
        self._shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.uint16)

    def __len__(self) -> int:
        """Return how many frames wait."""
        return len(self._held)

    def __contains__(self, number: int) -> bool:
        """Say whether a frame waits."""
        return number in self._held

    @property
    def spooled(self) -> int:
        """Frames in the file."""
        return len(self._held) - self._memory

    def put(self, number: int, values: np.ndarray) -> None:
        """Take a frame.

        Raises:
            FaultError: the file is as large as it may be, or the disk refuses.
        """
        if self._memory < self.in_memory:
            self._held[number] = values
            self._memory += 1
            return
        self._shape, self._dtype = values.shape, values.dtype
        if not self._free and (self._places + 1) * values.nbytes > self.spool_bytes:
            raise FaultError(
                f"{len(self._held)} frames wait and the spool of {self.spool_bytes} bytes is full: the session is slower than the "
                "detector; give --spool-bytes, or --overrun newest"
            )
        place = self._free.pop() if self._free else self._places
        self._places = max(self._places, place + 1)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115 - `close` ends it
            self._file.seek(place * values.nbytes)
            rest = np.ascontiguousarray(values).data.cast("B")
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise FaultError(
                f"frames that wait cannot be written to disk ({error.strerror or error}); make room, or give --spool-folder"
            ) from error
        self._held[number] = place

    def get(self, number: int) -> np.ndarray:
        """Return a frame; it goes on waiting."""
        held = self._held[number]
        if isinstance(held, np.ndarray):
            return held
        values = np.empty(self._shape, self._dtype)
        self._file.seek(held * values.nbytes)
        rest = values.data.cast("B")
        while rest:
            got = self._file.readinto(rest)
            if not got:
                raise FaultError(
                    "a frame that waited on disk is gone; is the folder for temporary files being cleaned?"
                )
            rest = rest[got:]
        return values

    def remove(self, number: int) -> None:
        """Let go of a frame, if it is there."""
        held = self._held.pop(number, None)
        if isinstance(held, np.ndarray):
            self._memory -= 1
        elif held is not None:
            self._free.append(held)

    def close(self) -> None:
        """Let go of all frames and of the file."""
        self._held.clear()
        if self._file is not None:
            self._file.close()
