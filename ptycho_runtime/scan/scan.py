"""A scan: patterns on disk, their positions in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from ptycho_runtime.scan.detector import fitted
from ptycho_runtime.scan.options import Domain, Fit
from ptycho_runtime.scan.scale import pattern_energy

_CHUNK_VALUES = 1 << 20  # pixels looked at in one go


@dataclass
class Scan:
    """Patterns on disk with their positions in memory."""

    name: str
    read: Callable[[np.ndarray], np.ndarray]  # ascending indices -> (n, h, w), as stored
    frames: np.ndarray  # (n,) int64: frame of each usable pattern in the file
    positions_px: np.ndarray  # (n, 2) float64 (x, y)
    size_px: int  # side of a stored pattern
    domain: Domain
    probe: np.ndarray | None = None  # (modes, N, N) complex64
    pixel_size_m: float = 0.0  # of the object; 0 unknown
    truth: np.ndarray | None = None  # the object the scan was simulated from
    skipped: dict[str, list[int]] = field(default_factory=dict)  # reason -> frames
    attributes: dict[str, float] = field(default_factory=dict)
    fit: Fit | None = None
    warnings: list[str] = field(default_factory=list)  # what is to be said of it, one line each
    close_file: Callable[[], None] = field(default=lambda: None, repr=False)
    # (N, domain as fed) -> Σ d² of each frame of the file, NaN where it was not looked at: spares a pass over the file
    energy_of_frame: dict[tuple[int, str], np.ndarray] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Return the number of usable patterns."""
        return len(self.frames)

    def __enter__(self) -> Scan:
        """Return the scan; its file is closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the scan's file."""
        self.close()

    def close(self) -> None:
        """Close the scan's file; patterns cannot be read afterwards."""
        self.close_file()

    def patterns(self, which: np.ndarray, N: int, domain: str) -> np.ndarray:
        """Return patterns as a model takes them, (n, N, N) float32.

        Args:
            which: indices into the usable patterns, in any order.
            N: side that the model takes, pixels.
            domain: `amplitude` or `counts`.
        """
        unique, back = np.unique(which, return_inverse=True)
        frames = self.frames[unique]
        order = np.argsort(frames, kind="stable")
        stored: np.ndarray = np.empty((len(unique), self.size_px, self.size_px), np.float32)
        stored[order] = self.read(frames[order])
        return self.as_fed(stored, N, domain)[back]

    def energy(self, N: int, domain: str) -> np.ndarray:
        """Return Σ d² of each usable pattern d as `patterns` gives it, (n,) float64; read only where not known yet."""
        known = self.energy_of_frame.get((N, domain))
        if known is None:
            found = [pattern_energy(self.patterns(which, N, domain)) for which in self.chunks()]
            return np.concatenate(found)
        energy: np.ndarray = known[self.frames]
        return energy

    def as_fed(self, stored: np.ndarray, N: int, domain: str) -> np.ndarray:
        """Return stored patterns (n, h, w) float32 as `patterns` does."""
        is_intensity = self.domain == "intensity"
        if self.size_px != N:
            # Counts add up when pixels are joined; amplitudes do not.
            stored = fitted(stored if is_intensity else stored.astype(np.float64) ** 2, N, self.fit)
            is_intensity = True
        if is_intensity != (domain == "counts"):
            stored = np.sqrt(stored) if is_intensity else stored**2
        return np.asarray(stored, np.float32)

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield the indices of all usable patterns, as many at a time as memory and caches like."""
        step = max(1, _CHUNK_VALUES // self.size_px**2)
        for start in range(0, len(self), step):
            yield np.arange(start, min(start + step, len(self)))
