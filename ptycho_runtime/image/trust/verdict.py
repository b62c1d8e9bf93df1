"""The verdict on a whole image, in absolute terms, with reasons that say what to do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptycho_runtime.export.record import TrustBaseline
from ptycho_runtime.image.trust.hypotheses import Reading
from ptycho_runtime.image.trust.values import KINDS, Verdict

# Without a baseline of the model: medians over a scan that a trained model keeps on data it was made for.
UNIVERSAL_DISAGREEMENT = (0.06, 0.09)  # (doubtful, not trusted) above
UNIVERSAL_RESIDUAL = (0.08, 0.15)
_TIMES_BASELINE = (2.0, 4.0)
_LEAST_LIMITS = (0.04, 0.08)  # of a model that leaves next to nothing: shot noise differs from scan to scan
_FLAGGED = (0.02, 0.25)
_ALONE = 0.2  # of the patterns, that no other overlaps
_CENTRE_PX = 1.0


@dataclass(frozen=True)
class Findings:
    """What the verdict rests on."""

    disagreement: float
    """Median over patterns that are not flagged; NaN where nothing overlaps."""
    stitched_residual: float
    """The same; NaN without a probe."""
    alone: float
    """Share of the patterns that no other overlaps."""
    flagged: float
    """Share of the patterns."""
    kinds: np.ndarray
    """Of the flagged patterns."""
    centre_px: tuple[float, float]
    """Centre of gravity of the mean pattern (x, y), from the middle."""
    reading: Reading | None
    partial: bool
    lost: str
    """Why the patches could not be kept for a comparison; empty where they were."""
    split: str = ""
    """What is to be said of patterns that agree among themselves, but not with those that are believed; empty where there are none."""


def limits_of(universal: tuple[float, float], baseline: float | None) -> tuple[float, float]:
    """Return above which a median is (doubtful, not trusted)."""
    if baseline is None:
        return universal
    doubtful, not_trusted = (
        max(times * baseline, least) for times, least in zip(_TIMES_BASELINE, _LEAST_LIMITS, strict=True)
    )
    return doubtful, not_trusted


def judge(findings: Findings, baseline: TrustBaseline | None) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict and its reasons, the gravest first."""
    grave: list[str] = []
    light: list[str] = []
    if findings.lost:
        light.append(f"patches could not be compared: {findings.lost}")
    x, y = findings.centre_px
    if max(abs(x), abs(y)) >= _CENTRE_PX:
        grave.append(
            f"zero frequency is not in the middle: the mean pattern's centre lies ({x:+.1f}, {y:+.1f}) px (x, y) beside it; "
            "give --centre auto"
        )
    reading = findings.reading
    if reading is not None and reading.of_centre:
        grave.append(
            f"patches have a phase ramp, as a zero frequency at {reading.name} px (x, y) from the middle leaves it: without it overlapping "
            f"patches differ by {reading.disagreement:.3f} in place of {reading.as_given:.3f}; give --centre auto, or its place with "
            "--centre ROW,COL"
        )
    elif reading is not None:
        grave.append(
            f"positions do not fit the patterns; with {reading.name} they would: overlapping patches then differ by "
            f"{reading.disagreement:.3f} in place of {reading.as_given:.3f}; {reading.remedy}"
        )
    if findings.split and reading is None:
        grave.append(findings.split)
    tests = (
        (
            findings.disagreement,
            limits_of(UNIVERSAL_DISAGREEMENT, baseline.disagreement if baseline else None),
            "overlapping patches differ by {value:.3f} of their size ({limit:.3f} is the limit): positions do not fit, or the patterns "
            "are not what this model was trained for (amplitudes or intensities, probe, energy, distance)",
        ),
        (
            findings.stitched_residual,
            limits_of(UNIVERSAL_RESIDUAL, baseline.stitched_residual if baseline else None),
            "probe and object leave {value:.3f} of the patterns unexplained ({limit:.3f} is the limit): wrong probe, positions or domain",
        ),
    )
    for value, (doubtful, not_trusted), text in tests:
        if value > not_trusted:
            grave.append(text.format(value=value, limit=not_trusted))
        elif value > doubtful:
            light.append(text.format(value=value, limit=doubtful))
    share = findings.flagged
    if share > _FLAGGED[0]:
        names, counts = np.unique(findings.kinds, return_counts=True)
        what = ", ".join(f"{count} × {KINDS[name]}" for name, count in zip(names, counts, strict=True))
        text = f"{100 * share:.0f} % of the patterns are flagged ({what}); give --exclude flagged for an image without them"
        (grave if share > _FLAGGED[1] else light).append(text)
    if findings.alone > _ALONE:
        light.append(
            f"{100 * findings.alone:.0f} % of the patterns overlap no other: whether they agree cannot be checked"
        )
    if findings.partial:
        light.append("stopped before all patterns were in")
    verdict: Verdict = "not trusted" if grave else "doubtful" if light else "trusted"
    return verdict, (*grave, *light)
