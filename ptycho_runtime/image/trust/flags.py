"""Which patterns are not to be believed, and what they may be."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ptycho_runtime.image.trust.values import PatternScores

# Limits come from the better half of a score: its lower quarter and twentieth, as a normal distribution has them. Bad patterns,
# which score higher, can be more than half of a scan without lifting them.
_LOW, _LOWER = 25.0, 5.0
_LOW_SIGMAS, _LOWER_SIGMAS = 0.6745, 1.6449
_BRIGHT, _DARK = np.log(8.0), -np.log(8.0)
_HOT = 10.0
_OTHER_GAIN = 0.12  # of the logarithm: what a double exposure adds at the least


@dataclass(frozen=True)
class Bounds:
    """Between which a limit stays, whatever a scan's own figures are."""

    least: float
    most: float
    sigmas: float = 7.0
    """Standard deviations above the median."""


DISAGREEMENT = Bounds(0.06, 0.25)
FEW = 60  # patterns: of fewer, many have few neighbours, and what their scores are spread by is not known well
LEAST_OF_FEW = 0.12
"""Of disagreement, in a scan of few patterns."""
STITCHED = Bounds(0.12, 0.25, 9.0)
RESIDUAL = Bounds(0.15, 1.0, 9.0)
COUNTS = Bounds(1.4, float(np.log(8.0)))
CENTROID_PX = Bounds(2.0, 8.0)


def of_scan(bounds: Bounds, count: int) -> Bounds:
    """Return bounds of disagreement in a scan of `count` patterns."""
    return bounds if count >= FEW else replace(bounds, least=max(bounds.least, LEAST_OF_FEW))


def limit(values: np.ndarray, bounds: Bounds) -> float:
    """Return the limit of a score: some standard deviations of its better half above that half's own median, within bounds."""
    known = values[np.isfinite(values)]
    if not len(known):
        return bounds.most
    low, lower = np.percentile(known, (_LOW, _LOWER))
    sigma = (low - lower) / (_LOWER_SIGMAS - _LOW_SIGMAS)
    found = low + (_LOW_SIGMAS + bounds.sigmas) * sigma
    return float(np.clip(found, bounds.least, bounds.most))


@dataclass(frozen=True)
class Limits:
    """Above which a pattern is flagged."""

    disagreement: float
    stitched_residual: float
    residual: float
    log_counts: float
    centroid_px: float

    @classmethod
    def of(cls, scores: PatternScores, kept: np.ndarray, count: int) -> Limits:
        """Return the limits that the scores of the patterns in the mask `kept` (n,) of a scan of `count` patterns give."""
        return cls(
            limit(scores.disagreement[kept], of_scan(DISAGREEMENT, count)),
            limit(scores.stitched_residual[kept], STITCHED),
            limit(scores.residual[kept], RESIDUAL),
            limit(np.abs(scores.log_counts[kept]), COUNTS),
            limit(scores.centroid_px[kept], CENTROID_PX),
        )


def flagged(scores: PatternScores, limits: Limits) -> np.ndarray:
    """Return which patterns are above any limit, (n,) bool."""
    pairs = (
        (scores.disagreement, limits.disagreement),
        (scores.stitched_residual, limits.stitched_residual),
        (scores.residual, limits.residual),
        (np.abs(scores.log_counts), limits.log_counts),
        (scores.centroid_px, limits.centroid_px),
    )
    found = np.zeros(len(scores.disagreement), bool)
    for values, most in pairs:
        found |= np.nan_to_num(values, nan=-np.inf) > most
    return found


def kinds(scores: PatternScores, limits: Limits, flags: np.ndarray) -> np.ndarray:
    """Return what each flagged pattern may be, (n,) int8 indices into `values.KINDS`."""

    def above(values: np.ndarray, most: float) -> np.ndarray:
        found: np.ndarray = np.nan_to_num(values, nan=-np.inf) > most
        return found

    tests = [
        above(-scores.log_counts, -_DARK),
        above(scores.log_counts, _BRIGHT),
        above(scores.hot, _HOT),
        above(scores.centroid_px, limits.centroid_px),
        above(scores.log_gain, _OTHER_GAIN),
        above(-scores.log_gain, _OTHER_GAIN),
    ]
    numbers = np.arange(1, len(tests) + 1)
    return np.where(flags, np.select(tests, list(numbers), len(tests) + 1), 0).astype(np.int8)
