"""Pictures of an object: amplitude and phase beside each other, and the trust map, with pillow alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_runtime.image.result import Reconstruction

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_MIN_SIDE_PX = 384
_GAP_PX = 24
_TOP_PX = 26
# Points of a perceptually even dark-to-light scale, between which colours are mixed.
_MAP = np.array([(0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191)], float)


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
    if result.quality is not None:
        flagged = int(result.quality.flagged.sum())
        panels.append((f"residual {_span(result.quality.residual)}, {flagged} far off", _trust_map(result, box)))
    tiles = [
        (
            title,
            Image.fromarray(pixels).resize((pixels.shape[1] * zoom, pixels.shape[0] * zoom), Image.Resampling.NEAREST),
        )
        for title, pixels in panels
    ]
    width = sum(tile.width for _, tile in tiles) + _GAP_PX * (len(tiles) + 1)
    page = Image.new("RGB", (width, tiles[0][1].height + _TOP_PX + _GAP_PX), "white")
    draw, x = ImageDraw.Draw(page), _GAP_PX
    for title, tile in tiles:
        draw.text((x, 8), title + (" (partial)" if result.partial else ""), fill="black")
        page.paste(tile, (x, _TOP_PX))
        x += tile.width + _GAP_PX
    return page


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


def _trust_map(result: Reconstruction, box: tuple[slice, slice]) -> np.ndarray:
    """Colour each pixel by the residual of the nearest pattern; flagged patterns get a bright frame."""
    from scipy.spatial import cKDTree

    assert result.quality is not None
    residual, canvas = result.quality.residual, result.canvas
    reached = np.isfinite(residual)
    rows = np.arange(box[0].start, box[0].stop) + canvas.y0_px
    columns = np.arange(box[1].start, box[1].stop) + canvas.x0_px
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    nearest = cKDTree(result.scan.positions_px[reached]).query(grid)[1].reshape(len(rows), len(columns))
    values = residual[reached]
    level = np.clip((values - values.min()) / max(float(np.ptp(values)), 1e-12), 0, 1)[nearest] * (len(_MAP) - 1)
    low = np.minimum(level.astype(int), len(_MAP) - 2)
    colours = _MAP[low] + (_MAP[low + 1] - _MAP[low]) * (level - low)[..., None]
    for (x, y), flagged in zip(result.scan.positions_px, result.quality.flagged, strict=True):
        if flagged:
            r, k = round(y - rows[0]), round(x - columns[0])
            colours[max(r - 2, 0) : r + 3, max(k - 2, 0) : k + 3] = (0, 220, 255)
    colours[~canvas.covered[box]] = (235, 238, 242)
    pixels: np.ndarray = colours.astype(np.uint8)
    return pixels
