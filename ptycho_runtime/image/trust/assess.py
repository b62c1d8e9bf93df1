"""From what was kept of each pattern to a verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptycho_runtime.export.record import TrustBaseline
from ptycho_runtime.image.trust import flags
from ptycho_runtime.image.trust.evidence import Evidence, Kept
from ptycho_runtime.image.trust.hypotheses import better_reading
from ptycho_runtime.image.trust.leading import Leading, leading
from ptycho_runtime.image.trust.overlap import Placed, deviations
from ptycho_runtime.image.trust.photons import dark, multiplied
from ptycho_runtime.image.trust.scoring import Scoring, median
from ptycho_runtime.image.trust.values import Trust
from ptycho_runtime.image.trust.verdict import UNIVERSAL_DISAGREEMENT, Findings, judge, limits_of

_ROUNDS = 7
_MANY = 0.1  # of the patterns: so many flagged ones spoil the others' scores too much to start from these
_NOT_MANY = 3  # patterns, whatever their share
_LEAST_LEFT = 0.05  # of the patterns: fewer are nothing to compare with
_AMONG_FEW = flags.Bounds(0.08, 0.4)  # of disagreement where many are bad: beside few good ones differ as two do
_MOST_LEFT = 0.5  # of the patterns: where fewer are left, all are asked whether another reading fits
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
    further = baseline.disagreement * 1.3 if baseline else _LOOK_FURTHER
    scoring = Scoring(known, placed, reached)
    scores = scoring.scores()
    limits = flags.Limits.of(scores, reached, reached.sum())
    by_counts = _by_counts(known)
    bad = (flags.flagged(scores, limits) | by_counts) & reached
    # Few patches, or those of a network that errs, differ a little without falling into sides.
    doubtful = limits_of(UNIVERSAL_DISAGREEMENT, baseline.disagreement if baseline else None)[0]
    many = bool(bad.sum() > max(_MANY * reached.sum(), _NOT_MANY) or median(scores.disagreement) > doubtful)
    led = None
    if many:
        led = _led(known, placed, reached & ~by_counts)
        bad = reached & ~led.fits
    for first in (True, *(False,) * (_ROUNDS - 1)):
        kept = reached & ~bad
        if (kept == scoring.kept).all() or kept.sum() < max(_LEAST_LEFT * reached.sum(), 2):
            break
        scoring.keep(kept)
        scores = scoring.scores()
        # Where many are bad, those that come back may not lift the limit for the next, and who is beside none that is kept stays out.
        if first or not many:
            limits = flags.Limits.of(scores, kept, reached.sum())
            if many:
                among = flags.of_scan(_AMONG_FEW, reached.sum())
                limits = replace(limits, disagreement=flags.limit(scores.disagreement[kept], among))
        beside_none = np.isnan(scores.disagreement) if many else np.zeros(len(kept), bool)
        bad = np.where(beside_none, bad, flags.flagged(scores, limits)) & reached
        if led is not None:
            bad |= led.astray
    good = reached & ~bad
    if good.sum() < _LEAST_LEFT * reached.sum():
        good = reached
    typical = median(scores.disagreement[good])
    centre, N = known.centre_px(), known.stitcher.N
    # A few that agree by chance say nothing of the rest.
    few = good.sum() < _MOST_LEFT * reached.sum()
    asked = reached & ~by_counts if few else good
    reading = better_reading(placed, known.positions_px, asked, centre, N) if few or typical > further else None
    kinds = flags.kinds(scores, limits, bad)
    findings = Findings(
        disagreement=typical,
        stitched_residual=median(scores.stitched_residual[good]),
        alone=float(np.isnan(scores.disagreement[reached]).mean()) if reached.any() else 1.0,
        flagged=float(bad.sum() / max(reached.sum(), 1)),
        kinds=kinds[bad],
        centre_px=centre,
        split=led.split if led is not None else "",
        reading=reading,
        partial=partial,
        lost=known.lost,
    )
    verdict, reasons = judge(findings, baseline)
    amplitude, phase = deviations(placed, known.stitcher.sums, known.threads)
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


def _led(known: Kept, placed: Placed, which: np.ndarray) -> Leading:
    """Return what the others must agree with, chosen from a mask (n,), for a scan in which many are bad."""
    centroid = np.hypot(*known.centroids_px.T)
    return leading(known, placed, which & ~(centroid > flags.limit(centroid, flags.CENTROID_PX)))


def _by_counts(known: Kept) -> np.ndarray:
    """Return which patterns are bad by their counts alone, (n,) bool."""
    bright = multiplied(known)
    # Beside counts that were multiplied, all others are next to none.
    return bright if bright.any() else dark(known.counts)
