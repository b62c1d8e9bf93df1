"""Put object patches together: sub-pixel placement with weights on one canvas."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.image.exact import LOWEST_LEVEL, level_of, raised, split
from ptycho_runtime.scan.geometry import MOST_CANVAS_PX

# Cubic convolution looks at two samples on each side of a point, and a canvas's pixels lie up to one pixel before a patch's.
_BEFORE_PX = 2  # pixels that are read before the crop
_AFTER_PX = 1  # and after it
MARGIN_PX = max(_BEFORE_PX, _AFTER_PX)
_AT_ONCE = 16  # patches whose intermediate arrays stay in a processor's cache
_WEIGHT_STEPS = 2.0**30  # in the largest weight: 2²³ patches in one pixel are summed exactly
_GROWTH = 0.25  # of a canvas, beyond a side at which it grows: so that it is copied seldom
_EMPTY = 1e-6  # of the largest weight: below it a pixel was not covered

Keep = Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class Canvas:
    """The stitched object and where it lies."""

    object: np.ndarray  # (rows, columns) complex64; 0 where nothing was measured
    coverage: np.ndarray  # (rows, columns) float32, sum of weights
    x0_px: float  # scan coordinate of the centre of pixel [0, 0]
    y0_px: float

    @property
    def covered(self) -> np.ndarray:
        """Say which pixels were measured, (rows, columns) bool."""
        covered: np.ndarray = self.coverage > _EMPTY * self.coverage.max(initial=0.0)
        return covered


def default_crop_px(N: int) -> int:
    """Return the side of a patch's middle that is used by default: with a margin for interpolation on each side, N//2 pixels."""
    return max(N // 2 - 2 * MARGIN_PX, 1)


def holds_crop(side_px: int, N: int, crop_px: int | None = None) -> bool:
    """Say whether patches' middles of `side_px` pixels hold a crop (`default_crop_px` of N where None) and what is read around it."""
    crop = default_crop_px(N) if crop_px is None else crop_px
    start = side_px // 2 - crop // 2
    return crop >= 1 and start >= _BEFORE_PX and start + crop + _AFTER_PX <= side_px


class Stitcher:
    """Accumulates patches; memory is the canvas's and a few patches', however many come.

    The sums are exact (see `exact`): the object depends on which patches came, and not on their order, their batches, or how they
    were split among several stitchers whose sums were put together with `absorb`.
    """

    def __init__(
        self, positions_px: np.ndarray, N: int, weights: np.ndarray | None = None, crop_px: int | None = None
    ) -> None:
        """Lay out the canvas.

        Args:
            positions_px: (n, 2) (x, y) positions of patches to come, pixels: where a full patch's pixel [N//2, N//2] lies. None
                need be known: the canvas grows where patches come, and in the end is the one that all of them would have had.
            N: side of a full patch, pixels.
            weights: (N, N) trust in each pixel of a full patch, not negative; a smooth window by default.
            crop_px: side of the patch's middle that is used; `default_crop_px` by default.

        Raises:
            ReconstructionError: the crop and the pixels read around it do not fit a full patch; the canvas would be too large.
        """
        self.N = N
        self.crop_px = default_crop_px(N) if crop_px is None else crop_px
        self._check_side(N)
        start = N // 2 - self.crop_px // 2
        middle = slice(start, start + self.crop_px)
        chosen = window(N) if weights is None else np.asarray(weights, np.float64)
        # On a grid, so that sums of weights are exact; patches are multiplied by just these.
        weights = chosen[middle, middle] / max(float(chosen[middle, middle].max()), 1e-300)
        self.weights: np.ndarray = np.rint(weights * _WEIGHT_STEPS) / _WEIGHT_STEPS
        self._low = self._high = np.zeros(
            2, int
        )  # (column, row) of the canvas's first pixel and of the one after its last
        self._start = np.zeros(2, int)  # of what memory was taken for
        # Coarse sums of real and imaginary part, sum of weights, fine sums of both parts: one addition a patch, over whole rows.
        self._sums = np.zeros((0, 0, 5))
        self._level = LOWEST_LEVEL
        self._factors = (1.0, 1.0)
        self.reach(positions_px, exactly=True)
        self.keep: Keep | None = None
        """Called with (first, patches): each few patches as they lie on the canvas, (k, crop, crop) complex64, not weighted, and
        the number of the first within its `add_parts`."""

    @property
    def origin(self) -> np.ndarray:
        """(column, row) in scan coordinates of the canvas's pixel [0, 0], pixels."""
        return self._low

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the canvas."""
        columns, rows = (self._high - self._low).tolist()
        return rows, columns

    def reach(self, positions_px: np.ndarray, *, exactly: bool = False) -> None:
        """Let the canvas reach as far as patches at positions (n, 2) (x, y) do; `exactly` takes no memory beyond that.

        Raises:
            ReconstructionError: it would have more than `MOST_CANVAS_PX` pixels; it stays as it is.
        """
        if not len(positions_px):
            return
        low = np.floor(positions_px.min(0)).astype(int) - self.crop_px // 2 - 1
        high = np.ceil(positions_px.max(0)).astype(int) + self.crop_px // 2 + 2
        if self.shape != (0, 0):
            low, high = np.minimum(low, self._low), np.maximum(high, self._high)
        columns, rows = (high - low).tolist()
        if rows * columns > MOST_CANVAS_PX:
            raise ReconstructionError(
                f"the image would have {rows} × {columns} pixels; expected {MOST_CANVAS_PX:.0e} at the most; is the unit of the "
                "positions right?"
            )
        held = self._start, self._start + self._sums.shape[1::-1]
        if (low < held[0]).any() or (high > held[1]).any() or self.shape == (0, 0):
            self._take_memory(low, high, 0.0 if exactly else _GROWTH)
        self._low, self._high = low, high

    def _take_memory(self, low: np.ndarray, high: np.ndarray, beyond: float) -> None:
        """Hold sums from `low` to `high`, and a share of that beyond the sides that have moved."""
        spare = np.ceil(beyond * (high - low)).astype(int)
        first = self.shape == (0, 0)
        start = low - spare * (first | (low < self._low))
        stop = high + spare * (first | (high > self._high))
        columns, rows = (stop - start).tolist()
        sums = np.zeros((rows, columns, 5))
        if not first:
            left, top = self._low - start
            height, width = self.shape
            sums[top : top + height, left : left + width] = self._inside()
        self._sums, self._start = sums, start

    def _inside(self) -> np.ndarray:
        """Return the part of the memory that is the canvas."""
        left, top = self._low - self._start
        height, width = self.shape
        return self._sums[top : top + height, left : left + width]

    def add(self, patches: np.ndarray, positions_px: np.ndarray) -> None:
        """Add patches (n, S, S) complex at positions (n, 2) (x, y), pixels; see `add_parts`."""
        self.add_parts(patches.real, patches.imag, positions_px)

    def add_parts(self, real: np.ndarray, imag: np.ndarray, positions_px: np.ndarray) -> None:
        """Add patches.

        Args:
            real: (n, S, S) float32 or float64, real parts: full patches (S = N), or only their middle: pixel [S//2, S//2] is
                a full patch's [N//2, N//2]. They are interpolated in the precision they come in.
            imag: the same, imaginary parts.
            positions_px: (n, 2) (x, y), pixels.

        Raises:
            ReconstructionError: S is more than N, or too little for the crop; the canvas would be too large.
        """
        if real.ndim != 3 or real.shape != imag.shape or real.shape[1] != real.shape[2]:
            raise ReconstructionError(
                f"object patches have shapes {real.shape} and {imag.shape} (real, imaginary); expected (n, S, S) twice; export the bundle again"
            )
        self._check_side(real.shape[-1])
        self.reach(positions_px)
        whole = np.floor(positions_px).astype(int)
        fraction = positions_px - whole
        corners = (self.corners(positions_px) + (self._low - self._start)[::-1]).tolist()
        for first in range(0, len(real), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            grid = self._moved(real[part], imag[part], fraction[part])
            if self.keep is not None:
                patches = np.empty(grid.shape[1:], np.complex64)
                patches.real, patches.imag = grid
                self.keep(first, patches)
            for patch, (row, column) in zip(self._weighted(grid), corners[part], strict=True):
                region = self._sums[row : row + self.crop_px, column : column + self.crop_px]
                np.add(region, patch, out=region)

    def absorb(self, other: Stitcher) -> None:
        """Add all that was added to another stitcher of the same patches, weights and crop.

        Raises:
            ReconstructionError: it is of others.
        """
        if (self.N, self.crop_px) != (other.N, other.crop_px) or not np.array_equal(self.weights, other.weights):
            raise ReconstructionError(
                "two images are of other sizes of patches, crops or weights; make their parts with the same options"
            )
        if other.shape == (0, 0):
            return
        self.reach(np.stack([other._low + self.crop_px // 2 + 1, other._high - self.crop_px // 2 - 2]).astype(float))
        level = max(self._level, other._level)
        self._raise(level)
        sums = other._inside().copy()
        raised(sums[..., :2], sums[..., 3:], level - other._level)
        left, top = other._low - self._start
        rows, columns = other.shape
        self._sums[top : top + rows, left : left + columns] += sums

    def state(self) -> dict[str, np.ndarray]:
        """Return all that was summed, for `with_state`: arrays by name."""
        return {"sums": self._inside().copy(), "origin": self._low.copy(), "level": np.array(self._level)}

    def with_state(self, state: Mapping[str, np.ndarray]) -> Stitcher:
        """Return a stitcher of the same patches, weights and crop that holds what `state` of another one was."""
        found = copy.copy(self)
        found._sums, found._start = np.array(state["sums"], np.float64), np.array(state["origin"], int)
        found._low, found._high = found._start, found._start + found._sums.shape[1::-1]
        found._level, found._factors = int(state["level"]), (1.0, 1.0)
        return found

    def corners(self, positions_px: np.ndarray) -> np.ndarray:
        """Return (row, column) on the canvas of the first pixel of patches' middles, (n, 2) int, for positions (n, 2) (x, y)."""
        found: np.ndarray = (np.floor(positions_px).astype(int) - self.crop_px // 2 - self.origin)[:, ::-1]
        return found

    def _check_side(self, side_px: int) -> None:
        crop = self.crop_px
        if side_px > self.N:
            raise ReconstructionError(
                f"object patches are {side_px} × {side_px} pixels; expected at most {self.N} × {self.N}, the side of a pattern; "
                "export the bundle again"
            )
        if not holds_crop(side_px, self.N, crop):
            most = max(side_px - _BEFORE_PX - _AFTER_PX - side_px % 2, 0)
            raise ReconstructionError(
                f"object patches of {side_px} × {side_px} pixels have no middle of {crop} with {MARGIN_PX} pixels around it for interpolation; "
                f"expected a crop of 1 to {most} pixels; give --crop-px {most} or less, or an export with larger patches"
            )

    def _moved(self, real: np.ndarray, imag: np.ndarray, fraction: np.ndarray) -> np.ndarray:
        """Return patches' middles as seen by the canvas's own pixels, real and imaginary part: (2, n, crop, crop)."""
        count, crop = len(real), self.crop_px
        read = crop + _BEFORE_PX + _AFTER_PX
        start = real.shape[-1] // 2 - crop // 2 - _BEFORE_PX
        middle = np.s_[:, start : start + read, start : start + read]
        parts = np.empty((2, count, read * read), np.result_type(real.dtype, np.float32))
        for values, part in ((real, parts[0]), (imag, parts[1])):
            part.reshape(count, read, read)[...] = values[middle]
        # Canvas pixels lie before the patch's by its fraction.
        x_taps, y_taps = (cubic_taps(1.0 - fraction[:, axis]).astype(parts.dtype) for axis in (0, 1))
        # Rows lie one behind the other in memory, so one step down is `read` values and one step right is one. Long runs
        # are what numpy is fast at; the last three values of each row come out mixed with the next row's and are left out.
        down, moved = (np.empty((2, count, crop * read), parts.dtype) for _ in range(2))
        _tapped(parts, y_taps, read, down)
        _tapped(down, x_taps, 1, moved[..., :-3])
        return moved.reshape(2, count, crop, read)[..., :crop]

    def _weighted(self, grid: np.ndarray) -> np.ndarray:
        """Return what `_moved` gives times weights, on the grids of the sums, and the weights: (n, crop, crop, 5)."""
        values = grid * self.weights
        self._raise(level_of(values, self._level))
        high, low = split(values, self._level)
        weighted: np.ndarray = np.empty((*grid.shape[1:], 5))
        weighted[..., 0], weighted[..., 1] = high
        weighted[..., 2] = self.weights
        weighted[..., 3], weighted[..., 4] = low
        return weighted

    def _raise(self, level: int) -> None:
        raised(self._sums[..., :2], self._sums[..., 3:], level - self._level)
        self._level = level

    @property
    def sums(self) -> np.ndarray:
        """Weighted real part, weighted imaginary part and weight of each pixel so far, (rows, columns, 3) float64, a copy."""
        inside = self._inside()
        found: np.ndarray = inside[..., :3].copy()
        found[..., :2] += inside[..., 3:]
        found[..., :2] *= self._factors
        return found

    def scale_parts(self, real: float, imag: float) -> None:
        """Multiply real and imaginary part of the object; nothing is added afterwards."""
        self._factors = (self._factors[0] * real, self._factors[1] * imag)

    def result(self) -> Canvas:
        """Return what has been put together so far."""
        return self.canvas_of(self.sums)

    def canvas_of(self, sums: np.ndarray) -> Canvas:
        """Return the object of sums (rows, columns, 3) such as `sums`."""
        coverage = sums[..., 2]
        covered = coverage > _EMPTY * coverage.max(initial=0.0)
        divisor = np.where(covered, coverage, np.inf)
        object_: np.ndarray = np.empty(coverage.shape, np.complex64)
        object_.real, object_.imag = sums[..., 0] / divisor, sums[..., 1] / divisor
        return Canvas(object_, coverage.astype(np.float32), float(self.origin[0]), float(self.origin[1]))


def _tapped(values: np.ndarray, taps: np.ndarray, step: int, out: np.ndarray) -> None:
    """Put Σ_k taps[n, k] · values[:, n, k·step + i] into out[:, n, i], for values (2, n, m), taps (n, 4) and out (2, n, length)."""
    length = out.shape[-1]
    np.multiply(values[..., :length], taps[:, 0, None], out=out)
    term = np.empty_like(out)
    for k in range(1, 4):
        np.multiply(values[..., k * step : k * step + length], taps[:, k, None], out=term)
        np.add(out, term, out=out)


def cubic_taps(t: np.ndarray) -> np.ndarray:
    """Return the four weights of cubic convolution at t of the way from the second sample to the third, (n, 4).

    R. G. Keys, "Cubic convolution interpolation for digital image processing" (1981), with a = −1/2: exact for parabolas.
    """
    t = np.asarray(t, np.float64)
    t2, t3 = t * t, t * t * t
    return np.stack([-t3 + 2 * t2 - t, 3 * t3 - 5 * t2 + 2, -3 * t3 + 4 * t2 + t, t3 - t2], axis=-1) / 2


def window(N: int) -> np.ndarray:
    """Return a smooth weight for patches without a probe to go by, (N, N): raised cosine, 1 in the middle."""
    axis = np.cos(np.pi * (np.arange(N) - N // 2) / N) ** 2
    return np.outer(axis, axis)


def probe_weights(probe: np.ndarray) -> np.ndarray:
    """Return the probe's intensity as trust in each pixel, (N, N), for modes (P, N, N)."""
    weights: np.ndarray = (np.abs(probe) ** 2).sum(0)
    return weights
