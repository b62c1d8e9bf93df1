"""Which pattern belongs to which position, by the file's own frame numbers, and which of them are taken."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ptycho_runtime.errors import PositionsMissingError, ScanError
from ptycho_runtime.scan.layouts.raw import RawScan
from ptycho_runtime.scan.look import listed
from ptycho_runtime.scan.options import ReadOptions


@dataclass(frozen=True)
class Pairs:
    """Patterns that have a position."""

    rows: np.ndarray  # (n,) int64: of the patterns in the file
    numbers: np.ndarray  # (n,) int64: the file's own number of each
    positions: np.ndarray  # (n,) int64: indices of their positions
    skipped: dict[str, list[int]]  # reason -> frame numbers

    def part(self, keep: np.ndarray, reason: str = "") -> Pairs:
        """Return some of the pairs; the others are listed under a reason, if there is one."""
        skipped = dict(self.skipped)
        if reason and not keep.all():
            skipped[reason] = sorted({*skipped.get(reason, []), *self.numbers[~keep].tolist()})
        return replace(
            self, rows=self.rows[keep], numbers=self.numbers[keep], positions=self.positions[keep], skipped=skipped
        )


def pair(raw: RawScan, options: ReadOptions, n: int) -> Pairs:
    """Return the pairs of n patterns and the file's positions.

    Raises:
        ScanError: which belong together is not said; frames are missing and were not asked to be left out.
    """
    numbers = np.arange(n) if raw.indexes is None else raw.indexes
    if len(np.unique(numbers)) != len(numbers):
        raise ScanError(f"{raw.label}: its indexes repeat frame numbers, so which pattern is which is not known")
    if raw.x is None or raw.y is None:
        if not options.positions_optional:
            raise PositionsMissingError(
                f"{raw.label}: holds no positions; name them with --x-key and --y-key, or give the file that has them with --positions"
            )
        pairs = Pairs(np.arange(n), numbers, np.arange(n), {})
    else:
        if len(raw.x) != len(raw.y):
            raise ScanError(
                f"{raw.label}: {len(raw.x)} positions along x and {len(raw.y)} along y; expected as many of both"
            )
        pairs = _by_row(raw, options, numbers) if raw.numbers is None else _by_number(raw, raw.numbers, numbers)
    if options.incomplete and raw.x is not None and raw.y is not None:
        there = ~np.isnan(raw.x + raw.y)[pairs.positions]
        pairs = pairs.part(there, "frames whose positions were never written")
    unwritten = np.isin(pairs.rows, raw.unwritten)
    if unwritten.any() and not options.incomplete:
        raise ScanError(
            f"{raw.label}: is incomplete: {int(unwritten.sum())} of {n} frames were never written ({listed(pairs.numbers[unwritten])}); "
            "wait for the rest, or give --incomplete to take the frames that are there"
        )
    pairs = pairs.part(~unwritten, "frames that were never written")
    if not len(pairs.rows):
        raise ScanError(f"{raw.label}: is incomplete: none of its {n} frames was written")
    return pairs


def selected(pairs: Pairs, options: ReadOptions, label: str) -> Pairs:
    """Return the pairs that were asked for: frames excluded by number, then every so many of a range of those in the file.

    Raises:
        ScanError: a frame that is to be left out is not there; nothing is left.
    """
    if options.exclude:
        wanted = np.array(options.exclude, np.int64)
        strange = wanted[~np.isin(wanted, pairs.numbers)]
        if len(strange):
            raise ScanError(
                f"{label}: has no frame {listed(strange)} to leave out; its frames are {pairs.numbers.min()} to {pairs.numbers.max()}"
            )
        pairs = pairs.part(~np.isin(pairs.numbers, wanted), "left out with --exclude")
    start, stop = options.rows
    if (start, stop, options.every) != (0, None, 1):
        keep = np.zeros(len(pairs.rows), bool)
        keep[start : stop : options.every] = True
        pairs = pairs.part(keep)
    if not len(pairs.rows):
        raise ScanError(f"{label}: no pattern is left of those that were asked for")
    return pairs


def _by_row(raw: RawScan, options: ReadOptions, numbers: np.ndarray) -> Pairs:
    """Pair patterns and positions one by one."""
    n, count = len(numbers), 0 if raw.x is None else len(raw.x)
    if n != count and not options.incomplete:
        raise ScanError(
            f"{raw.label}: {n} patterns and {count} positions; which belong together is not said, "
            f"so give a file where both have one length, or --incomplete to take the first {min(n, count)} of both"
        )
    rows = np.arange(min(n, count))
    alone = numbers[len(rows) :].tolist()
    return Pairs(rows, numbers[: len(rows)], rows, {"patterns without a position": alone} if alone else {})


def _by_number(raw: RawScan, wanted: np.ndarray, numbers: np.ndarray) -> Pairs:
    """Pair by the frame numbers that the file of positions has."""
    if raw.x is None or not len(wanted) or len(wanted) != len(raw.x):
        raise ScanError(f"{raw.label}: {len(wanted)} frame numbers for {0 if raw.x is None else len(raw.x)} positions")
    if raw.indexes is None and wanted.min() > 0 and wanted.max() >= len(numbers):
        raise ScanError(
            f"{raw.label}: has no indexes, and positions are of frames {wanted.min()} to {wanted.max()}, so which of its "
            f"{len(numbers)} patterns is which is not known; give a file of patterns with indexes, or positions without frame numbers"
        )
    order = np.argsort(numbers, kind="stable")
    place = np.searchsorted(numbers[order], wanted)
    rows = order[np.minimum(place, len(order) - 1)]
    known = numbers[rows] == wanted
    if not known.any():
        raise ScanError(
            f"{raw.label}: no position belongs to any of the {len(numbers)} patterns (numbered {numbers.min()} to {numbers.max()}, "
            f"positions {wanted.min()} to {wanted.max()}); the two files are not of one scan"
        )
    skipped = {}
    if not known.all():
        skipped["positions without a pattern"] = sorted(wanted[~known].tolist())
    alone = np.setdiff1d(numbers, wanted)
    if len(alone):
        skipped["patterns without a position"] = alone.tolist()
    return Pairs(rows[known], wanted[known], np.flatnonzero(known), skipped)
