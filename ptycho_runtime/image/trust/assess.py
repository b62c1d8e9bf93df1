"""From what was kept of each pattern to a verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptycho_runtime.export.record import TrustBaseline
from ptycho_runtime.image.stitch import Stitcher
from ptycho_runtime.image.trust import flags
from ptycho_runtime.image.trust.frames import centroids_px, hot_pixels
from ptycho_runtime.image.trust.hypotheses import better_reading
from ptycho_runtime.image.trust.overlap import Placed, ScaledRecords, compare_pairs, deviations, leave_one_out
from ptycho_runtime.image.trust.spool import Spool
from ptycho_runtime.image.trust.stitched import stitched_residuals
from ptycho_runtime.image.trust.values import PatternScores, Trust
from ptycho_runtime.image.trust.verdict import Findings, judge

_ROUNDS = 5
_MANY = 0.1  # of the patterns: so many flagged ones spoil the others' scores too much to start from these
_LEAST_LEFT = 0.2  # of the patterns: fewer are nothing to compare with
_PAIRS = flags.Bounds(0.08, 0.25)
_DARK = 0.02  # of the brighter patterns' counts
_LOOK_FURTHER = 0.045  # median disagreement above which a scan is looked at more closely


@dataclass
class Evidence:
    """What is kept of each pattern while the object is put together."""

    stitcher: Stitcher
    positions_px: np.ndarray
    probe: np.ndarray | None
    """(modes, N, N) complex; None where there is none, or it is of another size."""
    is_counts: bool
    """Patterns come as counts and not as amplitudes."""

    def __post_init__(self) -> None:
        """Make room for all patterns."""
        count, N, crop = len(self.positions_px), self.stitcher.N, self.stitcher.crop_px
        self.lost = ""
        self.object_scales = (1.0, 1.0)
        """Factors of real and imaginary part that were found after the patches were kept; the stitcher's sums have them."""
        self.counts, self.peaks, self.hot, self.residual = (np.full(count, np.nan) for _ in range(4))
        self.centroids_px = np.full((count, 2), np.nan)
        self.mean_pattern = np.zeros((N, N))
        self.patches = Spool(count, (crop, crop), np.complex64)
        self.amplitudes = Spool(count if self.probe is not None else 0, (N, N), np.float16)

    def keep_patches(self, which: np.ndarray, patches: np.ndarray) -> None:
        """Keep patches (k, crop, crop) complex64 of the patterns `which`, as they lie on the canvas."""
        if self.lost:
            return
        try:
            self.patches.add(which, patches)
        except OSError as error:
            self.lost = f"the folder for temporary files has no room ({error.strerror or error}); set TMPDIR"

    def keep_patterns(self, which: np.ndarray, patterns: np.ndarray) -> None:
        """Keep what patterns (k, N, N) float32, as fed, tell by themselves."""
        intensity = patterns if self.is_counts else np.square(patterns)
        self.counts[which] = intensity.sum((1, 2), dtype=np.float64)
        self.centroids_px[which] = centroids_px(intensity)
        self.hot[which] = hot_pixels(intensity)
        self.mean_pattern += intensity.sum(0)
        if self.probe is None or self.lost:
            return
        amplitude = np.sqrt(patterns) if self.is_counts else patterns
        peaks = amplitude.max((1, 2))
        self.peaks[which] = peaks
        try:
            self.amplitudes.add(which, (amplitude / np.maximum(peaks, 1e-30)[:, None, None]).astype(np.float16))
        except OSError as error:
            self.lost = f"the folder for temporary files has no room ({error.strerror or error}); set TMPDIR"

    def placed(self) -> Placed:
        """Return the patches as they lie on the canvas."""
        patches = ScaledRecords(self.patches, *self.object_scales)
        return Placed(patches, self.stitcher.corners(self.positions_px), self.stitcher.weights)

    def close(self) -> None:
        """Give the temporary files back."""
        self.patches.close()
        self.amplitudes.close()


def assess(evidence: Evidence, baseline: TrustBaseline | None = None, *, partial: bool = False) -> Trust:
    """Return the verdict on an image.

    Args:
        evidence: what was kept of its patterns.
        baseline: what the model leaves unexplained on data it was made for.
        partial: it was stopped before all patterns were in.

    Patterns that are flagged are left out of what the others are compared with, and all are looked at again, until none changes.
    The image itself is not touched.
    """
    placed = evidence.placed()
    reached = (evidence.patches.copies > 0) & np.isfinite(evidence.counts)
    sums = evidence.stitcher.sums
    further = baseline.disagreement * 1.3 if baseline else _LOOK_FURTHER
    kept = reached
    scores = _scores(evidence, placed, sums, kept)
    limits = flags.Limits.of(scores, kept)
    bad = (flags.flagged(scores, limits) | _dark(evidence.counts)) & reached
    if bad.sum() > _MANY * reached.sum() or _median(scores.disagreement) > further:
        bad = _unfit_in_pairs(evidence, placed, reached)
    for _ in range(_ROUNDS):
        if (kept == (reached & ~bad)).all() or (reached & ~bad).sum() < max(_LEAST_LEFT * reached.sum(), 2):
            break
        kept = reached & ~bad
        scores = _scores(evidence, placed, placed.sums_without(sums, reached & ~kept), kept)
        limits = flags.Limits.of(scores, kept)
        bad = flags.flagged(scores, limits) & reached
    good = reached & ~bad
    if good.sum() < _LEAST_LEFT * reached.sum():
        good = reached
    typical = _median(scores.disagreement[good])
    reading = better_reading(placed, evidence.positions_px, good) if typical > further else None
    centre = centroids_px(evidence.mean_pattern[None])[0]
    kinds = flags.kinds(scores, limits, bad)
    findings = Findings(
        disagreement=typical,
        stitched_residual=_median(scores.stitched_residual[good]),
        alone=float(np.isnan(scores.disagreement[reached]).mean()) if reached.any() else 1.0,
        flagged=float(bad.sum() / max(reached.sum(), 1)),
        kinds=kinds[bad],
        centre_px=(float(centre[0]), float(centre[1])),
        reading=reading,
        partial=partial,
        lost=evidence.lost,
    )
    verdict, reasons = judge(findings, baseline)
    amplitude, phase = deviations(placed, sums)
    figures = {
        "disagreement_median": findings.disagreement,
        "disagreement_limit": limits.disagreement,
        "stitched_residual_median": findings.stitched_residual,
        "stitched_residual_limit": limits.stitched_residual,
        "flagged_count": float(bad.sum()),
        "centre_x_px": findings.centre_px[0],
        "centre_y_px": findings.centre_px[1],
    }
    return Trust(verdict, reasons, figures, bad, kinds, scores, amplitude, phase)


def _scores(evidence: Evidence, placed: Placed, sums: np.ndarray, kept: np.ndarray) -> PatternScores:
    """Return all figures of each pattern, compared with those that are kept."""
    disagreement, phase = leave_one_out(placed, sums, kept)
    missing = np.full(len(kept), np.nan)
    residual, gain = missing, missing
    if evidence.probe is not None and not evidence.lost:
        canvas = evidence.stitcher.canvas_of(sums)
        residual, gain = stitched_residuals(
            evidence.amplitudes, evidence.peaks, evidence.probe, canvas, evidence.positions_px
        )
    counts = np.log(np.maximum(evidence.counts, 1e-300))
    return PatternScores(
        disagreement=disagreement,
        phase_rad=phase,
        stitched_residual=residual,
        log_gain=gain - _median(gain[kept]),
        log_counts=counts - _median(counts[kept]),
        centroid_px=np.hypot(*evidence.centroids_px.T),
        hot=evidence.hot,
        residual=evidence.residual,
    )


def _unfit_in_pairs(evidence: Evidence, placed: Placed, reached: np.ndarray) -> np.ndarray:
    """Return which patterns agree with too few of their neighbours, (n,) bool, for a scan in which many are bad."""
    centroid = np.hypot(*evidence.centroids_px.T)
    alone = _dark(evidence.counts) | (centroid > flags.limit(centroid, flags.CENTROID_PX))
    pairs = compare_pairs(placed, reached & ~alone)
    found: np.ndarray = reached & ~pairs.majority(flags.limit(pairs.best, _PAIRS))
    return found


def _dark(counts: np.ndarray) -> np.ndarray:
    """Return which patterns have next to no counts beside the brighter ones, (n,) bool; these may be few."""
    known = counts[np.isfinite(counts)]
    found: np.ndarray = counts < _DARK * (np.percentile(known, 90) if len(known) else 0.0)
    return found


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")
