"""The detector side of a scan: bad pixels filled, patterns brought to the model's grid around the zero frequency."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.scan.options import Domain, Fit

_NEIGHBOURS = 8  # good pixels that a bad one is filled from
_WINDOW_PX = 5  # for pixels that are bad in one frame alone
MOST_BAD: Final = 0.5  # of a detector
_NEARLY_ALWAYS = 0.95  # of the patterns
_WIDEST_GAP_PX = 4  # from a pixel that is never lit to lit ones
_ENOUGH = 8  # patterns in which a pixel that counts photons reads more than one number

# What detectors write in place of a count, as numbers of each kind of array: the ends of counters, also of those that were
# narrower than the array is, and of their amplitudes.
_ENDS: Final = (65535, 2**31 - 1, 2**32 - 1)
_MARKS: Final = {
    "u": _ENDS,
    "i": (-1, -2, *_ENDS),
    "f": (-1.0, -2.0, *map(float, _ENDS), 2.0**32, float(np.sqrt(65535.0)), 65536.0),
}


@dataclass(frozen=True)
class Detector:
    """How a stored pattern becomes one of the model's."""

    shape: tuple[int, int]  # of a stored pattern, (rows, columns)
    fit: Fit | None = None
    centre: tuple[int, int] | None = None  # (row, column) of the zero frequency; the middle where None
    bad: np.ndarray | None = None  # (rows, columns) bool: pixels that no frame can be believed in

    def __post_init__(self) -> None:
        """Refuse what is no detector's."""
        if self.bad is not None and self.bad.shape != self.shape:
            raise ScanError(
                f"the mask is of {self.bad.shape[0]} × {self.bad.shape[1]} pixels, "
                f"patterns of {self.shape[0]} × {self.shape[1]}"
            )
        if self.bad is not None and self.bad.mean() > MOST_BAD:
            raise ScanError(
                f"the mask marks {100 * self.bad.mean():.0f} % of the pixels as bad; a mask is not zero where pixels are bad"
            )
        row, column = self.zero_frequency
        if not (0 <= row < self.shape[0] and 0 <= column < self.shape[1]):
            raise ScanError(
                f"the centre {row},{column} lies outside patterns of {self.shape[0]} × {self.shape[1]} pixels"
            )

    @property
    def zero_frequency(self) -> tuple[int, int]:
        """(row, column) of the zero frequency in a stored pattern."""
        return self.centre or (self.shape[0] // 2, self.shape[1] // 2)

    def is_plain(self, N: int) -> bool:
        """Say whether stored patterns are of the model's grid as they are."""
        return self.shape == (N, N) and self.zero_frequency == (N // 2, N // 2)

    def binning(self, N: int) -> int:
        """Return how many pixels of each axis are added to one."""
        return min(self.shape) // N if self.fit == "bin" else 1

    def as_fed(self, stored: np.ndarray, N: int, domain: Domain, fed: str) -> np.ndarray:
        """Return stored patterns as a model takes them, (n, N, N) float32.

        Args:
            stored: (n, rows, columns) of a type as in the file.
            N: side that the model takes, pixels.
            domain: what the stored patterns are.
            fed: `amplitude` or `counts`.
        """
        values = self.filled(stored, domain)
        is_intensity = domain == "intensity"
        if not self.is_plain(N):
            # Counts add up when pixels are joined; amplitudes do not.
            values = self.fitted(values if is_intensity else values.astype(np.float64) ** 2, N)
            is_intensity = True
        if is_intensity != (fed == "counts"):
            values = np.sqrt(values) if is_intensity else values**2
        return np.asarray(values, np.float32)

    def filled(self, stored: np.ndarray, domain: Domain) -> np.ndarray:
        """Return patterns (n, rows, columns) float32 with bad pixels filled from their neighbours' amplitudes."""
        values: np.ndarray = np.array(stored, np.float32)
        if self.bad is not None and self.bad.any():
            pixels, sources, weights = self._filling
            flat = values.reshape(len(values), -1)
            near = flat[:, sources]
            mean = np.einsum("nbk,bk->nb", np.sqrt(near) if domain == "intensity" else near, weights)
            flat[:, pixels] = mean**2 if domain == "intensity" else mean
        overflow = overflown(stored, self.bad)
        if overflow is not None:
            for frame in np.flatnonzero(overflow.any((1, 2))):
                values[frame] = _filled_in_window(values[frame], overflow[frame])
        return values

    def fitted(self, intensity: np.ndarray, N: int) -> np.ndarray:
        """Return intensities (n, rows, columns) cropped, padded or binned around the zero frequency to (n, N, N).

        Raises `ScanError` where that needs pixels that were not recorded.
        """
        rows, columns = self.shape
        row, column = self.zero_frequency
        if self.fit == "pad" and rows <= N and columns <= N:
            top, left = N // 2 - row, N // 2 - column
            around = ((top, N - rows - top), (left, N - columns - left))
            if min(min(pair) for pair in around) >= 0:
                return np.pad(intensity, ((0, 0), *around))
        if self.fit == "bin" and min(rows, columns) % N == 0 and min(rows, columns) > N:
            side, k = min(rows, columns), min(rows, columns) // N
            cut = self._cut(intensity, side)
            binned: np.ndarray = cut.reshape(len(intensity), N, k, N, k).sum((2, 4))
            return binned
        if self.fit == "crop" and min(rows, columns) >= N and max(rows, columns) > N:
            return self._cut(intensity, N)
        if (rows, columns) == (N, N) and self.centre is not None:
            return _moved(intensity, N // 2 - row, N // 2 - column)
        raise ScanError(
            f"patterns of {rows} × {columns} pixels cannot be brought to {N} × {N} by {self.fit} around "
            f"the zero frequency at {row},{column}; try --crop, --pad or --bin"
        )

    def _cut(self, intensity: np.ndarray, side: int) -> np.ndarray:
        """Return the square of a side whose pixel [side//2, side//2] is the zero frequency, zeros where it hangs over."""
        row, column = self.zero_frequency
        top, left = row - side // 2, column - side // 2
        if top >= 0 and left >= 0 and top + side <= self.shape[0] and left + side <= self.shape[1]:
            return intensity[:, top : top + side, left : left + side]
        moved = _moved(intensity, self.shape[0] // 2 - row, self.shape[1] // 2 - column)
        top, left = self.shape[0] // 2 - side // 2, self.shape[1] // 2 - side // 2
        return moved[:, top : top + side, left : left + side]

    @cached_property
    def _filling(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (bad pixels (b,), good pixels that each is filled from (b, k), their weights (b, k)), pixels as flat indices."""
        from scipy.spatial import cKDTree

        bad = np.zeros(self.shape, bool) if self.bad is None else self.bad
        good, wanted = np.argwhere(~bad), np.argwhere(bad)
        distance, index = cKDTree(good).query(wanted, k=_NEIGHBOURS)
        weights = distance**-2.0
        weights /= weights.sum(1, keepdims=True)
        sources = np.ravel_multi_index(tuple(good[index].transpose(2, 0, 1)), self.shape)
        return np.flatnonzero(bad), sources, weights.astype(np.float32)


def always_marked(patterns: np.ndarray) -> np.ndarray:
    """Return which pixels hold a detector's mark for a bad pixel in all of these patterns (n, rows, columns): (rows, columns) bool.

    Marks are the counter's largest number, −1 and −2, in arrays of floats these numbers, NaN and infinity; and, where patterns differ
    from each other, one number in every pattern that is negative, or beyond all that pixels which change ever read, and zero between
    pixels that nearly always read something.
    """
    patterns = patterns[(patterns != 0).any((1, 2))]
    if not len(patterns):
        return np.zeros(patterns.shape[1:], bool)
    kind = patterns.dtype.kind
    limits = np.finfo(patterns.dtype) if kind == "f" else np.iinfo(patterns.dtype)
    if kind == "f":
        always: np.ndarray = ~np.isfinite(patterns).any(0)
    else:
        always = (patterns == limits.max).all(0)
    for mark in _MARKS[kind]:
        if abs(mark) <= float(limits.max):
            always |= (patterns == np.asarray(mark, patterns.dtype)).all(0)
    if len(patterns) >= _ENOUGH:
        always |= _never_changing(patterns)
    return always


def _never_changing(patterns: np.ndarray) -> np.ndarray:
    """Return which pixels (rows, columns) read one number in all patterns that no pixel of theirs can have counted."""
    lowest, highest = patterns.min(0), patterns.max(0)
    changing = lowest != highest
    lit = highest > 0
    if changing.sum() < 0.5 * lit.sum():  # patterns alike
        return np.zeros(changing.shape, bool)
    beyond: np.ndarray = ~changing & ((lowest < 0) | (highest > highest[changing].max(initial=0)))
    beyond |= _dark_between_lit(patterns)
    return beyond


def _dark_between_lit(patterns: np.ndarray) -> np.ndarray:
    """Return which pixels (rows, columns) are never lit, though pixels on both sides of them, a few away, nearly always are."""
    often = (patterns > 0).mean(0, dtype=np.float64)
    lit, found = often > _NEARLY_ALWAYS, np.zeros(often.shape, bool)
    for axis in (0, 1):
        sides = []
        for direction in (1, -1):
            near = np.zeros(lit.shape, bool)
            for step in range(1, _WIDEST_GAP_PX + 1):
                moved = np.roll(lit, direction * step, axis)
                # What was rolled in from the other end is no neighbour.
                edge = slice(0, step) if direction > 0 else slice(-step, None)
                moved[(slice(None),) * axis + (edge,)] = False
                near |= moved
            sides.append(near)
        found |= sides[0] & sides[1]
    found &= often == 0
    return found


def overflown(stored: np.ndarray, bad: np.ndarray | None) -> np.ndarray | None:
    """Return which pixels of single frames read a 32-bit counter's end, (n, rows, columns) bool; None where there are none.

    Counters of 8 and 16 bits end where a bright pixel may come: there the number stays.
    """
    if stored.dtype.kind not in "ui" or stored.dtype.itemsize < 4:
        return None
    marked: np.ndarray = np.asarray(stored == np.iinfo(stored.dtype).max)
    if bad is not None:
        marked = np.asarray(marked & ~bad)
    return marked if bool(np.any(marked)) else None


def saturated(stored: np.ndarray, bad: np.ndarray | None) -> np.ndarray | None:
    """Return which frames have pixels at the end of an 8- or 16-bit counter, (n,) bool; None for other types."""
    if stored.dtype.kind not in "ui" or stored.dtype.itemsize > 2:
        return None
    full: np.ndarray = np.asarray(stored == np.iinfo(stored.dtype).max)
    if bad is not None:
        full = np.asarray(full & ~bad)
    return np.asarray(full.any((1, 2)))


def _filled_in_window(values: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Return one pattern with bad pixels as the mean of the good ones in a window around them."""
    from scipy.ndimage import uniform_filter

    good = ~bad
    total = uniform_filter(np.where(good, values, 0).astype(np.float64), _WINDOW_PX, mode="constant")
    share = uniform_filter(good.astype(np.float64), _WINDOW_PX, mode="constant")
    mean = np.where(share > 1e-9, total / np.maximum(share, 1e-9), 0.0)
    return np.where(bad, mean, values).astype(values.dtype)


def _moved(intensity: np.ndarray, down: int, right: int) -> np.ndarray:
    """Return patterns shifted by whole pixels, zeros where nothing was recorded; by more than a quarter they are periodic."""
    rows, columns = intensity.shape[-2:]
    if abs(down) > rows // 4 or abs(right) > columns // 4:
        return np.roll(intensity, (down, right), (-2, -1))  # as an FFT left them: the zero frequency near a corner
    result: np.ndarray = np.zeros_like(intensity)
    to: list[Any] = [slice(None)]
    source: list[Any] = [slice(None)]
    for shift, size in ((down, rows), (right, columns)):
        to.append(slice(max(shift, 0), size + min(shift, 0)))
        source.append(slice(max(-shift, 0), size - max(shift, 0)))
    result[tuple(to)] = intensity[tuple(source)]
    return result
