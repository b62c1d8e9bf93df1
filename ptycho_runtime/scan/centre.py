"""Where the zero frequency lies: the point about which the mean pattern is most symmetric."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_DISTINCT = 0.05  # of the pattern's first harmonic to its mean: below it there is no centre to speak of
OFF_PX = 0.75  # further off is another pixel


@dataclass(frozen=True)
class Centre:
    """The centre of a mean pattern."""

    row: float
    column: float
    distinct: bool  # there is one

    def off_px(self, at: tuple[float, float], shape: tuple[int, int]) -> tuple[float, float]:
        """Return how far (rows, columns) the centre lies from a point of patterns of this shape, on a torus."""
        rows, columns = (
            (found - wanted + size / 2) % size - size / 2
            for found, wanted, size in zip((self.row, self.column), at, shape, strict=True)
        )
        return rows, columns


class MeanPattern:
    """The mean of patterns' amplitudes, each of one weight whatever its exposure."""

    def __init__(self, shape: tuple[int, int]) -> None:
        """Start with no pattern."""
        self.total = np.zeros(shape)
        self.frames = 0

    def add(self, amplitudes: np.ndarray) -> None:
        """Add patterns (n, rows, columns), not negative."""
        # A hot pixel has no more weight than the brightest that belong to the pattern.
        bright = 3 * np.quantile(amplitudes, 0.99, axis=(1, 2), keepdims=True)
        amplitudes = np.where(bright > 0, np.minimum(amplitudes, bright), amplitudes)
        sums = amplitudes.sum((1, 2), dtype=np.float64)
        lit = (sums > 0) & np.isfinite(sums)
        self.total += np.einsum("nij,n->ij", amplitudes[lit], 1.0 / sums[lit], dtype=np.float64)
        self.frames += int(lit.sum())

    def centre(self) -> Centre:
        """Return the point of best symmetry: the peak of the mean pattern's convolution with itself lies at twice its place.

        On a torus a place and the one half a period further are both centres of symmetry; the first harmonic says which one
        the light is at. Background, and one bright pixel in some frames, move neither.
        """
        shape = self.total.shape
        spectrum = np.fft.fft2(self.total)
        doubled = np.fft.ifft2(spectrum**2).real
        peak = np.unravel_index(int(doubled.argmax()), shape)
        mean = float(spectrum[0, 0].real)
        harmonics = spectrum[1 % shape[0], 0], spectrum[0, 1 % shape[1]]
        found = []
        for axis, size in enumerate(shape):
            around = [doubled[tuple((p + k * (a == axis)) % shape[a] for a, p in enumerate(peak))] for k in (-1, 0, 1)]
            bend = around[0] - 2 * around[1] + around[2]
            place = (int(peak[axis]) + (0.5 * (around[0] - around[2]) / bend if bend else 0.0)) / 2
            light = -np.angle(harmonics[axis]) * size / (2 * np.pi)
            if np.cos(2 * np.pi * (place - light) / size) < 0:
                place += size / 2
            found.append(place % size)
        distinct = mean > 0 and all(abs(harmonic) > _DISTINCT * mean for harmonic in harmonics)
        return Centre(found[0], found[1], distinct)
