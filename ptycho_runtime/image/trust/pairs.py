"""Neighbours compared two by two: a mean of many can be spoilt by many, a pair only by its two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptycho_runtime.image.trust.overlap import Placed
from ptycho_runtime.threads import shared

_AT_ONCE = 128  # pairs
_PARTNERS = 20  # neighbours that a pattern is compared with one by one
_AGREEING = 3  # of these that must agree with it
_REACH = 0.7  # of a middle: as far apart they still share enough


@dataclass(frozen=True)
class Pairs:
    """Neighbours compared two by two."""

    count: int
    """Patterns."""
    two: np.ndarray
    """(m, 2) numbers of each two, ascending; each two are there once."""
    disagreement: np.ndarray
    """(m,) of the two patches where both are, up to one phase."""

    @property
    def best(self) -> np.ndarray:
        """How well each pattern agrees with the third of those that agree with it best, (n,); NaN where it has fewer."""
        of, values = np.concatenate([self.two[:, 0], self.two[:, 1]]), np.tile(self.disagreement, 2)
        order = np.lexsort((values, of))
        of, values = of[order], values[order]
        starts = np.searchsorted(of, np.arange(self.count))
        ends = np.searchsorted(of, np.arange(self.count), side="right")
        place = starts + _AGREEING - 1
        found = np.full(self.count, np.nan)
        has = place < ends
        found[has] = values[place[has]]
        return found

    def within(self, mask: np.ndarray) -> np.ndarray:
        """Return which pairs have both in a mask (n,), (m,) bool."""
        found: np.ndarray = mask[self.two].all(1)
        return found

    def across(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Return which pairs have one pattern in each of two masks (n,), (m,) bool."""
        return across(self.two, one, other)


def across(two: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return which of pairs (m, 2) have one pattern in each of two masks (n,), (m,) bool."""
    a, b = two.T
    found: np.ndarray = (one[a] & other[b]) | (other[a] & one[b])
    return found


def compare_pairs(placed: Placed, which: np.ndarray, threads: int = 1, partners: int = _PARTNERS) -> Pairs:
    """Compare each pattern with the nearest of its neighbours, one by one.

    Args:
        placed: the patches.
        which: (n,) bool: patterns that have one.
        threads: that compare.
        partners: neighbours of each.
    """
    from scipy.spatial import cKDTree

    numbers = np.flatnonzero(which)
    if len(numbers) <= _AGREEING:
        return Pairs(len(which), np.zeros((0, 2), np.int64), np.zeros(0))
    corners = placed.corners[numbers]
    count = min(partners + 1, len(numbers))
    near = np.asarray(cKDTree(corners).query(corners, k=count, distance_upper_bound=_REACH * placed.crop_px)[1])
    own = np.broadcast_to(np.arange(len(numbers))[:, None], near.shape)
    there = (near < len(numbers)) & (near != own)
    two = np.sort(np.stack([numbers[own[there]], numbers[near[there]]], 1), axis=1)
    # Each two are compared once, though each is the other's partner.
    two = np.unique(two, axis=0)
    return Pairs(len(which), two, disagreements(placed, two, threads=threads))


def disagreements(placed: Placed, two: np.ndarray, moved: tuple[int, int] = (0, 0), threads: int = 1) -> np.ndarray:
    """Return the disagreement of each two patches (m, 2) where both are, up to one phase, (m,) float64.

    Args:
        placed: the patches.
        two: numbers of each two.
        moved: (rows, columns) by which the second of each two is moved before.
        threads: that compare.
    """

    def compare(some: np.ndarray) -> np.ndarray:
        return _disagreements(placed, some, moved)

    parts = shared(compare, (two[at : at + _AT_ONCE] for at in range(0, len(two), _AT_ONCE)), threads)
    return np.concatenate([np.zeros(0), *parts])


def _disagreements(placed: Placed, pairs: np.ndarray, moved: tuple[int, int]) -> np.ndarray:
    crop, weights = placed.crop_px, placed.weights.astype(np.float32)
    ids, local = np.unique(pairs, return_inverse=True)
    patches = placed.patches.get(ids) / placed.patches.copies[ids, None, None].astype(np.float32)
    here, there = local.reshape(pairs.shape).T
    down, right = (placed.corners[pairs[:, 1]] + moved - placed.corners[pairs[:, 0]]).T
    # Where the pixels of the first lie in the second.
    rows, columns = (np.arange(crop) - shift[:, None] for shift in (down, right))
    inside = ((rows >= 0) & (rows < crop))[:, :, None] & ((columns >= 0) & (columns < crop))[:, None, :]
    rows, columns = (np.clip(values, 0, crop - 1) for values in (rows, columns))
    weight = weights * weights[rows[:, :, None], columns[:, None, :]] * inside
    a, b = patches[here], patches[there[:, None, None], rows[:, :, None], columns[:, None, :]]
    product = np.abs(np.einsum("nij,nij->n", weight * a, b.conj()))
    power = sum(np.einsum("nij,nij->n", weight, part**2) for z in (a, b) for part in (z.real, z.imag))
    ratio = np.where(power > 0, 2.0 - 4.0 * product / np.maximum(power, 1e-30), np.nan)
    found: np.ndarray = np.sqrt(np.maximum(ratio, 0.0)).astype(np.float64)
    return found
