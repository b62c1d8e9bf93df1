"""What passes between the rooms of a live run, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from ptycho_runtime.errors import ReconstructionError

Overrun = Literal["lossless", "newest", "stop"]
Match = Literal["id", "time"]


class FaultError(ReconstructionError):
    """A live run cannot go on without guessing; what was placed is written, and the message says why."""


@dataclass(frozen=True)
class Frame:
    """A pattern as the detector gave it."""

    id: int
    """The detector's own number."""
    time_s: float
    """Its time stamp, seconds since the epoch; NaN where there is none."""
    values: np.ndarray
    """(rows, columns) of an unsigned, signed or floating type."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """What came with it, by name."""


@dataclass(frozen=True)
class Positions:
    """Where the beam was, for some frames; (x, y) in pixels of the image."""

    xy_px: np.ndarray
    """(n, 2) float64; NaN where the stage gave none."""
    ids: np.ndarray | None = None
    """(n,) int64, of the frames they belong to; None where times say it."""
    times_s: np.ndarray | None = None
    """(n,) float64, seconds since the epoch."""


class Sink(Protocol):
    """What a source gives its frames to; called from any thread."""

    def frame(self, frame: Frame) -> None:
        """Take a frame."""

    def positions(self, positions: Positions) -> None:
        """Take positions; the same ones may come again."""

    def ended(self) -> None:
        """Know that the source has sent its last frame."""

    def disconnected(self, what: str) -> None:
        """Know that a source is gone for now."""

    def fault(self, error: Exception) -> None:
        """Know that a source cannot go on."""


class Source(Protocol):
    """Where frames come from."""

    def start(self, sink: Sink) -> None:
        """Begin to give frames to a sink, from a thread of its own."""

    def close(self) -> None:
        """End."""
