"""Put object patches together: sub-pixel placement with weights on one canvas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ptycho_runtime.errors import ReconstructionError

# Cubic convolution looks at two samples on each side of a point, and a canvas's pixels lie up to one pixel before a patch's.
_BEFORE_PX = 2  # pixels that are read before the crop
_AFTER_PX = 1  # and after it
MARGIN_PX = max(_BEFORE_PX, _AFTER_PX)
_AT_ONCE = 16  # patches whose intermediate arrays stay in a processor's cache
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
    """Accumulates patches; memory is the canvas's and a few patches', however many come."""

    def __init__(
        self, positions_px: np.ndarray, N: int, weights: np.ndarray | None = None, crop_px: int | None = None
    ) -> None:
        """Lay out the canvas.

        Args:
            positions_px: (n, 2) (x, y) positions of all patches to come, pixels: where a full patch's pixel [N//2, N//2] lies.
            N: side of a full patch, pixels.
            weights: (N, N) trust in each pixel of a full patch, not negative; a smooth window by default.
            crop_px: side of the patch's middle that is used; `default_crop_px` by default.

        Raises:
            ReconstructionError: the crop and the pixels read around it do not fit a full patch.
        """
        self.N = N
        self.crop_px = default_crop_px(N) if crop_px is None else crop_px
        self._check_side(N)
        start = N // 2 - self.crop_px // 2
        middle = slice(start, start + self.crop_px)
        chosen = window(N) if weights is None else np.asarray(weights, np.float64)
        self.weights = chosen[middle, middle] / max(float(chosen[middle, middle].max()), 1e-300)
        low = np.floor(positions_px.min(0)).astype(int) - self.crop_px // 2 - 1
        high = np.ceil(positions_px.max(0)).astype(int) + self.crop_px // 2 + 2
        self.origin = low
        columns, rows = high - low
        # Real part, imaginary part and coverage of a pixel side by side: one addition a patch, over whole rows.
        # In float64, for many patches add up in one pixel; what is added is as precise as the patches are.
        self._sums = np.zeros((rows, columns, 3))
        self.keep: Keep | None = None
        """Called with (first, patches): each few patches as they lie on the canvas, (k, crop, crop) complex64, not weighted, and
        the number of the first within its `add_parts`."""

    def add(self, patches: np.ndarray, positions_px: np.ndarray) -> None:
        """Add patches (n, S, S) complex at positions (n, 2) (x, y), pixels; see `add_parts`."""
        self.add_parts(patches.real, patches.imag, positions_px)

    def add_parts(self, real: np.ndarray, imag: np.ndarray, positions_px: np.ndarray) -> None:
        """Add patches one after the other, in the order given.

        Args:
            real: (n, S, S) float32 or float64, real parts: full patches (S = N), or only their middle: pixel [S//2, S//2] is
                a full patch's [N//2, N//2]. They are interpolated in the precision they come in.
            imag: the same, imaginary parts.
            positions_px: (n, 2) (x, y), pixels.

        Raises:
            ReconstructionError: S is more than N, or too little for the crop.
        """
        if real.ndim != 3 or real.shape != imag.shape or real.shape[1] != real.shape[2]:
            raise ReconstructionError(
                f"object patches have shapes {real.shape} and {imag.shape} (real, imaginary); expected (n, S, S) twice; export the bundle again"
            )
        self._check_side(real.shape[-1])
        whole = np.floor(positions_px).astype(int)
        fraction = positions_px - whole
        corners = self.corners(positions_px).tolist()
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
        """Return what `_moved` gives times weights, and the weights: (n, crop, crop, 3)."""
        weighted: np.ndarray = np.empty((*grid.shape[1:], 3))
        np.multiply(grid[0], self.weights, out=weighted[..., 0])
        np.multiply(grid[1], self.weights, out=weighted[..., 1])
        weighted[..., 2] = self.weights
        return weighted

    @property
    def sums(self) -> np.ndarray:
        """Weighted real part, weighted imaginary part and weight of each pixel so far, (rows, columns, 3) float64."""
        return self._sums

    def scale_parts(self, real: float, imag: float) -> None:
        """Multiply real and imaginary part of what has been added so far."""
        self._sums[..., 0] *= real
        self._sums[..., 1] *= imag

    def result(self) -> Canvas:
        """Return what has been put together so far."""
        return self.canvas_of(self._sums)

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
