"""Put object patches together: sub-pixel placement with weights on one canvas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_MARGIN_PX = 2  # pixels around the crop that the interpolation reads
_EMPTY = 1e-6  # of the largest weight: below it a pixel was not covered


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


class Stitcher:
    """Accumulates patches; memory is the canvas's and one batch's, however many patches come."""

    def __init__(
        self, positions_px: np.ndarray, N: int, weights: np.ndarray | None = None, crop_px: int | None = None
    ) -> None:
        """Lay out the canvas.

        Args:
            positions_px: (n, 2) (x, y) positions of all patches to come, pixels: where a patch's pixel [N//2, N//2] lies.
            N: side of a patch, pixels.
            weights: (N, N) trust in each pixel of a patch, not negative; a smooth window by default.
            crop_px: side of the patch's middle that is used; half of N by default.
        """
        self.N = N
        self.crop_px = min(crop_px or N // 2, N - 2 * _MARGIN_PX)
        self.start = N // 2 - self.crop_px // 2
        middle = slice(self.start, self.start + self.crop_px)
        chosen = window(N) if weights is None else np.asarray(weights, np.float64)
        self.weights = chosen[middle, middle] / max(float(chosen[middle, middle].max()), 1e-300)
        low = np.floor(positions_px.min(0)).astype(int) - self.crop_px // 2 - 1
        high = np.ceil(positions_px.max(0)).astype(int) + self.crop_px // 2 + 2
        self.origin = low
        columns, rows = high - low
        self.total = np.zeros((rows, columns), np.complex128)
        self.coverage = np.zeros((rows, columns))

    def add(self, patches: np.ndarray, positions_px: np.ndarray) -> None:
        """Add patches (n, N, N) complex at positions (n, 2) (x, y), pixels."""
        whole = np.floor(positions_px).astype(int)
        fraction = positions_px - whole
        placed = self._interpolated(np.asarray(patches, np.complex128), fraction)
        corner = whole - self.crop_px // 2 - self.origin
        for patch, (column, row) in zip(placed, corner, strict=True):
            region = slice(row, row + self.crop_px), slice(column, column + self.crop_px)
            self.total[region] += patch * self.weights
            self.coverage[region] += self.weights

    def _interpolated(self, patches: np.ndarray, fraction: np.ndarray) -> np.ndarray:
        """Return each patch's middle as seen by the canvas's own pixels, (n, crop, crop)."""
        first, length = self.start - 2, self.crop_px
        for axis, part in ((2, fraction[:, 0]), (1, fraction[:, 1])):
            taps = cubic_taps(1.0 - part)  # canvas pixels lie before the patch's by its fraction
            shape = list(patches.shape)
            shape[axis] = length
            moved = np.zeros(shape, np.complex128)
            for k in range(4):
                moved += taps[:, k, None, None] * np.take(patches, range(first + k, first + k + length), axis=axis)
            patches = moved
        return patches

    def result(self) -> Canvas:
        """Return what has been put together so far."""
        covered = self.coverage > _EMPTY * self.coverage.max(initial=0.0)
        object_ = np.where(covered, self.total / np.where(covered, self.coverage, 1.0), 0.0)
        return Canvas(
            object_.astype(np.complex64), self.coverage.astype(np.float32), float(self.origin[0]), float(self.origin[1])
        )


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
