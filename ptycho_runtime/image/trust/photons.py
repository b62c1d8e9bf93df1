"""Counts far from those of the other patterns: the beam was off, or they were multiplied."""

from __future__ import annotations

import numpy as np

from ptycho_runtime.image.trust.evidence import Kept

_DARK = 0.02  # of the brighter patterns' counts
_OTHER = 3.0  # times the counts: as far apart lie two kinds of patterns with none between
_LEAST = 0.03  # of the patterns that are a kind
_SAME = 1.3  # how far a ratio of steps may be off the ratio of counts
_SAMPLE = 50  # patterns whose steps are looked at


def dark(counts: np.ndarray) -> np.ndarray:
    """Return which patterns have next to no counts beside the brighter ones, (n,) bool; these may be few."""
    known = counts[np.isfinite(counts)]
    found: np.ndarray = counts < _DARK * (np.percentile(known, 90) if len(known) else 0.0)
    return found


def multiplied(known: Kept) -> np.ndarray:
    """Return which patterns have counts that are multiples of those that others have, (n,) bool.

    A longer exposure or a brighter beam has more photons, and the least that a pixel counts is still one of them. Where that is
    larger by the same factor as the counts are, the counts were multiplied: by a gain, or by a norm that others lack.
    """
    none = np.zeros(len(known.counts), bool)
    there = np.isfinite(known.counts) & (known.counts > 0) & (known.amplitudes.copies > 0)
    levels = np.sort(np.log(known.counts[there]))
    edge = max(int(_LEAST * len(levels)), 1)
    gaps = np.diff(levels)[edge - 1 : len(levels) - edge]
    if not len(gaps) or gaps.max() < np.log(_OTHER):
        return none
    place = edge - 1 + int(gaps.argmax())
    bright = there & (known.counts > np.exp((levels[place] + levels[place + 1]) / 2))
    faint = there & ~bright
    counts = np.median(known.counts[bright]) / np.median(known.counts[faint])
    steps = _step(known, bright) / _step(known, faint)
    return bright if 1 / _SAME <= steps / counts <= _SAME else none


def _step(known: Kept, mask: np.ndarray) -> float:
    """Return the least that a pixel counts where it counts at all, as most patterns of a mask (n,) have it."""
    numbers = np.flatnonzero(mask)
    numbers = numbers[:: max(len(numbers) // _SAMPLE, 1)]
    share = known.amplitudes.get(numbers).astype(np.float32)
    least = np.where(share > 0, share, np.inf).min((1, 2)) * known.peaks[numbers]
    return float(np.median(least) ** 2)
