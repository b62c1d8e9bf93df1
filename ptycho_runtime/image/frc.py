"""Fourier ring correlation of two half-scans: the resolution that papers quote.

W. O. Saxton and W. Baumeister, J. Microsc. 127 (1982) 127; thresholds of M. van Heel and M. Schatz, J. Struct. Biol. 151 (2005) 250.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.image.trust.overlap import Placed

_LEAST_SIDE_PX = 16
_COVERED = 1e-6  # of the largest weight


@dataclass(frozen=True)
class RingCorrelation:
    """How two images of the even and the odd patterns agree, ring by ring of their spectra."""

    side_px: int
    """Of the square that was compared; ring r has a period of side_px / r."""
    correlation: np.ndarray
    """(side_px // 2,) of the rings from 0."""
    one_bit: np.ndarray
    """(side_px // 2,) threshold of one bit of information a pixel."""
    half_bit: np.ndarray
    """(side_px // 2,) threshold of half a bit."""

    def resolution_px(self, threshold: np.ndarray) -> float:
        """Return the half-period in pixels of the first ring that falls below a threshold; 1 where none does, as fine as pixels are."""
        below = np.flatnonzero(self.correlation[1:] < threshold[1:])
        return 1.0 if not len(below) else max(self.side_px / (2.0 * (below[0] + 1)), 1.0)


def half_scans(placed: Placed, sums: np.ndarray) -> RingCorrelation:
    """Compare the images of the even and the odd patterns, each at their own positions.

    Args:
        placed: the patches.
        sums: (rows, columns, 3) float64 canvas sums of all of them.

    Raises:
        ReconstructionError: what both cover has no square of 16 pixels.
    """
    even = np.arange(len(placed.corners)) % 2 == 0
    halves = [placed.sums_without(sums, left_out) for left_out in (~even, even)]
    covered = np.logical_and(*(half[..., 2] > _COVERED * half[..., 2].max() for half in halves))
    square = _largest_square(covered)
    images = [(half[square][..., 0] + 1j * half[square][..., 1]) / half[square][..., 2] for half in halves]
    return ring_correlation(*images)


def ring_correlation(first: np.ndarray, second: np.ndarray) -> RingCorrelation:
    """Return the Fourier ring correlation of two complex images (side, side), their edges softened by a Hann window."""
    side = len(first)
    soft = np.hanning(side + 2)[1:-1]
    a, b = (np.fft.fft2((image - image.mean()) * np.outer(soft, soft)) for image in (first, second))
    frequency = np.fft.fftfreq(side) * side
    ring = np.rint(np.hypot(frequency[:, None], frequency)).astype(int).ravel()
    count = side // 2

    def per_ring(values: np.ndarray) -> np.ndarray:
        return np.bincount(ring, values.ravel(), minlength=count)[:count]

    cross = per_ring((a * b.conj()).real)
    power = per_ring(np.abs(a) ** 2) * per_ring(np.abs(b) ** 2)
    root = np.sqrt(per_ring(np.ones(a.shape)))
    return RingCorrelation(
        side_px=side,
        correlation=cross / np.sqrt(np.maximum(power, 1e-300)),
        one_bit=(0.5 + 2.4142 / root) / (1.5 + 1.4142 / root),
        half_bit=(0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root),
    )


def _largest_square(covered: np.ndarray) -> tuple[slice, slice]:
    """Return the largest square of pixels that are all covered."""
    # Of each pixel, the side of the largest square whose last pixel it is.
    side = np.zeros((covered.shape[0] + 1, covered.shape[1] + 1), int)
    for row in range(covered.shape[0]):
        above, line = side[row], side[row + 1]
        for column in range(covered.shape[1]):
            if covered[row, column]:
                line[column + 1] = 1 + min(above[column], above[column + 1], line[column])
    size = int(side.max())
    if size < _LEAST_SIDE_PX:
        raise ReconstructionError(
            f"--frc: the even and the odd patterns cover no square of {_LEAST_SIDE_PX} pixels together; leave out --frc"
        )
    bottom, right = (int(index) for index in np.unravel_index(int(side.argmax()), side.shape))
    return slice(bottom - size, bottom), slice(right - size, right)
