"""What would make a scan fit that does not: other axes, signs or sizes of its positions, another centre of its patterns, tried on a sample."""

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
# What settles a reading; positions are exchanged first and mirrored then.
_OPTIONS = {
    "x and y exchanged": "--swap-xy",
    "x mirrored": "--flip-x",
    "y mirrored": "--flip-y",
    "both signs turned (the sample's motion for the beam's)": "--flip-x and --flip-y, or the other --positions-of",
    "x and y exchanged and x mirrored": "--swap-xy and --flip-x",
    "x and y exchanged and y mirrored": "--swap-xy and --flip-y",
    "x and y exchanged and both mirrored": "--swap-xy, --flip-x and --flip-y",
}
_SIZES = (0.5, 0.7, 0.8, 0.9, 1.1, 1.25, 1.4, 2.0)


@dataclass(frozen=True)
class Reading:
    """A reading of positions or patterns under which patches agree better than as given."""

    name: str
    disagreement: float
    as_given: float
    of_centre: bool = False
    """It is of the zero frequency's place, not of the positions."""

    @property
    def remedy(self) -> str:
        """What to do where it is of the positions."""
        if self.name in _OPTIONS:
            return f"give {_OPTIONS[self.name]} (what was given already, leave out)"
        return "check the unit of the positions, --pixel-size-m, energy and distance"


def better_reading(
    placed: Placed, positions_px: np.ndarray, used: np.ndarray, centre_px: tuple[float, float], N: int
) -> Reading | None:
    """Return the reading of positions, or of the zero frequency's place, that clearly wins over the one given; None where none does.

    Args:
        placed: the patches.
        positions_px: (n, 2) (x, y) as given.
        used: (n,) bool: patterns to draw the sample from.
        centre_px: of the mean pattern (x, y), from the middle.
        N: side of a pattern, pixels.

    A transposed or mirrored pattern gives a patch that is so too, which is the same as positions exchanged or mirrored. A pattern
    whose zero frequency lies beside the middle gives a patch with a phase ramp.
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
    moved = {
        f"({x}, {y})": _disagreement(placed, numbers, relative, _ramp(x, y, placed.crop_px, N))
        for x, y in _places(centre_px)
    }
    scores |= moved
    best = min(scores, key=lambda name: scores[name])
    return Reading(best, scores[best], as_given, best in moved) if scores[best] < _CLEARLY * as_given else None


def _places(centre_px: tuple[float, float]) -> list[tuple[int, int]]:
    """Return where (x, y) the zero frequency may lie, pixels from the middle: one pixel beside it, and where the light is."""
    beside = {(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)} | {(round(centre_px[0]), round(centre_px[1]))}
    return sorted(beside - {(0, 0)})


def _ramp(x: int, y: int, crop: int, N: int) -> np.ndarray:
    """Return what takes the phase off patches (crop, crop) that a zero frequency at (x, y) pixels from the middle leaves."""
    across, down = (np.exp(-2j * np.pi * shift * (np.arange(crop) - crop // 2) / N) for shift in (x, y))
    found: np.ndarray = np.outer(down, across).astype(np.complex64)
    return found


def _together(positions_px: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return the numbers of the patterns nearest to the middle one, ascending."""
    there = np.flatnonzero(used)
    if not len(there):
        return there
    off = positions_px[there] - np.median(positions_px[there], axis=0)
    return np.sort(there[np.argsort(np.hypot(*off.T), kind="stable")[:_SAMPLE]])


def _disagreement(
    placed: Placed, numbers: np.ndarray, positions_px: np.ndarray, factor: np.ndarray | float = 1.0
) -> float:
    """Return the median disagreement of some patches at other positions, to the whole pixel, each times a factor (crop, crop)."""
    crop = placed.crop_px
    corners = np.rint(positions_px[:, ::-1]).astype(int)
    corners -= corners.min(0)
    rows, columns = corners.max(0) + crop
    if rows * columns > 64 * crop * crop * len(numbers):
        return float("inf")
    sums = np.zeros((rows, columns, 3))
    patches, copies = placed.patches.get(numbers) * factor, placed.patches.copies[numbers]
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
