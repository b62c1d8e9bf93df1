"""The account of frames holds at every moment, whatever comes, in whatever order, and each frame has its own position or none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ptycho_runtime.live.groups import Groups
from ptycho_runtime.live.inbox import NEWER, Inbox, Limits
from ptycho_runtime.live.pairing import Pairing
from ptycho_runtime.live.values import FaultError, Frame, Positions
from ptycho_runtime.scan.grouping import group_neighbours

SHAPE = (4, 5)


def frame(number: int, time_s: float = float("nan"), value: int | None = None) -> Frame:
    return Frame(number, time_s, np.full(SHAPE, number % 251 + 1 if value is None else value, np.uint16))


def at(ids: list[int], xy: Any = None, times_s: list[float] | None = None) -> Positions:
    places = np.array([[10.0 * n, 1.0] for n in ids]) if xy is None else np.array(xy, float)
    return Positions(places, np.array(ids, np.int64), None if times_s is None else np.array(times_s))


def inbox_of(overrun: Any = "lossless", frames: int = 8, groups: Groups | None = None, **limits: Any) -> Inbox:
    return Inbox(Limits(overrun, frames, **limits), Pairing(), groups or Groups(1, 32.0))


def counts(inbox: Inbox) -> tuple[int, int, int, int]:
    account: Any = inbox.account()
    return account["seen"], account["waiting_position"], account["waiting_group"], account["queued"]


def test_frames_wait_for_their_own_position() -> None:
    inbox = inbox_of()
    for number in (3, 1, 2):
        inbox.frame(frame(number))
    assert counts(inbox) == (3, 3, 0, 0)
    inbox.positions(at([2, 7]))
    assert counts(inbox) == (3, 2, 0, 1)
    inbox.frame(frame(7))
    work = inbox.take(8, 0.0)
    assert work is not None
    assert work.ids.ravel().tolist() == [2, 7]
    assert work.xy_px[:, 0, 0].tolist() == [20.0, 70.0]
    assert work.values[:, 0, 0, 0].tolist() == [3, 8]
    assert counts(inbox) == (4, 2, 0, 2), "in the session is queued still"
    inbox.placed(work.ids)
    assert inbox.account() == {
        "seen": 4, "placed": 2, "waiting_position": 2, "waiting_group": 0, "queued": 0, "dropped": {}, "failed": 0,
        "missing": 3, "duplicates": 0, "trusted": False,
    }  # fmt: skip


def test_position_that_is_not_a_number_is_listed() -> None:
    inbox = inbox_of()
    inbox.frame(frame(4))
    inbox.positions(at([4, 5], [[np.nan, 1.0], [2.0, np.inf]]))
    inbox.frame(frame(5))
    assert inbox.ledger.dropped == {"its position is not a number": [4, 5]}
    assert inbox.take(1, 0.0) is None


def test_tables_that_grow_are_read_once() -> None:
    inbox = inbox_of(frames=100)
    for stop in (5, 20, 20, 60):
        inbox.positions(at(list(range(stop))))
    for number in range(60):
        inbox.frame(frame(number))
    work = inbox.take(60, 0.0)
    assert work is not None
    assert np.array_equal(work.xy_px[:, 0, 0], 10.0 * np.arange(60))


def test_duplicates_are_counted_beside() -> None:
    inbox = inbox_of()
    inbox.positions(at([1, 2]))
    for number in (1, 2, 1, 2, 2):
        inbox.frame(frame(number))
    assert counts(inbox) == (2, 0, 0, 2)
    assert inbox.ledger.duplicates == 3


def test_id_that_comes_again_with_another_pattern_is_a_new_series() -> None:
    inbox = inbox_of()
    inbox.frame(frame(1))
    inbox.frame(frame(2))
    inbox.frame(frame(1, value=77))
    inbox.positions(at([1]))
    inbox.frame(frame(2, value=78))
    assert inbox.restarted
    assert counts(inbox) == (2, 2, 0, 0)
    assert [getattr(item, "id", "positions") for item in inbox.later] == [1, "positions", 2]


def test_id_far_back_is_a_new_series_unless_the_source_was_gone() -> None:
    for gone in (False, True):
        inbox = inbox_of()
        inbox.frame(frame(5000))
        if gone:
            inbox.disconnected("image")
        inbox.frame(frame(3))
        assert inbox.restarted != gone


def test_lower_id_with_a_later_stamp_is_a_new_series_and_with_an_earlier_one_is_late() -> None:
    for time_s, anew in ((99.0, False), (100.0, False), (101.0, True)):
        inbox = inbox_of()
        inbox.frame(frame(30, 100.0))
        inbox.frame(frame(29, time_s))
        assert inbox.restarted == anew


class TestOverrun:
    def test_lossless_spools_and_gives_back_what_came(self) -> None:
        inbox = inbox_of(frames=4)
        inbox.positions(at(list(range(40))))
        for number in range(40):
            inbox.frame(frame(number))
        assert inbox.spooled == 36
        work = inbox.take(40, 0.0)
        assert work is not None
        assert work.values[:, 0, 0, 0].tolist() == [n % 251 + 1 for n in range(40)]
        inbox.placed(work.ids)
        assert (inbox.spooled, inbox.ledger.placed) == (0, 40)

    def test_lossless_beyond_its_file_is_a_fault(self) -> None:
        inbox = inbox_of(frames=4, spool_bytes=3 * 40)
        for number in range(8):
            inbox.frame(frame(number))
        assert isinstance(inbox.error, FaultError)
        assert "7 frames wait and the spool of 120 bytes is full" in str(inbox.error)
        assert (inbox.ledger.difference, inbox.ledger.failed) == (0, 1)

    def test_newest_lists_every_frame_that_it_drops(self) -> None:
        inbox = inbox_of("newest", frames=4)
        inbox.positions(at(list(range(8))))
        for number in range(12):
            inbox.frame(frame(number))
            assert inbox.ledger.difference == 0
        assert inbox.ledger.dropped == {NEWER: [0, 1, 2, 3, 4, 5, 6, 7]}, "those without a position wait, and are newer"
        for number in range(12, 15):
            inbox.frame(frame(number))
        assert inbox.ledger.dropped[NEWER][8:] == [8, 9, 10]
        assert counts(inbox) == (15, 4, 0, 0)

    def test_stop_is_a_fault(self) -> None:
        inbox = inbox_of("stop", frames=4)
        for number in range(5):
            inbox.frame(frame(number))
        assert "more than 4 frames wait" in str(inbox.error)
        assert inbox.ledger.difference == 0


def test_frame_of_another_shape_or_type_is_a_fault() -> None:
    for values in (np.ones((5, 5), np.uint16), np.ones(SHAPE, np.uint32)):
        inbox = inbox_of()
        inbox.frame(frame(1))
        inbox.frame(Frame(2, 0.0, values))
        assert "expected uint16 of (4, 5), as the first one was" in str(inbox.error)


class TestTimes:
    def inbox(self) -> Inbox:
        return Inbox(Limits(), Pairing("time", 0.02), Groups(1, 32.0))

    def test_pairs_within_the_tolerance_alone(self) -> None:
        inbox = self.inbox()
        inbox.frame(frame(1, 100.00))
        inbox.frame(frame(2, 100.10))
        inbox.positions(Positions(np.array([[1.0, 1.0], [2.0, 2.0]]), None, np.array([100.011, 100.125])))
        inbox.frame(frame(3, 100.13))
        work = inbox.take(3, 0.0)
        assert work is not None
        assert dict(zip(work.ids.ravel().tolist(), work.xy_px[:, 0, 0].tolist(), strict=True)) == {1: 1.0, 3: 2.0}
        assert inbox.ledger.waiting_position == 1

    def test_two_positions_within_it_are_none(self) -> None:
        inbox = self.inbox()
        inbox.positions(Positions(np.ones((2, 2)), None, np.array([7.0, 7.01])))
        inbox.frame(frame(1, 7.005))
        inbox.frame(frame(2))
        assert inbox.ledger.dropped == {"several positions within the tolerance": [1], "it has no time stamp": [2]}

    def test_needs_a_tolerance(self) -> None:
        with pytest.raises(FaultError, match="--tolerance-s"):
            Pairing("time")


def test_column_of_times_is_needed_for_them_and_ids_for_ids() -> None:
    inbox = inbox_of()
    inbox.positions(Positions(np.ones((1, 2)), None, np.array([1.0])))
    assert "give --match time" in str(inbox.error)


class TestGroups:
    side, C = 12, 4

    def positions(self) -> np.ndarray:
        grid = np.stack(np.meshgrid(np.arange(self.side), np.arange(self.side)), axis=-1).reshape(-1, 2) * 6.0
        return grid + np.random.default_rng(0).uniform(-1, 1, grid.shape)

    def offline(self, xy: np.ndarray, came: np.ndarray) -> set[tuple[int, ...]]:
        return {tuple(came[group].tolist()) for group in group_neighbours(xy[came], self.C)}

    @pytest.mark.parametrize("kind", ["planned", "lag", "neither"])
    @pytest.mark.parametrize("lost", [(), (5, 77, 78)])
    def test_are_those_of_a_scan_on_disk(self, kind: str, lost: tuple[int, ...]) -> None:
        xy = self.positions()
        came = np.setdiff1d(np.arange(len(xy)), lost)
        groups = Groups(self.C, 32.0, lag=2 * self.side + 1 if kind == "lag" else None)
        if kind == "planned":
            groups.plan(np.arange(len(xy)), xy)
        inbox = inbox_of(frames=1000, groups=groups)
        inbox.positions(at(list(range(len(xy))), xy))
        early = []
        order = np.random.default_rng(1).permutation(came) if kind == "planned" else came
        for number in order.tolist():
            inbox.frame(frame(number))
            work = inbox.take(1000, 0.0)
            if work is not None:
                early += work.ids.tolist()
                inbox.placed(work.ids)
        inbox.flush()
        work = inbox.take(1000, 0.0)
        late = [] if work is None else work.ids.tolist()
        if work is not None:
            inbox.placed(work.ids)
        assert {tuple(group) for group in early + late} == self.offline(xy, came)
        assert len(early) >= {"planned": 130 - 8 * len(lost), "lag": 100, "neither": 0}[kind]
        assert (inbox.ledger.placed, inbox.ledger.difference) == (len(came), 0)

    def test_frame_without_neighbours_is_listed(self) -> None:
        xy = [*self.positions()[:8], [500.0, 500.0]]
        inbox = inbox_of(frames=100, groups=Groups(self.C, 32.0))
        inbox.positions(at(list(range(9)), xy))
        for number in range(9):
            inbox.frame(frame(number))
        assert counts(inbox) == (9, 0, 9, 0)
        inbox.flush()
        assert inbox.ledger.dropped == {"fewer than 3 others within 32 px": [8]}
        assert counts(inbox)[3] == 8
