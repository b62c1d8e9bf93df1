"""Each frame its own position: by id, or by the one time stamp within a tolerance. None is ever interpolated or guessed."""

from __future__ import annotations

import bisect

import numpy as np

from ptycho_runtime.live.values import FaultError, Match, Positions

_MOST = 20_000_000  # positions that are kept


class Pairing:
    """Positions that are known, and frames that wait for theirs."""

    def __init__(self, match: Match = "id", tolerance_s: float = 0.0) -> None:
        """Begin without positions.

        Args:
            match: by `id` or by `time`.
            tolerance_s: between the stamps of a frame and of its position.

        Raises:
            FaultError: a match by time without a tolerance.
        """
        if match == "time" and not tolerance_s > 0:
            raise FaultError(
                "frames and positions are matched by time; say how far their stamps may be apart with --tolerance-s"
            )
        self.match, self.tolerance_s = match, tolerance_s
        self._by_id: dict[int, tuple[float, float]] = {}
        self._times: list[float] = []
        self._at: list[tuple[float, float]] = []
        self._waiting: dict[int, float] = {}  # id -> time
        self._table = np.zeros(0, np.int64)

    @property
    def waiting(self) -> int:
        """Frames that wait."""
        return len(self._waiting)

    @property
    def oldest(self) -> int | None:
        """Id of the frame that has waited longest."""
        return next(iter(self._waiting), None)

    def frame(self, number: int, time_s: float) -> tuple[float, float] | str | None:
        """Return a frame's position (x, y), None where it has to wait, or in words why it will never have one."""
        # What is asked for once is kept no longer: memory does not grow with the scan.
        found = self._by_id.pop(number, None) if self.match == "id" else self._at_time(time_s)
        if found is None:
            self._waiting[number] = time_s
        return _checked(found)

    def forget(self, number: int) -> None:
        """Let a frame wait no longer."""
        self._waiting.pop(number, None)

    def positions(self, new: Positions) -> list[tuple[int, tuple[float, float] | str]]:
        """Take positions; returns those of frames that waited for them, as `frame` does."""
        if len(self._by_id) + len(self._times) + len(new.xy_px) > _MOST + len(self._table):
            raise FaultError(f"more than {_MOST} positions came; expected one a frame")
        if self.match == "id":
            return self._new_ids(new)
        if new.times_s is None:
            raise FaultError("positions come without times, and frames are matched by time; give --match id")
        for time_s, (x, y) in zip(new.times_s.tolist(), new.xy_px.tolist(), strict=True):
            place = bisect.bisect_left(self._times, time_s)
            if place < len(self._times) and self._times[place] == time_s:
                continue
            self._times.insert(place, time_s)
            self._at.insert(place, (x, y))
        found = []
        for number, time_s in list(self._waiting.items()):
            position = _checked(self._at_time(time_s))
            if position is not None:
                del self._waiting[number]
                found.append((number, position))
        return found

    def _new_ids(self, new: Positions) -> list[tuple[int, tuple[float, float] | str]]:
        if new.ids is None:
            raise FaultError(
                "positions come without ids, and frames are matched by id; give --match time and --tolerance-s"
            )
        # Tables that grow come whole each time: what was there before is passed over.
        known = len(self._table)
        same = len(new.ids) >= known and np.array_equal(new.ids[:known], self._table)
        first = known if same else 0
        self._table = new.ids
        found = []
        for number, (x, y) in zip(new.ids[first:].tolist(), new.xy_px[first:].tolist(), strict=True):
            if number in self._waiting:
                del self._waiting[number]
                found.append((number, _checked((x, y)) or (x, y)))
            else:
                self._by_id.setdefault(number, (x, y))
        return found

    def _at_time(self, time_s: float) -> tuple[float, float] | str | None:
        """Return the one position whose stamp is near enough."""
        if not np.isfinite(time_s):
            return "it has no time stamp"
        first = bisect.bisect_left(self._times, time_s - self.tolerance_s)
        last = bisect.bisect_right(self._times, time_s + self.tolerance_s)
        if last - first > 1:
            return "several positions within the tolerance"
        return self._at[first] if last > first else None


def _checked(found: tuple[float, float] | str | None) -> tuple[float, float] | str | None:
    if isinstance(found, tuple) and not (np.isfinite(found[0]) and np.isfinite(found[1])):
        return "its position is not a number"
    return found
