"""What would make a scan fit that does not: other axes, signs or sizes of its positions, tried on a sample of its patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptycho_runtime.image.trust.overlap import Placed, leave_one_out

_SAMPLE = 240  # patterns that lie together
_CLEARLY = 0.7  # of the disagreement as given: below it, another reading wins
# (reading, 2 × 2 matrix that takes positions (x, y) as given to what they would be, what to do)
_AXES = {
    "x and y exchanged": ((0, 1), (1, 0)),
    "x mirrored": ((-1, 0), (0, 1)),
    "y mirrored": ((1, 0), (0, -1)),
    "both signs turned (the sample's motion for the beam's)": ((-1, 0), (0, -1)),
    "x and y exchanged and x mirrored": ((0, -1), (1, 0)),
    "x and y exchanged and y mirrored": ((0, 1), (-1, 0)),
    "x and y exchanged and both mirrored": ((0, -1), (-1, 0)),
}
_SIZES = (0.5, 0.7, 0.8, 0.9, 1.1, 1.25, 1.4, 2.0)


@dataclass(frozen=True)
class Reading:
    """A reading of the positions under which patches agree better than as given."""

    name: str
    disagreement: float
    as_given: float


def better_reading(placed: Placed, positions_px: np.ndarray, used: np.ndarray) -> Reading | None:
    """Return the reading of positions that clearly wins over the one given, None where none does.

    Args:
        placed: the patches.
        positions_px: (n, 2) (x, y) as given.
        used: (n,) bool: patterns to draw the sample from.

    A transposed or mirrored pattern gives a patch that is so too, which is the same as positions exchanged or mirrored.
    """
    numbers = _together(positions_px, used & (placed.patches.copies > 0))
    if len(numbers) < 8:
        return None
    middle = positions_px[numbers].mean(0)
    relative = positions_px[numbers] - middle
    as_given = _disagreement(placed, numbers, relative)
    trials = {name: relative @ np.array(matrix, float).T for name, matrix in _AXES.items()}
    trials |= {f"positions × {size:g}": relative * size for size in _SIZES}
    scores = {name: _disagreement(placed, numbers, positions) for name, positions in trials.items()}
    best = min(scores, key=lambda name: scores[name])
    return Reading(best, scores[best], as_given) if scores[best] < _CLEARLY * as_given else None


def _together(positions_px: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return the numbers of the patterns nearest to the middle one, ascending."""
    there = np.flatnonzero(used)
    if not len(there):
        return there
    off = positions_px[there] - np.median(positions_px[there], axis=0)
    return np.sort(there[np.argsort(np.hypot(*off.T), kind="stable")[:_SAMPLE]])


def _disagreement(placed: Placed, numbers: np.ndarray, positions_px: np.ndarray) -> float:
    """Return the median disagreement of some patches at other positions, to the whole pixel."""
    crop = placed.crop_px
    corners = np.rint(positions_px[:, ::-1]).astype(int)
    corners -= corners.min(0)
    rows, columns = corners.max(0) + crop
    if rows * columns > 64 * crop * crop * len(numbers):
        return float("inf")
    sums = np.zeros((rows, columns, 3))
    patches, copies = placed.patches.get(numbers), placed.patches.copies[numbers]
    for (row, column), patch, count in zip(corners, patches, copies, strict=True):
        region = sums[row : row + crop, column : column + crop]
        region[..., 0] += patch.real * placed.weights
        region[..., 1] += patch.imag * placed.weights
        region[..., 2] += count * placed.weights
    sample = Placed(_Part(patches, copies), corners, placed.weights)
    found = leave_one_out(sample, sums, np.ones(len(numbers), bool))[0]
    known = found[np.isfinite(found)]
    return float(np.median(known)) if len(known) >= len(numbers) / 2 else float("inf")


@dataclass(frozen=True)
class _Part:
    """Records in memory, as `Spool` gives them."""

    records: np.ndarray
    copies: np.ndarray

    def get(self, which: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.records[which]
        return found
