"""What is known of an image's trustworthiness, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Verdict = Literal["trusted", "doubtful", "not trusted"]

KINDS = (
    "",
    "hardly any counts: beam off?",
    "far brighter than the others",
    "a hot pixel",
    "the pattern lies beside the middle",
    "more counts than its place explains: double exposure?",
    "fewer counts than its place explains",
    "does not fit its place: another position, sample or orientation?",
)
"""What flagged patterns may be; `Trust.kinds` are indices into it, 0 where nothing is flagged."""


@dataclass(frozen=True)
class PatternScores:
    """Figures of each pattern, (n,) float64 each; NaN where not reached or not to be had."""

    disagreement: np.ndarray
    """Relative L2 difference of its patch from the weighted mean of the other patches there, up to one phase; 0 agrees, 1.4 is unrelated."""
    phase_rad: np.ndarray
    """That phase."""
    stitched_residual: np.ndarray
    """What probe × stitched object leaves unexplained of its amplitudes beyond shot noise: 0 nothing, 1 all."""
    log_gain: np.ndarray
    """Logarithm of its amplitude against that of probe × stitched object; 0 is the median."""
    log_counts: np.ndarray
    """Logarithm of its total counts; 0 is the median."""
    centroid_px: np.ndarray
    """Distance of its centre of gravity from the middle of the pattern, pixels."""
    hot: np.ndarray
    """Its hottest lone pixel against its brightest neighbour."""
    residual: np.ndarray
    """What probe × its own patch leaves unexplained, as the autoencoder predicts."""


@dataclass(frozen=True)
class Trust:
    """Whether an image is to be believed, per pattern, per pixel and as a whole."""

    verdict: Verdict
    reasons: tuple[str, ...]
    """Why, the gravest first, in words that say what to do."""
    figures: dict[str, float]
    """Medians and limits that the verdict rests on."""
    flagged: np.ndarray
    """(n,) bool: patterns not to be believed."""
    kinds: np.ndarray
    """(n,) int8, indices into `KINDS`."""
    scores: PatternScores
    amplitude_deviation: np.ndarray
    """(rows, columns) float32: weighted standard deviation of the amplitudes of the patches that made each pixel."""
    phase_deviation_rad: np.ndarray
    """(rows, columns) float32: the same of their phases against the object's."""

    @property
    def trusted(self) -> bool:
        """Say whether the verdict is `trusted`."""
        return self.verdict == "trusted"
