"""Where many patterns are bad: which ones the others must agree with, and by what these were chosen."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from ptycho_runtime.image.trust import flags
from ptycho_runtime.image.trust.contest import Contest
from ptycho_runtime.image.trust.displaced import Displaced, displaced
from ptycho_runtime.image.trust.evidence import Kept
from ptycho_runtime.image.trust.overlap import Placed
from ptycho_runtime.image.trust.pairs import Pairs, compare_pairs
from ptycho_runtime.image.trust.sets import LEAST, Division, voices

_LIMIT = flags.Bounds(0.06, 0.25, 3.0)
_ROUNDS = 4
_NARROWER = 0.95  # of a limit: less is no other limit
_RIVAL = 0.2  # of the leading side's patterns: a smaller one is no rival
_MOST = 4  # sets that may contest each other
_IN_TIME = 0.97  # of two sides' patterns that lie on their side of one moment
_FIRST = 0.5  # of the later ones: so many earlier ones are believed
_EARLIER = "they came first"


@dataclass(frozen=True)
class Leading:
    """Which patterns the others must agree with."""

    fits: np.ndarray
    """(n,) bool."""
    astray: np.ndarray
    """(n,) bool: patterns that belong elsewhere, even those that fit by chance."""
    split: str
    """What is to be said of others that agree among themselves; empty where there are none."""


def leading(known: Kept, placed: Placed, which: np.ndarray) -> Leading:
    """Return which patterns of a scan in which many are bad the others must agree with.

    Args:
        known: what was kept of the patterns.
        placed: the patches.
        which: (n,) bool: patterns to choose from.
    """
    pairs = compare_pairs(placed, which, known.threads)
    division, limit = _divided(pairs, which)
    none = np.zeros(len(which), bool)
    large = [each for each in division.sets if each.sum() >= max(_RIVAL * division.sets[0].sum(), LEAST)][:_MOST]
    for one, other in itertools.combinations(large, 2):
        if division.against(one, other):
            found = displaced(known, placed, which, limit, (one, other))
            if found is not None:
                return _of_displaced(found)
    chosen, split = division.side(division.sets[0], none), ""
    contest = Contest(known, placed, pairs)
    for seed in large[1:]:
        if (seed & chosen).any():
            continue
        rival = division.side(seed, chosen)
        if not division.against(chosen, rival) or not division.mixed(chosen, rival):
            continue
        better, why = contest.better(chosen, rival)
        if better < 0 or (not better and rival.sum() > chosen.sum()):
            chosen, rival = rival, chosen
        split = _said(int(chosen.sum()), int(rival.sum()), "", why)
    return Leading(chosen, none, split)


def _divided(pairs: Pairs, which: np.ndarray) -> tuple[Division, float]:
    """Return (the patterns of a mask (n,) as sets that agree among themselves, the limit of two that agree)."""
    bounds = flags.of_scan(_LIMIT, int(which.sum()))
    limit = flags.limit(pairs.best, bounds)
    for _ in range(_ROUNDS):
        division = Division.of(which, pairs.two, voices(pairs.disagreement, limit))
        # Bad patterns lift the limit of all; that of the largest set has none of theirs.
        narrower = flags.limit(pairs.disagreement[pairs.within(division.sets[0])], bounds)
        if narrower >= _NARROWER * limit:
            break
        limit = narrower
    return division, limit


def _of_displaced(found: Displaced) -> Leading:
    """Return what to believe of two sides of which one lies elsewhere.

    Both show the same sample, and nothing but the time of a jump tells which of them lies where it should.
    """
    first, second = found.first, found.second
    x, y = found.by_px
    if second.sum() > first.sum():
        first, second, x, y = second, first, -x, -y
    why, jump = "", _jump(first, second)
    if jump and first.argmax() > second.argmax() and second.sum() >= _FIRST * first.sum():
        first, second, x, y, why = second, first, -x, -y, _EARLIER
    when = (
        ""
        if not jump
        else f", before pattern {jump}"
        if second.argmax() < first.argmax()
        else f", from pattern {jump} on"
    )
    where = f": their positions are off by ({-x}, {-y}) px (x, y) against those of the first{when}"
    return Leading(first, second, _said(int(first.sum()), int(second.sum()), where, why))


def _jump(one: np.ndarray, other: np.ndarray) -> int:
    """Return the number of the first pattern after the moment that parts two sides, masks (n,); 0 where they are mixed in time."""
    step = one.astype(int) - other
    total = np.cumsum(step)
    parted = np.abs(total) + np.abs(total[-1] - total)
    place = int(parted.argmax())
    return 0 if place == len(step) - 1 or parted[place] < _IN_TIME * np.abs(step).sum() else place + 1


def _said(one: int, other: int, where: str, why: str) -> str:
    why = why or ("they are more" if one > other else "want of anything that tells them apart")
    return f"{one} patterns agree among themselves, and {other} others do so too but not with the first{where}; the first are believed, for {why}"
