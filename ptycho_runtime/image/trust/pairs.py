"""Neighbours compared two by two, and the sets that agree among themselves."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from ptycho_runtime.image.trust.overlap import Placed

_AT_ONCE = 128  # pairs
_PARTNERS = 12  # neighbours that a pattern is compared with one by one
_AGREEING = 3  # of these that must agree with it
_MOST_AGAINST = -3.0  # what one pair can say against being in one set; for it, 1
_REACH = 0.7  # of a middle: as far apart they still share enough


@dataclass(frozen=True)
class Pairs:
    """Neighbours compared two by two: a mean of many can be spoilt by many, a pair only by its two."""

    partners: np.ndarray
    """(n, k) numbers of each pattern's neighbours; −1 where it has fewer."""
    disagreement: np.ndarray
    """(n, k) of the two patches where both are, up to one phase; NaN where there is no partner."""

    @property
    def best(self) -> np.ndarray:
        """How well each pattern agrees with the third of those that agree with it best, (n,); NaN where it has fewer."""
        found: np.ndarray = np.sort(self.disagreement, axis=1)[:, _AGREEING - 1]
        return found

    def majority(self, limit: float) -> np.ndarray:
        """Return which patterns belong to the largest set that agrees among itself, of those that are in touch with it, (n,) bool.

        Args:
            limit: of the disagreement of two that agree.

        Each pair speaks for or against being in one set, the more the better or worse it agrees. A pattern without a partner is its
        own set.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        known = np.isfinite(self.disagreement)
        first, k = np.nonzero(known)
        second = self.partners[first, k]
        voice = np.clip(1.0 - self.disagreement[first, k] / limit, _MOST_AGAINST, 1.0)
        count = len(self.partners)
        sets = agreeing_sets(count, first, second, voice)
        sizes = np.bincount(sets, minlength=count)
        touching = connected_components(coo_array((np.ones(len(first)), (first, second)), shape=(count, count)))[1]
        order = np.lexsort((sets, -sizes[sets], touching))  # the largest set of each region comes first
        starts = np.unique(touching[order], return_index=True)[1]
        found: np.ndarray = sets == sets[order[starts]][touching]
        return found


def agreeing_sets(count: int, first: np.ndarray, second: np.ndarray, voice: np.ndarray) -> np.ndarray:
    """Return the set of each of `count` patterns, (n,) int, after correlation clustering by greedy contraction.

    Args:
        count: patterns.
        first: (m,) numbers of one of each pair.
        second: (m,) numbers of the other.
        voice: (m,) how much each pair speaks for being in one set, or against it where negative.

    The two sets that most speaks for are made one, until all speaks against any more: neither how many sets there are nor how many
    patterns are in each need be known, and a chance agreement of two weighs little against the many others of theirs.
    """
    beside: list[dict[int, float]] = [{} for _ in range(count)]
    for a, b, weight in zip(first.tolist(), second.tolist(), voice.tolist(), strict=True):
        if a != b:
            beside[a][b] = beside[b][a] = beside[a].get(b, 0.0) + weight
    of = list(range(count))  # the set that a number was put into
    queue = [(-weight, a, b) for a, others in enumerate(beside) for b, weight in others.items() if a < b and weight > 0]
    heapq.heapify(queue)
    while queue:
        weight, a, b = heapq.heappop(queue)
        if of[a] != a or of[b] != b or beside[a].get(b) != -weight:
            continue  # since then they were put together with others
        if len(beside[a]) < len(beside[b]):
            a, b = b, a
        of[b] = a
        del beside[a][b]
        for other, more in beside[b].items():
            if other == a:
                continue
            del beside[other][b]
            joint = beside[a].get(other, 0.0) + more
            beside[a][other] = beside[other][a] = joint
            if joint > 0:
                heapq.heappush(queue, (-joint, min(a, other), max(a, other)))
        beside[b] = {}
    for number in range(count):
        root = number
        while of[root] != root:
            root = of[root]
        of[number] = root
    return np.array(of, np.int64)


def compare_pairs(placed: Placed, which: np.ndarray) -> Pairs:
    """Compare each pattern with the nearest of its neighbours, one by one.

    Args:
        placed: the patches.
        which: (n,) bool: patterns that have one.
    """
    from scipy.spatial import cKDTree

    numbers = np.flatnonzero(which)
    partners = np.full((len(which), _PARTNERS), -1)
    found = np.full((len(which), _PARTNERS), np.nan)
    if len(numbers) <= _AGREEING:
        return Pairs(partners, found)
    corners = placed.corners[numbers]
    count = min(_PARTNERS + 1, len(numbers))
    near = np.asarray(cKDTree(corners).query(corners, k=count, distance_upper_bound=_REACH * placed.crop_px)[1])
    for own, close in zip(numbers, near, strict=True):
        others = numbers[close[close < len(numbers)]]
        others = np.sort(others[others != own])[:_PARTNERS]
        partners[own, : len(others)] = others
    first, k = np.nonzero(partners >= 0)
    # Each two are compared once, though each is the other's partner.
    pairs, place = np.unique(np.sort(np.stack([first, partners[first, k]], 1)), axis=0, return_inverse=True)
    parts = [_disagreements(placed, pairs[at : at + _AT_ONCE]) for at in range(0, len(pairs), _AT_ONCE)]
    found[first, k] = np.concatenate([np.zeros(0), *parts])[place.reshape(-1)]
    return Pairs(partners, found)


def _disagreements(placed: Placed, pairs: np.ndarray) -> np.ndarray:
    """Return the disagreement of each two patches (m, 2) where both are, up to one phase, (m,) float64."""
    crop, weights = placed.crop_px, placed.weights.astype(np.float32)
    ids, local = np.unique(pairs, return_inverse=True)
    patches = placed.patches.get(ids) / placed.patches.copies[ids, None, None].astype(np.float32)
    here, there = local.reshape(pairs.shape).T
    down, right = (placed.corners[pairs[:, 1]] - placed.corners[pairs[:, 0]]).T
    # Where the pixels of the first lie in the second.
    rows, columns = (np.arange(crop) - shift[:, None] for shift in (down, right))
    inside = ((rows >= 0) & (rows < crop))[:, :, None] & ((columns >= 0) & (columns < crop))[:, None, :]
    rows, columns = (np.clip(values, 0, crop - 1) for values in (rows, columns))
    weight = weights * weights[rows[:, :, None], columns[:, None, :]] * inside
    a, b = patches[here], patches[there[:, None, None], rows[:, :, None], columns[:, None, :]]
    product = np.abs(np.einsum("nij,nij->n", weight * a, b.conj()))
    power = sum(np.einsum("nij,nij->n", weight, part**2) for z in (a, b) for part in (z.real, z.imag))
    found: np.ndarray = np.sqrt(np.maximum(2.0 - 4.0 * product / np.maximum(power, 1e-30), 0.0)).astype(np.float64)
    return found
