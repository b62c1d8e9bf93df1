"""Scores of all patterns against those that are kept; when these change, only who is beside a change is looked at again."""

from __future__ import annotations

import numpy as np

from ptycho_runtime.image.trust.evidence import Kept
from ptycho_runtime.image.trust.overlap import Placed, leave_one_out
from ptycho_runtime.image.trust.stitched import stitched_residuals
from ptycho_runtime.image.trust.values import PatternScores


class Scoring:
    """Figures of each pattern, compared with those that are kept."""

    def __init__(self, known: Kept, placed: Placed, reached: np.ndarray) -> None:
        """Compare all patterns that the mask `reached` (n,) has with each other."""
        self._known, self._placed, self._reached = known, placed, reached
        self._sums = known.stitcher.sums
        missing = np.full(len(reached), np.nan)
        self._disagreement, self._phase, self._residual, self._gain = (missing.copy() for _ in range(4))
        self.kept = reached
        """(n,) bool: which patterns are compared with."""
        self._look(np.ones(len(reached), bool), np.ones(len(reached), bool))

    def keep(self, kept: np.ndarray) -> None:
        """Compare with the patterns in the mask `kept` (n,) alone."""
        changed = self.kept != kept
        self.kept = kept
        self._sums = self._placed.sums_without(self._known.stitcher.sums, self._reached & ~kept)
        crop, N = self._placed.crop_px, self._known.stitcher.N
        self._look(self._beside(changed, crop), self._beside(changed, (crop + N) // 2 + 1))

    def scores(self) -> PatternScores:
        """Return all figures of each pattern."""
        known, kept = self._known, self.kept
        counts = np.log(np.maximum(known.counts, 1e-300))
        return PatternScores(
            disagreement=self._disagreement.copy(),
            phase_rad=self._phase.copy(),
            stitched_residual=self._residual.copy(),
            log_gain=self._gain - median(self._gain[kept]),
            log_counts=counts - median(counts[kept]),
            centroid_px=np.hypot(*known.centroids_px.T),
            hot=known.hot,
            residual=known.residual,
        )

    def _beside(self, changed: np.ndarray, within_px: int) -> np.ndarray:
        """Return which patterns lie within a distance of changed ones along rows and columns, (n,) bool."""
        from scipy.spatial import cKDTree

        corners = self._placed.corners
        found = np.zeros(len(corners), bool)
        if changed.any():
            distance, _ = cKDTree(corners[changed]).query(corners, p=np.inf, distance_upper_bound=within_px + 0.5)
            found = np.isfinite(distance)
        return found

    def _look(self, patches: np.ndarray, patterns: np.ndarray) -> None:
        """Compare the patches and the patterns of two masks (n,)."""
        known = self._known
        disagreement, phase = leave_one_out(self._placed, self._sums, self.kept, patches, known.threads)
        self._disagreement[patches], self._phase[patches] = disagreement[patches], phase[patches]
        if known.probe is None or known.lost:
            return
        canvas = known.stitcher.canvas_of(self._sums)
        residual, gain = stitched_residuals(known, known.probe, canvas, patterns, known.threads)
        self._residual[patterns], self._gain[patterns] = residual[patterns], gain[patterns]


def median(values: np.ndarray) -> float:
    """Return the median of what is known, NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")
