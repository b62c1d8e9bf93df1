"""One pass over all patterns: what no detector gives is refused, what is odd is said, and energies are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.scan.centre import OFF_PX, Centre, MeanPattern
from ptycho_runtime.scan.detector import Detector, overflown, saturated
from ptycho_runtime.scan.layouts.numbers import check_type
from ptycho_runtime.scan.options import Domain
from ptycho_runtime.scan.scale import pattern_energy, scale_changes
from ptycho_runtime.threads import ahead

CHUNK_VALUES = 1 << 20  # pixels looked at in one go
_SAMPLE_VALUES = 1 << 23
_LARGEST = {"amplitude": 1e18, "intensity": 1e36}  # whose squares, or sums, float32 holds
_HOT_SHARE = 0.5  # of a pattern's counts in one pixel
_HOT_TIMES = 10.0  # the brightest neighbour
_CENTRE_PX = 2
_MOVES = 0.01  # of input_scale_factor, by one frame alone
_BRIGHTER = 2.0  # times the median, so that a scan of few patterns is not all named

Read = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Frames:
    """Patterns to look at."""

    label: str
    read: Read  # ascending rows -> (n, h, w), as stored
    rows: np.ndarray  # (n,) int64
    numbers: np.ndarray  # (n,) int64, the file's own
    detector: Detector
    domain: Domain


@dataclass(frozen=True)
class Seen:
    """What was seen of each pattern."""

    energy: np.ndarray  # (n,) float64, Σ d² of the pattern as amplitudes on the model's grid
    dead: np.ndarray  # (n,) bool
    warnings: list[str]


def chunks(n: int, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield the indices of n patterns, as many at a time as memory and caches like."""
    step = max(1, CHUNK_VALUES // (shape[0] * shape[1]))
    for start in range(0, n, step):
        yield np.arange(start, min(start + step, n))


def sample_rows(rows: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return some rows from all over a scan, as many as memory bears."""
    most = int(np.clip(_SAMPLE_VALUES // (shape[0] * shape[1]), 8, 256))
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64))]


def listed(numbers: np.ndarray | list[int], most: int = 10) -> str:
    """Return frame numbers for a message."""
    return ", ".join(str(n) for n in numbers[:most]) + (f" … ({len(numbers)} in all)" if len(numbers) > most else "")


def look_at(frames: Frames, N: int) -> Seen:
    """Return what all patterns are, read once.

    Args:
        frames: the patterns; numbers and rows are of one length.
        N: side of a pattern that the model takes, pixels.

    Raises:
        ScanError: a pattern holds NaN, negative numbers, or numbers beyond float32; the message names the frame.
    """
    n, detector = len(frames.rows), frames.detector
    energy, peak = np.zeros(n), np.zeros(n)
    dead, full, over = np.zeros(n, bool), np.zeros(n, bool), np.zeros(n, bool)

    def read() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for which in chunks(n, detector.shape):
            order = which[np.argsort(frames.rows[which], kind="stable")]
            yield order, frames.read(frames.rows[order])

    # The next chunk is read and decompressed while this one is looked at.
    with closing(ahead(read(), 1, "scan reader")) as chunks_read:
        for order, stored in chunks_read:
            check_type(stored.dtype, f"{frames.label}: patterns")
            dead[order] = _check_values(stored, frames, frames.numbers[order])
            saturation, overflow = saturated(stored, detector.bad), overflown(stored, detector.bad)
            full[order] = False if saturation is None else saturation
            over[order] = False if overflow is None else overflow.any((1, 2))
            fed = detector.as_fed(stored, N, frames.domain, "amplitude")
            energy[order] = pattern_energy(fed)
            peak[order] = np.square(fed.max((1, 2)), dtype=np.float64)
    warnings = []
    if over.any():
        warnings.append(
            f"bad pixels at the counter's end are filled in frames {listed(frames.numbers[over])}, beside those of every frame"
        )
    if full.any():
        warnings.append(
            f"{int(full.sum())} frames have saturated pixels (at the counter's end): {listed(frames.numbers[full])}"
        )
    return Seen(energy, dead, warnings + _scale_warnings(energy, peak, dead, frames.numbers))


def _check_values(stored: np.ndarray, frames: Frames, numbers: np.ndarray) -> np.ndarray:
    """Return which patterns are zero everywhere; raise `ScanError` for what no detector gives."""
    bad = frames.detector.bad
    if bad is not None and bad.any():
        stored = np.where(bad, np.zeros((), stored.dtype), stored)
    lowest, highest = stored.min((1, 2)), stored.max((1, 2))
    finite = np.isfinite(lowest) & np.isfinite(highest)
    label = frames.label
    if not finite.all():
        raise ScanError(
            f"{label}: frame {numbers[~finite][0]} holds NaN or infinity; give its bad pixels with --mask, or leave frames out "
            "with --exclude"
        )
    if (lowest < 0).any():
        raise ScanError(
            f"{label}: frame {numbers[lowest < 0][0]} holds negative values; correct the background first, or give the bad "
            "pixels with --mask"
        )
    if (highest.astype(np.float64) > _LARGEST[frames.domain]).any():
        worst = int(highest.astype(np.float64).argmax())
        raise ScanError(
            f"{label}: frame {numbers[worst]} holds {float(highest[worst]):.3g}, too large for float32; expected {frames.domain}s "
            "of photon counts"
        )
    return np.asarray(highest == 0)


def _scale_warnings(energy: np.ndarray, peak: np.ndarray, dead: np.ndarray, numbers: np.ndarray) -> list[str]:
    """Return a line on frames that alone move the scale of all others."""
    lit = ~dead
    if not lit.any():
        return []
    change, median = np.zeros(len(energy)), float(np.median(energy[lit]))
    change[lit] = scale_changes(energy[lit])
    moving = np.flatnonzero((change > _MOVES) & (energy > _BRIGHTER * median))
    lines = []
    for is_hot in (True, False):
        frames = moving[(peak[moving] > _HOT_SHARE * energy[moving]) == is_hot]
        if len(frames):
            what = (
                "have a hot pixel that"
                if is_hot
                else f"are up to {energy[frames].max() / median:.3g} times brighter and"
            )
            remedy = "mask the pixel with --mask, or leave the frames out" if is_hot else "leave them out"
            lines.append(
                f"frames {listed(numbers[frames])} {what} alone move input_scale_factor by up to {100 * change[frames].max():.0f} %: "
                f"{remedy} with --exclude {','.join(map(str, numbers[frames][:10]))}"
            )
    return lines


def hot_pixels(amplitudes: np.ndarray, zero_frequency: tuple[int, int]) -> np.ndarray:
    """Return the pixels (k, 2) that outshine all their neighbours by far in most patterns, away from the zero frequency.

    Args:
        amplitudes: (n, rows, columns) of some patterns.
        zero_frequency: (row, column), around which light is as it pleases.
    """
    from scipy.ndimage import maximum_filter

    usual = np.median(amplitudes, axis=0)
    around = np.ones((3, 3), bool)
    around[1, 1] = False
    hot = usual > _HOT_TIMES * np.maximum(maximum_filter(usual, footprint=around, mode="nearest"), np.median(usual))
    hot &= usual > amplitudes.mean(dtype=np.float64)
    row, column = zero_frequency
    hot[max(row - _CENTRE_PX, 0) : row + _CENTRE_PX + 1, max(column - _CENTRE_PX, 0) : column + _CENTRE_PX + 1] = False
    return np.argwhere(hot)


def mean_centre(amplitudes: np.ndarray) -> Centre:
    """Return where the zero frequency of patterns (n, rows, columns) lies."""
    mean = MeanPattern((amplitudes.shape[1], amplitudes.shape[2]))
    mean.add(amplitudes)
    return mean.centre()


def check_centre(centre: Centre, detector: Detector, label: str) -> None:
    """Raise `ScanError` where patterns have their zero frequency a pixel or more from where it is taken to be."""
    if not centre.distinct:
        return
    at = detector.zero_frequency
    down, right = centre.off_px(at, detector.shape)
    if max(abs(down), abs(right)) < OFF_PX:
        return
    corner = all(abs(off) > 0.4 * size for off, size in zip((down, right), detector.shape, strict=True))
    row, column = (
        round(place, 1) % size for place, size in zip((centre.row, centre.column), detector.shape, strict=True)
    )
    where = "at the corner, as an FFT leaves it" if corner else f"at row {row:.1f}, column {column:.1f}"
    raise ScanError(
        f"{label}: the zero frequency (centre of the mean pattern) lies {where}; expected it at {at[0]},{at[1]}; give --centre auto "
        f"to correct it, or --centre {at[0]},{at[1]} if it is there"
    )
