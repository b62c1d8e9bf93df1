"""Two sets of patterns of which one would agree with the other if it lay elsewhere: by how much, and which patterns are of which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptycho_runtime.image.trust.evidence import Kept
from ptycho_runtime.image.trust.overlap import Placed, Records
from ptycho_runtime.image.trust.pairs import compare_pairs
from ptycho_runtime.image.trust.sets import LEAST, Division, voices

_WINDOW_PX = 512  # of the canvas, where the two are compared
_CLEARLY = 0.8  # of the difference as they lie
_SHARED = 0.5  # of what they cover together as they lie: with less in common nothing is said
_ROUNDS = 3
_PARTNERS = 30  # neighbours of each as it lies and moved
_SURE = 0.15  # of what a pair can say, on an average
_SWEEPS = 10
_NOT_TWICE = -6.0  # what speaks against one pattern in two places
_MORE = 0.5  # of what a pair can say, on an average, for the two sets once one was moved than as they lie


@dataclass(frozen=True)
class Displaced:
    """A displacement and who has it."""

    by_px: tuple[int, int]
    """(x, y) by which the second set's positions would have to be moved."""
    first: np.ndarray
    """(n,) bool: patterns that fit as they lie."""
    second: np.ndarray
    """(n,) bool: patterns that fit where they were moved to."""


def displaced(
    known: Kept, placed: Placed, which: np.ndarray, limit: float, sets: tuple[np.ndarray, np.ndarray]
) -> Displaced | None:
    """Return who is of which of two sides that agree once one was moved; None where they do not.

    Args:
        known: what was kept of the patterns.
        placed: the patches.
        which: (n,) bool: patterns to look at.
        limit: of the disagreement of two that agree.
        sets: two masks (n,) to begin with.
    """
    found, by = None, None
    for _ in range(_ROUNDS):
        moved = _displacement(placed, known.stitcher.sums, *sets)
        if moved is None or moved == by:
            break
        better = _told_apart(placed, which, limit, moved, known.threads)
        if better is None:
            break
        # Sets that are purer tell the displacement more exactly.
        found, by, sets = better, moved, (better.first, better.second)
    return found


def _displacement(placed: Placed, sums: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[int, int] | None:
    """Return the (rows, columns) that bring the object of one set onto that of the other; None where none clearly does.

    Args:
        placed: the patches.
        sums: (rows, columns, 3) float64 of all of them.
        first: (n,) bool.
        second: (n,) bool.

    The two objects are compared as two patches are, where both are, for all displacements at a time.
    """
    from scipy import fft

    middle = np.median(placed.corners[second], axis=0).astype(int)
    top, left = np.maximum(middle - _WINDOW_PX // 2, 0)
    window = (slice(top, top + _WINDOW_PX), slice(left, left + _WINDOW_PX))
    objects, masks = zip(*(_object(placed.sums_without(sums, ~each)[window]) for each in (first, second)), strict=True)
    shape = [fft.next_fast_len(2 * size) for size in masks[0].shape]

    def correlated(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return Σ a(x)·conj(b(x − Δ)) for all Δ."""
        found: np.ndarray = fft.ifft2(fft.fft2(a, shape) * np.conj(fft.fft2(b, shape)))
        return found

    (a, b), (there, here) = objects, masks
    shared = correlated(there, here).real
    product = np.abs(correlated(a, b))
    power = correlated(np.abs(a) ** 2, here).real + correlated(there, np.abs(b) ** 2).real
    ratio = np.maximum(2.0 - 4.0 * product / np.maximum(power, 1e-30), 0.0)
    # Farther than a middle is wide no pattern would have the neighbours that it has.
    far = [np.abs(fft.fftfreq(size, 1 / size)) > placed.crop_px for size in shape]
    ratio[(shared < max(_SHARED * shared[0, 0], 1.0)) | far[0][:, None] | far[1]] = np.inf
    best = np.unravel_index(int(ratio.argmin()), ratio.shape)
    if not ratio[best] < _CLEARLY**2 * ratio[0, 0]:
        return None
    row, column = (int((place + size // 2) % size - size // 2) for place, size in zip(best, ratio.shape, strict=True))
    return row, column


def _object(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (what weighted sums say, where they say anything as 0 and 1), (rows, columns) each."""
    covered = sums[..., 2] > 0.05 * sums[..., 2].max()
    return np.where(covered, sums[..., 0] + 1j * sums[..., 1], 0) / np.where(covered, sums[..., 2], 1.0), covered * 1.0


def _told_apart(
    placed: Placed, which: np.ndarray, limit: float, moved: tuple[int, int], threads: int
) -> Displaced | None:
    """Return who of all patterns is of which of two sets, the second of which lies elsewhere; None where the two do not agree even so.

    Args:
        placed: the patches.
        which: (n,) bool: patterns to look at.
        limit: of the disagreement of two that agree.
        moved: (rows, columns) by which the second set would have to be moved.
        threads: that compare.

    Each pattern is there twice, as it lies and moved, and the largest set of all these that agree has each pattern where it belongs.
    """
    count = len(which)
    # Pattern i as it lies has the number i, and where it was moved to i + count.
    twice = Placed(_Twice(placed.patches), np.concatenate([placed.corners, placed.corners + moved]), placed.weights)
    twofold = np.tile(which, 2)
    pairs = compare_pairs(twice, twofold, threads, _PARTNERS)
    (a, b), voice = pairs.two.T, voices(pairs.disagreement, limit)
    voice[b - a == count] = _NOT_TWICE
    division = Division.of(twofold, pairs.two, voice)
    belongs = division.side(division.sets[0], np.roll(division.sets[0], count))
    for _ in range(_ROUNDS):
        belongs, before = _together_moved(division, twofold, _each_moved(division, belongs)), belongs
        if (belongs == before).all():
            break
    fits = np.nan_to_num(division.mean_voice(belongs), nan=-1.0).reshape(2, count)
    first, second = belongs.reshape(2, count)
    # Those that fit in both places lie in a flat area; they are not to blame.
    second = second & (fits[1] > fits[0] + _SURE)
    lies = np.concatenate([first, np.zeros(count, bool)]), np.concatenate([np.zeros(count, bool), second])
    unmoved = np.concatenate([second, np.zeros(count, bool)])
    agreeing, as_given = (division.mean_across(lies[0], other) for other in (lies[1], unmoved))
    if not agreeing >= max(0.0, as_given + _MORE):
        return None
    return Displaced((moved[1], moved[0]), first, second)


def _each_moved(division: Division, belongs: np.ndarray) -> np.ndarray:
    """Return the mask (2n,) of where patterns belong after each went where most speaks for it, until none moves."""
    for _ in range(_SWEEPS):
        fits = np.nan_to_num(division.mean_voice(belongs), nan=-1.0).reshape(2, -1)
        better = (fits.argmax(0) == np.arange(2)[:, None]) & (fits > 0)
        if (better.reshape(-1) == belongs).all():
            break
        belongs = better.reshape(-1)
    return belongs


def _together_moved(division: Division, which: np.ndarray, belongs: np.ndarray) -> np.ndarray:
    """Return the mask (2n,) of where patterns belong after sets of those left over took their places, where that says more.

    Args:
        division: of all, as they lie and moved.
        which: (2n,) bool: all.
        belongs: (2n,) bool.

    Behind a flat area, over which nothing is said, half of the patterns may lie where all of them would have to lie farther.
    """

    def said(mask: np.ndarray) -> float:
        return float(division.voice[mask[division.two].all(1)].sum())

    left = which & ~belongs
    inside = left[division.two].all(1)
    for each in Division.of(left, division.two[inside], division.voice[inside]).sets:
        there = (belongs & ~np.roll(each, len(each) // 2)) | each
        if each.sum() >= LEAST and said(there) > said(belongs):
            belongs = there
    return belongs


@dataclass(frozen=True)
class _Twice:
    """Records that are there twice."""

    records: Records

    @property
    def copies(self) -> np.ndarray:
        return np.tile(self.records.copies, 2)

    def get(self, which: np.ndarray) -> np.ndarray:
        return self.records.get(which % len(self.records.copies))
