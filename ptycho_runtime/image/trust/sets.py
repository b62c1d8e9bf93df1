"""Sets of patterns that agree among themselves, by what each two of them say for or against it."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from ptycho_runtime.image.trust.pairs import across

_MOST_AGAINST = -3.0  # what one pair can say against being in one set; for it, 1
_SWEEPS = 10
LEAST = 5
"""Patterns that are a set."""
_FEW = 3  # patterns: as many may be added to another set
_SMALL = 0.25  # of the patterns of the set it is added to
_AS_SURE = 0.6  # of what pairs within that one say on an average
_OPPOSED = 0.25  # of the patterns of a small set: so many that are against it may be wrong themselves
_MIXED = 0.5  # of the pairs within the smaller of two sides: with so many across, the two lie in the same places
_AGAINST = -0.3  # of what a pair can say, on an average: sets that say more against each other are not both right


def voices(disagreement: np.ndarray, limit: float) -> np.ndarray:
    """Return what pairs say for being in one set, or against it where negative, by their disagreement (m,).

    Args:
        disagreement: of each two.
        limit: of the disagreement of two that agree.
    """
    found: np.ndarray = np.clip(1.0 - disagreement / limit, _MOST_AGAINST, 1.0)
    return found


@dataclass(frozen=True)
class Division:
    """Patterns as sets that agree among themselves, by what each two of them say."""

    two: np.ndarray
    """(m, 2) numbers of each two that say something; each two are there once."""
    voice: np.ndarray
    """(m,) what they say for being in one set, or against it where negative."""
    sets: tuple[np.ndarray, ...]
    """Masks (n,) of those of two patterns and more, the largest first; all of them where there is none."""

    @classmethod
    def of(cls, which: np.ndarray, two: np.ndarray, voice: np.ndarray) -> Division:
        """Divide the patterns of a mask (n,).

        Greedy contraction, then single patterns moved to where most speaks for, then both once more for the sets that gives: a
        pattern that was put wrongly while sets were small does not keep two large ones apart.
        """
        count, (first, second) = len(which), two.T
        of = _moved(agreeing_sets(count, first, second, voice), two, voice)
        numbers, local = np.unique(of, return_inverse=True)
        joint = agreeing_sets(len(numbers), local[first], local[second], voice)
        of = _moved(joint[local], two, voice)
        numbers, sizes = np.unique(of[which], return_counts=True)
        order = np.lexsort((numbers, -sizes))
        masks = [(of == numbers[place]) & which for place in order if sizes[place] > 1]
        return cls(two, voice, tuple(masks) or (which,))

    def side(self, seed: np.ndarray, without: np.ndarray) -> np.ndarray:
        """Return a set with all others that it has nothing against, of those that share no pattern with a mask (n,).

        A small set that few of its patterns are against replaces these: bad ones that agree with the rest by chance may keep the good
        ones of a corner out.
        """
        found = seed.copy()
        for each in self.sets:
            size = each.sum()
            if size < _FEW or (each & (found | without)).any():
                continue
            if not self.against(found, each):
                found |= each
            elif LEAST <= size <= _SMALL * found.sum() and self._within(each) >= _AS_SURE * self._within(found):
                opposed = found & (np.nan_to_num(self.mean_voice(each), nan=1.0) < _AGAINST)
                if opposed.sum() <= _OPPOSED * size:
                    found = (found & ~opposed) | each
        return found

    def _within(self, mask: np.ndarray) -> float:
        """Return what pairs within a mask (n,) say on an average."""
        return float(self.voice[mask[self.two].all(1)].mean())

    def against(self, one: np.ndarray, other: np.ndarray) -> bool:
        """Say whether two masks (n,) lie beside each other and do not agree."""
        return self.mean_across(one, other) < _AGAINST

    def mixed(self, one: np.ndarray, other: np.ndarray) -> bool:
        """Say whether two masks (n,) lie in the same places, and not only beside each other."""
        within = min(mask[self.two].all(1).sum() for mask in (one, other))
        return bool(self.across(one, other).sum() >= _MIXED * within)

    def mean_across(self, one: np.ndarray, other: np.ndarray) -> float:
        """Return what pairs of one of each of two masks (n,) say on an average, NaN where there are none."""
        across = self.across(one, other)
        return float(self.voice[across].mean()) if across.any() else float("nan")

    def mean_voice(self, mask: np.ndarray) -> np.ndarray:
        """Return what those in a mask (n,) say on an average for each pattern, (n,); NaN where none is beside it."""
        a, b = self.two.T
        count = len(mask)
        asked = np.bincount(a, mask[b], count) + np.bincount(b, mask[a], count)
        said = np.bincount(a, mask[b] * self.voice, count) + np.bincount(b, mask[a] * self.voice, count)
        found: np.ndarray = np.where(asked > 0, said / np.maximum(asked, 1.0), np.nan)
        return found

    def across(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Return which pairs have one pattern in each of two masks (n,), (m,) bool."""
        return across(self.two, one, other)


def _moved(sets: np.ndarray, two: np.ndarray, voice: np.ndarray) -> np.ndarray:
    """Return the sets after single patterns went to the set beside them that most speaks for, until none moves."""
    beside: list[list[tuple[int, float]]] = [[] for _ in sets]
    for (a, b), says in zip(two.tolist(), voice.tolist(), strict=True):
        beside[a].append((b, says))
        beside[b].append((a, says))
    of = sets.tolist()
    new = max(of, default=0) + 1
    for _ in range(_SWEEPS):
        changed = False
        for number, others in enumerate(beside):
            total: dict[int, float] = {}
            for other, says in others:
                total[of[other]] = total.get(of[other], 0.0) + says
            best = max(total.items(), key=lambda each: (each[1], -each[0]), default=(of[number], 0.0))
            own = total.get(of[number], 0.0)
            if max(best[1], own) < 0:
                of[number], new, changed = new, new + 1, True
            elif best[1] > own + 1e-9:
                of[number], changed = best[0], True
        if not changed:
            break
    return np.array(of, np.int64)


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
