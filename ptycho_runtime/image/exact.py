"""Sums of floats that do not depend on the order of their terms, nor on how these were split among several sums.

Floating-point addition rounds, so (a + b) + c and a + (b + c) differ in the last bits. Here each term is first rounded to a grid
that is coarse enough for float64 to add its numbers without any rounding, and what that left is rounded to a second, finer grid:
two exact sums, whose total is as good as float32 terms are. Where terms are larger than the grids were made for, both move up by
one step; what was summed is then just what it would have been on the new grids. The result depends on the terms alone.

After J. Demmel and H. D. Nguyen, "Parallel reproducible summation", IEEE Trans. Comput. 64 (2015) 2060.
"""

from __future__ import annotations

from typing import Self

import numpy as np

_STEP_BITS = (
    28  # between two grids: the total errs by 2⁻²⁸ of the largest term at most, and 2²⁵ terms are summed exactly
)
LOWEST_LEVEL = -5  # its grids hold the smallest float32


def level_of(values: np.ndarray, least: int = LOWEST_LEVEL) -> int:
    """Return the level whose grids hold all of the values; `least` if that is higher. What is not finite is passed over."""
    largest = float(np.abs(values).max(initial=0.0))
    if not np.isfinite(largest):
        finite = np.abs(values)[np.isfinite(values)]
        largest = float(finite.max(initial=0.0))
    if largest == 0.0:
        return least
    # Half a step of the grid above is where a value would be rounded to it.
    return max(least, int(np.frexp(largest)[1]) // _STEP_BITS)


def split(values: np.ndarray, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Return values (float64) as (parts on the coarse grid of a level, parts on its fine grid)."""
    coarse, fine = _grid(level), _grid(level - 1)
    high = np.rint(values / coarse) * coarse
    return high, np.rint((values - high) / fine) * fine


def _grid(level: int) -> float:
    return float(2.0 ** (_STEP_BITS * level))


def raised(high: np.ndarray, low: np.ndarray, levels: int) -> None:
    """Bring sums to grids that are some levels higher, in place."""
    if levels == 0:
        return
    low[...] = high if levels == 1 else 0.0
    high[...] = 0.0


class ExactSums:
    """An array of sums, to which arrays of its shape are added in any order.

    Examples:
        >>> sums = ExactSums(())
        >>> sums.add(np.array([1.0, 1e-9, -1.0]))
        >>> float(sums.value())
        1e-09
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Begin with zeros of a shape."""
        self.high, self.low = np.zeros(shape), np.zeros(shape)
        self.level = LOWEST_LEVEL

    def add(self, values: np.ndarray) -> None:
        """Add arrays (n, *shape)."""
        self._raise(level_of(values, self.level))
        high, low = split(np.asarray(values, np.float64), self.level)
        self.high += high.sum(0)
        self.low += low.sum(0)

    def absorb(self, other: Self) -> None:
        """Add all that was added to another one."""
        level = max(self.level, other.level)
        self._raise(level)
        high, low = other.high.copy(), other.low.copy()
        raised(high, low, level - other.level)
        self.high += high
        self.low += low

    def value(self) -> np.ndarray:
        """Return the sums, float64."""
        return self.high + self.low

    def _raise(self, level: int) -> None:
        raised(self.high, self.low, level - self.level)
        self.level = level
