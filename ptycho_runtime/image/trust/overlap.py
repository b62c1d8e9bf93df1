"""How well overlapping patches agree: each against the others, and each pixel among its patches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ptycho_runtime.threads import shared

_AT_ONCE = 32  # patches
_SEEN = 0.05  # of the largest weight: where the others weigh less they are not asked


class Records(Protocol):
    """Arrays by number, as `Spool` keeps them."""

    @property
    def copies(self) -> np.ndarray:
        """How many of each were added up, (n,) int."""

    def get(self, which: np.ndarray) -> np.ndarray:
        """Return the records of some numbers, (k, …)."""


@dataclass(frozen=True)
class ScaledRecords:
    """Records whose real and imaginary parts are multiplied by factors as they are read."""

    records: Records
    real: float
    imag: float

    @property
    def copies(self) -> np.ndarray:
        """How many of each were added up."""
        return self.records.copies

    def get(self, which: np.ndarray) -> np.ndarray:
        """Return the records of some numbers."""
        found = self.records.get(which)
        found.real *= self.real
        found.imag *= self.imag
        return found


@dataclass(frozen=True)
class Placed:
    """Patches' middles as they were added to the canvas."""

    patches: Records
    """(crop, crop) complex64 a pattern: the sum of its copies on the canvas's pixels."""
    corners: np.ndarray
    """(n, 2) row and column of each on the canvas."""
    weights: np.ndarray
    """(crop, crop), the same for each."""

    @property
    def crop_px(self) -> int:
        """Side of a middle."""
        return len(self.weights)

    def numbers(self, which: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the numbers of patterns that have a patch, of those in the mask `which` (n,), a few at a time."""
        there = np.flatnonzero(which & (self.patches.copies > 0))
        for start in range(0, len(there), _AT_ONCE):
            yield there[start : start + _AT_ONCE]

    def sums_without(self, sums: np.ndarray, left_out: np.ndarray) -> np.ndarray:
        """Return canvas sums (rows, columns, 3) float64 less the patterns in the mask `left_out` (n,)."""
        found, crop = sums.copy(), self.crop_px
        for numbers in self.numbers(left_out):
            patches = self.patches.get(numbers)
            for number, patch in zip(numbers, patches, strict=True):
                row, column = self.corners[number]
                region = found[row : row + crop, column : column + crop]
                region[..., 0] -= patch.real * self.weights
                region[..., 1] -= patch.imag * self.weights
                region[..., 2] -= self.patches.copies[number] * self.weights
        return found


def leave_one_out(
    placed: Placed, sums: np.ndarray, used: np.ndarray, which: np.ndarray | None = None, threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Compare each pattern's patch with the weighted mean of the others there.

    Args:
        placed: the patches.
        sums: (rows, columns, 3) float64: weighted real and imaginary part and weight of those that are used.
        used: (n,) bool: whose patches are in the sums.
        which: (n,) bool: patterns to compare; all where None.
        threads: that compare.

    Returns:
        (disagreement, phase): (n,) float64 each, NaN where no other patch is. The phase between a patch p and the mean o of the
        others is taken out: √(min over φ of Σ w·|p − o·exp(iφ)|² / ((Σ w·|p|² + Σ w·|o|²) / 2)).
    """
    count, crop = len(used), placed.crop_px
    disagreement, phase = np.full(count, np.nan), np.full(count, np.nan)
    mean = (sums[..., 0] + 1j * sums[..., 1]).astype(np.complex64)
    means, weighing = (sliding_window_view(values, (crop, crop)) for values in (mean, sums[..., 2].astype(np.float32)))
    weights = placed.weights.astype(np.float32)

    def compare(numbers: np.ndarray) -> None:
        copies = placed.patches.copies[numbers].astype(np.float32)[:, None, None]
        patch = placed.patches.get(numbers)
        own = used[numbers].astype(np.float32)[:, None, None]
        rows, columns = placed.corners[numbers].T
        others = weighing[rows, columns] - own * copies * weights
        seen = others > _SEEN
        other = (means[rows, columns] - own * weights * patch) / np.where(seen, others, np.inf)
        patch /= copies
        here = np.where(seen, weights, 0)
        product = np.einsum("nij,nij->n", here * patch, other.conj())
        power = sum(np.einsum("nij,nij->n", here, part**2) for z in (patch, other) for part in (z.real, z.imag))
        known = seen.any((1, 2))
        ratio = 2.0 - 4.0 * np.abs(product) / np.maximum(power, 1e-30)
        disagreement[numbers] = np.where(known, np.sqrt(np.maximum(ratio, 0.0)), np.nan)
        phase[numbers] = np.where(known, np.angle(product), np.nan)

    for _ in shared(compare, placed.numbers(np.ones(count, bool) if which is None else which), threads):
        pass
    return disagreement, phase


def deviations(placed: Placed, sums: np.ndarray, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted standard deviations of amplitude and of phase (rad) of the patches that made each pixel.

    Args:
        placed: the patches.
        sums: (rows, columns, 3) float64 of all of them.
        threads: that compare; what they find is added up in the patches' order.

    Returns:
        (rows, columns) float32 twice; 0 where one patch or none was.
    """
    crop = placed.crop_px
    divisor = np.where(sums[..., 2] > 0, sums[..., 2], np.inf)
    mean = ((sums[..., 0] + 1j * sums[..., 1]) / divisor).astype(np.complex64)
    windows = sliding_window_view(mean, (crop, crop))
    squares = np.zeros((*mean.shape, 2))

    def off(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        copies = placed.patches.copies[numbers].astype(np.float32)[:, None, None]
        patch = placed.patches.get(numbers) / copies
        rows, columns = placed.corners[numbers].T
        there = windows[rows, columns]
        found = np.stack([np.abs(patch) - np.abs(there), np.angle(patch * there.conj())], axis=-1)
        found *= found
        found *= (placed.weights * copies)[..., None]
        return placed.corners[numbers], found

    for corners, parts in shared(off, placed.numbers(np.ones(len(placed.corners), bool)), threads):
        for (row, column), part in zip(corners.tolist(), parts, strict=True):
            region = squares[row : row + crop, column : column + crop]
            np.add(region, part, out=region)
    found = np.sqrt(squares / divisor[..., None]).astype(np.float32)
    return found[..., 0], found[..., 1]
