"""What a figure shows, before anything is drawn: panels with their units and limits, axes, scale bar and captions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ptycho_runtime.files import printable
from ptycho_runtime.image.figure import WORST, nearest_score, shown_score, without_ramp
from ptycho_runtime.image.products.values import pixel_m
from ptycho_runtime.image.result import Reconstruction

Colours = Literal["grey", "cyclic", "sequential", "trust"]
_DIGEST_LETTERS = 12
_STEPS = (1.0, 2.0, 5.0)
_BAR_SHARE = 0.25  # of the panel's width that the scale bar takes at most
_MICROMETRE_M = 1e-6
_ALONE_RAD = 1e-6  # a spread below is rounding: one patch alone made the pixel


@dataclass(frozen=True)
class Panel:
    """One image with its colour bar."""

    title: str
    values: np.ndarray
    """(rows, columns) float64, NaN where nothing was measured."""
    unit: str
    """Label of the colour bar."""
    colours: Colours
    low: float
    high: float


@dataclass(frozen=True)
class Page:
    """All that a figure shows."""

    title: str
    verdict: str
    caption: str
    panels: tuple[Panel, ...]
    x: tuple[float, float]
    """Left and right edge of the panels in the scan's coordinates, in `unit`."""
    y: tuple[float, float]
    """Upper and lower edge; y points down."""
    unit: str
    """µm, or px where the pixel's size is not known."""
    bar: float
    """Length of the scale bar in `unit`."""
    flagged: np.ndarray
    """(n, 2) float64 (x, y) places of the flagged patterns in `unit`."""

    @property
    def bar_label(self) -> str:
        """Return what stands beside the scale bar."""
        return f"{self.bar:g} {self.unit}"


def page_of(result: Reconstruction) -> Page:
    """Return the page of a reconstruction: amplitude, phase, its spread among patches, and how far patches disagree."""
    covered = result.canvas.covered
    rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    mask = covered[box]
    size = pixel_m(result)
    unit = "px" if size is None else "µm"
    width, height = (1.0, 1.0) if size is None else (size[0] / _MICROMETRE_M, size[1] / _MICROMETRE_M)
    # A pixel's centre lies at its coordinate, so the edges lie half a pixel beside.
    x0, y0 = result.canvas.x0_px + box[1].start - 0.5, result.canvas.y0_px + box[0].start - 0.5
    x = x0 * width, (x0 + mask.shape[1]) * width
    y = y0 * height, (y0 + mask.shape[0]) * height
    places = result.scan.positions_px[result.trust.flagged] * [width, height]
    inside = (places[:, 0] >= x[0]) & (places[:, 0] <= x[1]) & (places[:, 1] >= y[0]) & (places[:, 1] <= y[1])
    return Page(
        title=_title(result),
        verdict=result.trust.verdict + (" (partial)" if result.partial else ""),
        caption=_caption(result),
        panels=tuple(_panels(result, box, mask)),
        x=x,
        y=y,
        unit=unit,
        bar=nice_length(_BAR_SHARE * (x[1] - x[0])),
        flagged=places[inside],
    )


def _title(result: Reconstruction) -> str:
    digest = result.origin.bundle_sha256
    model = printable(result.origin.bundle, 40) + (f" (sha256 {digest[:_DIGEST_LETTERS]}…)" if digest else "")
    return f"{printable(result.scan.name, 60)}, {model}" if model else printable(result.scan.name, 60)


def _caption(result: Reconstruction) -> str:
    """Return what is to be said below the panels."""
    texts = [f"{result.done} of {result.groups} groups of patterns"]
    texts += [printable(reason, 400) for reason in result.trust.reasons]
    texts.append("the mean phase and the phase ramp, which ptychography leaves open, are taken out of the phase shown")
    texts.append("the spread is blank where one patch alone made the pixel")
    if int(result.trust.flagged.sum()):
        texts.append(f"{int(result.trust.flagged.sum())} flagged patterns are marked by crosses")
    if result.origin.finished:
        texts.append(result.origin.finished)
    return "; ".join(texts)


def _panels(result: Reconstruction, box: tuple[slice, slice], mask: np.ndarray) -> list[Panel]:
    object_ = without_ramp(result.object, result.canvas.covered)[box]
    amplitude, phase = np.where(mask, np.abs(object_), np.nan), np.where(mask, np.angle(object_), np.nan)
    panels = [Panel("amplitude", amplitude, "amplitude", "grey", *_limits(amplitude))]
    if wraps(phase):
        panels.append(Panel("phase, wraps at ±π", phase, "phase (rad)", "cyclic", -math.pi, math.pi))
    else:
        panels.append(Panel("phase", phase, "phase (rad)", "grey", *_limits(phase)))
    deviation = result.trust.phase_deviation_rad[box]
    deviation = np.where(mask & (deviation > _ALONE_RAD), deviation, np.nan)
    if np.isfinite(deviation).any():
        high = max(_limits(deviation)[1], 1e-12)
        panels.append(
            Panel("spread of the phase among patches", deviation, "standard deviation (rad)", "sequential", 0.0, high)
        )
    score = shown_score(result)
    if score is not None:
        values = np.where(mask, nearest_score(result, score[1], box), np.nan)
        panels.append(Panel("trust: " + score[0], values, "0 agrees, 0.25 and more is bad", "trust", 0.0, WORST))
    return panels


def wraps(phase: np.ndarray) -> bool:
    """Say whether a phase (rad, NaN where unknown) jumps from π to −π between neighbours."""
    steps = (np.abs(np.diff(phase, axis=axis)) for axis in (0, 1))
    return any(bool((step > math.pi).any()) for step in steps)


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Return between which values most lie."""
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, (0.5, 99.5))
    return float(low), float(max(high, low + 1e-12))


def nice_length(longest: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not longer."""
    power = 10.0 ** math.floor(math.log10(longest))
    return max(step * power for step in (*(step / 10 for step in _STEPS), *_STEPS) if step * power <= longest)
