"""Groups of neighbours for models that see several patterns at a time, emitted when they can change no more."""

from __future__ import annotations

import numpy as np

from ptycho_runtime.scan.grouping import group_neighbours

_WIDE = 4  # times the patterns of a group: frames around one that may have to stand in for others
_AT_ONCE = 16  # groups for which neighbours are looked for in one go, or the hundredth of the frames that came


class Groups:
    """Which frames are seen together: each with its nearest neighbours, as in a scan on disk of the frames that came.

    With planned positions a group is emitted as soon as its members are there. Without, a frame's neighbours are final when the
    raster is a line and a point further on (`lag` frames); where that is not said, at the end. With one pattern a group there
    is nothing to wait for.
    """

    def __init__(self, C: int, within_px: float, *, lag: int | None = None) -> None:
        """Begin without frames.

        Args:
            C: patterns in a group.
            within_px: largest distance of a member from the one that opens the group.
            lag: frames after which the neighbours of one are final; None where that is not known.
        """
        self.C, self.within_px, self.lag = C, within_px, lag
        self.xy_px: dict[int, tuple[float, float]] = {}  # of the frames that came
        self._open: dict[int, None] = {}  # that came, and whose groups were not emitted
        self._planned: dict[int, tuple[int, ...]] = {}  # group by its first frame
        self._lacking: dict[int, int] = {}  # members that have not come
        self._opened_by: dict[int, list[int]] = {}  # planned groups in which a frame is
        self._near: dict[
            int, list[int]
        ] = {}  # whose groups a frame may be in, some more than planned: others may be lost
        self._done: set[int] = set()  # first frames of groups that were emitted

    def plan(self, ids: np.ndarray, xy_px: np.ndarray) -> None:
        """Know where all frames will be: ids (n,), (x, y) (n, 2)."""
        order = np.argsort(ids, kind="stable")
        ids, xy_px = ids[order], xy_px[order]
        groups = group_neighbours(xy_px, self.C)
        far = np.linalg.norm(xy_px[groups] - xy_px[groups[:, :1]], axis=-1).max(-1) > self.within_px
        for members in ids[groups[~far]].tolist():
            self._planned[members[0]] = tuple(members)
            self._lacking[members[0]] = self.C
            for member in members:
                self._opened_by.setdefault(member, []).append(members[0])
        wide = group_neighbours(xy_px, min(_WIDE * self.C, len(ids)))
        self._near = dict(zip(ids.tolist(), ids[wide].tolist(), strict=True))

    def add(self, number: int, xy_px: tuple[float, float], *, opens: bool = True) -> list[tuple[int, ...]]:
        """Take a frame; returns the groups that are final now, each by ids, the one that opens it first.

        Args:
            number: its id.
            xy_px: its position.
            opens: its own group is still to come; a frame of an earlier run is a member of others' alone.
        """
        self.xy_px[number] = xy_px
        if self.C == 1:
            return [(number,)]
        if opens:
            self._open[number] = None
        else:
            self._done.add(number)
        if self._planned:
            return self._complete(number)
        if self.lag is None:
            return []
        last = max(self.xy_px)
        final = [each for each in self._open if each <= last - self.lag]
        return self._emitted(final) if len(final) >= max(_AT_ONCE, len(self.xy_px) // 100) else []

    def _complete(self, number: int) -> list[tuple[int, ...]]:
        found = []
        for first in self._opened_by.get(number, ()):
            self._lacking[first] -= 1
            if self._lacking[first] == 0 and first not in self._done:
                self._open.pop(first, None)
                self._done.add(first)
                found.append(self._planned[first])
        return found

    def flush(self) -> tuple[list[tuple[int, ...]], list[int]]:
        """Return (the groups of all frames that are left, frames that have too few neighbours for one)."""
        final = list(self._open)
        found = self._emitted(final)
        alone = list(self._open)
        self._open.clear()
        return found, alone

    def needed(self, number: int) -> bool:
        """Say whether a frame may be a member of groups to come."""
        if self.C == 1:
            return False
        if self._planned:
            return any(first not in self._done for first in self._near.get(number, ()))
        return bool(self._open) or self.lag is None

    def _emitted(self, final: list[int]) -> list[tuple[int, ...]]:
        """Return the groups that some frames open among all that came; those without neighbours stay open."""
        if not final or len(self.xy_px) < self.C:
            return []
        ids = np.sort(np.fromiter(self.xy_px, np.int64, len(self.xy_px)))
        xy = np.array([self.xy_px[each] for each in ids.tolist()])
        groups = group_neighbours(xy, self.C)[np.searchsorted(ids, np.sort(np.array(final)))]
        near = np.linalg.norm(xy[groups] - xy[groups[:, :1]], axis=-1).max(-1) <= self.within_px
        found = [tuple(members) for members in ids[groups[near]].tolist()]
        for members in found:
            self._open.pop(members[0], None)
        return found
