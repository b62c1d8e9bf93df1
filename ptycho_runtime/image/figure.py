"""The picture beside each result: amplitude and phase beside each other, and the trust map, with pillow alone."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from ptycho_runtime.image.result import Reconstruction

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_MIN_SIDE_PX = 384
_GAP_PX = 24
_TOP_PX = 32
_LINE_PX = 13
_BOTTOM_PX = 36
WORST = 0.25  # score at the light end of the map: what is never accepted, whatever the scan
VERDICT_COLOURS = {"trusted": (0, 110, 40), "doubtful": (170, 95, 0), "not trusted": (190, 0, 0)}
# Points of a perceptually even dark-to-light scale, between which colours are mixed.
MAP = np.array([(0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191)], float)


def figure(result: Reconstruction) -> Picture:
    """Return amplitude and phase (and, where there is one, the residual of each pattern) as one picture."""
    from PIL import Image, ImageDraw

    covered = result.canvas.covered
    rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    object_, mask = without_ramp(result.object, covered)[box], covered[box]
    zoom = max(1, round(_MIN_SIDE_PX / max(object_.shape)))
    amplitude, phase = np.abs(object_), np.angle(object_)
    panels = [
        (f"amplitude {_span(amplitude[mask])}", _grey(amplitude, mask)),
        (f"phase, rad {_span(phase[mask])}", _grey(phase, mask)),
    ]
    shown = shown_score(result)
    if shown is not None:
        name, score = shown
        flagged = int(result.trust.flagged.sum())
        panels.append((f"{name}, {flagged} flagged (cyan)", _trust_map(result, score, box)))
    tiles = [
        (
            title,
            Image.fromarray(pixels).resize((pixels.shape[1] * zoom, pixels.shape[0] * zoom), Image.Resampling.NEAREST),
        )
        for title, pixels in panels
    ]
    width = sum(tile.width for _, tile in tiles) + _GAP_PX * (len(tiles) + 1)
    reasons = _wrapped(f"{result.trust.verdict}" + "".join(f"; {reason}" for reason in result.trust.reasons), width)
    top = _TOP_PX + _LINE_PX * len(reasons)
    page = Image.new("RGB", (width, tiles[0][1].height + top + _BOTTOM_PX), "white")
    draw, x = ImageDraw.Draw(page), _GAP_PX
    for number, line in enumerate(reasons):
        draw.text((x, 6 + number * _LINE_PX), line, fill=VERDICT_COLOURS[result.trust.verdict])
    for title, tile in tiles:
        draw.text((x, top - 18), title + (" (partial)" if result.partial else ""), fill="black")
        page.paste(tile, (x, top))
        x += tile.width + _GAP_PX
    if shown is not None:
        legend = Image.fromarray(mixed(MAP, np.linspace(0, 1, tiles[-1][1].width)[None]).astype(np.uint8))
        left, below = x - _GAP_PX - tiles[-1][1].width, top + tiles[0][1].height + 6
        page.paste(legend.resize((tiles[-1][1].width, 10), Image.Resampling.NEAREST), (left, below))
        draw.text((left, below + 12), "0 good", fill="black")
        text = f"{WORST:g} and more: bad"
        draw.text((left + tiles[-1][1].width - 6 * len(text), below + 12), text, fill="black")
    return page


def _wrapped(text: str, width_px: int) -> list[str]:
    """Return text in lines that fit the default font's six pixels a letter; the font has no letters beyond Latin-1."""
    return textwrap.wrap(
        text.replace("×", "x").encode("latin-1", "replace").decode("latin-1"), max(width_px // 6 - 8, 20)
    )


def shown_score(result: Reconstruction) -> tuple[str, np.ndarray] | None:
    """Return name and values of the score that the map shows: disagreement, else the stitched residual, else none."""
    scores = result.trust.scores
    pairs = (("disagreement of overlapping patches", scores.disagreement), ("residual", scores.stitched_residual))
    return next(((name, values) for name, values in pairs if np.isfinite(values).any()), None)


def without_ramp(object_: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Return an object whose mean phase and phase ramp, which ptychography leaves open, are taken out for the eye.

    The ramp is the mean phase step between neighbours, weighted by their amplitudes.
    """
    values = np.where(covered, object_, 0)
    step_y = np.angle((values[1:] * np.conj(values[:-1])).sum())
    step_x = np.angle((values[:, 1:] * np.conj(values[:, :-1])).sum())
    y, x = np.ogrid[: values.shape[0], : values.shape[1]]
    flat = values * np.exp(-1j * (step_y * y + step_x * x))
    found: np.ndarray = flat * np.exp(-1j * np.angle(flat.sum()))
    return found


def _span(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    return f"{known.min():.3g} to {known.max():.3g}" if len(known) else ""


def _grey(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values[mask], (1, 99))
    level = np.clip((values - low) / max(high - low, 1e-12), 0, 1) * 255
    grey = np.repeat(level[..., None], 3, axis=-1)
    grey[~mask] = (235, 238, 242)
    return grey.astype(np.uint8)


def _trust_map(result: Reconstruction, score: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
    """Colour each pixel by the score of the nearest pattern, on one scale for all scans; flagged patterns get a bright dot."""
    canvas = result.canvas
    colours = mixed(MAP, nearest_score(result, score, box) / WORST)
    for x, y in result.scan.positions_px[result.trust.flagged]:
        r, k = round(y - canvas.y0_px - box[0].start), round(x - canvas.x0_px - box[1].start)
        colours[max(r - 2, 0) : r + 3, max(k - 2, 0) : k + 3] = (0, 220, 255)
    colours[~canvas.covered[box]] = (235, 238, 242)
    pixels: np.ndarray = colours.astype(np.uint8)
    return pixels


def nearest_score(result: Reconstruction, score: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
    """Return for each pixel of a part of the object, (rows, columns), the score of the nearest pattern that has one."""
    from scipy.spatial import cKDTree

    canvas, reached = result.canvas, np.isfinite(score)
    rows = np.arange(box[0].start, box[0].stop) + canvas.y0_px
    columns = np.arange(box[1].start, box[1].stop) + canvas.x0_px
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    nearest = cKDTree(result.scan.positions_px[reached]).query(grid)[1].reshape(len(rows), len(columns))
    found: np.ndarray = score[reached][nearest]
    return found


def mixed(points: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Return colours (…, 3) float64 mixed of those at `points`, the first at level 0 and below, the last at 1 and above."""
    place = np.clip(level, 0, 1) * (len(points) - 1)
    low = np.minimum(place.astype(int), len(points) - 2)
    found: np.ndarray = points[low] + (points[low + 1] - points[low]) * (place - low)[..., None]
    return found
