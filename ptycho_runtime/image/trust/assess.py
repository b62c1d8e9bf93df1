"""From what was kept of each pattern to a verdict."""

from __future__ import annotations

import numpy as np

from ptycho_runtime.export.record import TrustBaseline
from ptycho_runtime.image.trust import flags
from ptycho_runtime.image.trust.evidence import Evidence, Kept
from ptycho_runtime.image.trust.hypotheses import better_reading
from ptycho_runtime.image.trust.overlap import Placed, compare_pairs, deviations, leave_one_out
from ptycho_runtime.image.trust.stitched import stitched_residuals
from ptycho_runtime.image.trust.values import PatternScores, Trust
from ptycho_runtime.image.trust.verdict import Findings, judge

_ROUNDS = 5
_MANY = 0.1  # of the patterns: so many flagged ones spoil the others' scores too much to start from these
_LEAST_LEFT = 0.2  # of the patterns: fewer are nothing to compare with
_PAIRS = flags.Bounds(0.08, 0.25)
_DARK = 0.02  # of the brighter patterns' counts
_LOOK_FURTHER = 0.045  # median disagreement above which a scan is looked at more closely


def assess(evidence: Evidence, baseline: TrustBaseline | None = None, *, partial: bool = False) -> Trust:
    """Return the verdict on an image.

    Args:
        evidence: what was kept of its patterns.
        baseline: what the model leaves unexplained on data it was made for.
        partial: it was stopped before all patterns were in.

    Patterns that are flagged are left out of what the others are compared with, and all are looked at again, until none changes.
    The image itself is not touched.
    """
    return assess_kept(evidence.in_order(), baseline, partial=partial)


def assess_kept(known: Kept, baseline: TrustBaseline | None = None, *, partial: bool = False) -> Trust:
    """Return the verdict on an image by what is known of its patterns; see `assess`."""
    placed = known.placed()
    reached = (placed.patches.copies > 0) & np.isfinite(known.counts)
    sums = known.stitcher.sums
    further = baseline.disagreement * 1.3 if baseline else _LOOK_FURTHER
    kept = reached
    scores = _scores(known, placed, sums, kept)
    limits = flags.Limits.of(scores, kept)
    bad = (flags.flagged(scores, limits) | _dark(known.counts)) & reached
    if bad.sum() > _MANY * reached.sum() or _median(scores.disagreement) > further:
        bad = _unfit_in_pairs(known, placed, reached)
    for _ in range(_ROUNDS):
        if (kept == (reached & ~bad)).all() or (reached & ~bad).sum() < max(_LEAST_LEFT * reached.sum(), 2):
            break
        kept = reached & ~bad
        scores = _scores(known, placed, placed.sums_without(sums, reached & ~kept), kept)
        limits = flags.Limits.of(scores, kept)
        bad = flags.flagged(scores, limits) & reached
    good = reached & ~bad
    if good.sum() < _LEAST_LEFT * reached.sum():
        good = reached
    typical = _median(scores.disagreement[good])
    reading = better_reading(placed, known.positions_px, good) if typical > further else None
    centre = known.centre_px()
    kinds = flags.kinds(scores, limits, bad)
    findings = Findings(
        disagreement=typical,
        stitched_residual=_median(scores.stitched_residual[good]),
        alone=float(np.isnan(scores.disagreement[reached]).mean()) if reached.any() else 1.0,
        flagged=float(bad.sum() / max(reached.sum(), 1)),
        kinds=kinds[bad],
        centre_px=centre,
        reading=reading,
        partial=partial,
        lost=known.lost,
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


def _scores(known: Kept, placed: Placed, sums: np.ndarray, kept: np.ndarray) -> PatternScores:
    """Return all figures of each pattern, compared with those that are kept."""
    disagreement, phase = leave_one_out(placed, sums, kept)
    missing = np.full(len(kept), np.nan)
    residual, gain = missing, missing
    if known.probe is not None and not known.lost:
        canvas = known.stitcher.canvas_of(sums)
        residual, gain = stitched_residuals(known.amplitudes, known.peaks, known.probe, canvas, known.positions_px)
    counts = np.log(np.maximum(known.counts, 1e-300))
    return PatternScores(
        disagreement=disagreement,
        phase_rad=phase,
        stitched_residual=residual,
        log_gain=gain - _median(gain[kept]),
        log_counts=counts - _median(counts[kept]),
        centroid_px=np.hypot(*known.centroids_px.T),
        hot=known.hot,
        residual=known.residual,
    )


def _unfit_in_pairs(known: Kept, placed: Placed, reached: np.ndarray) -> np.ndarray:
    """Return which patterns agree with too few of their neighbours, (n,) bool, for a scan in which many are bad."""
    centroid = np.hypot(*known.centroids_px.T)
    alone = _dark(known.counts) | (centroid > flags.limit(centroid, flags.CENTROID_PX))
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
