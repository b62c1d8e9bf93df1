"""Where frames and positions meet and wait for the session, bounded and accounted for."""

from __future__ import annotations

import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptycho_runtime.errors import PtychoExportError
from ptycho_runtime.live.groups import Groups
from ptycho_runtime.live.ledger import Ledger
from ptycho_runtime.live.pairing import Pairing
from ptycho_runtime.live.store import Store
from ptycho_runtime.live.values import FaultError, Frame, Overrun, Positions

NEWER = "newer frames were preferred"
Look = Callable[[Frame], str]
_BACK = 1000  # ids: a frame that comes later than that belongs to a series that begins anew
_STAMP_S = 1e-6  # that stamps are as good as equal
_LATENCIES = 4096  # frames
_LATER = 4096  # frames of the next series that wait until this one is done


@dataclass(frozen=True)
class Limits:
    """What may wait, and what happens beyond it."""

    overrun: Overrun = "lossless"
    frames: int = 1024
    """That wait in memory; with `newest` and `stop`, at all."""
    spool_bytes: int = 8 << 30
    """Of the file for those beyond it, with `lossless`."""
    spool_folder: Path | None = None


@dataclass(frozen=True)
class Work:
    """Groups for the session."""

    ids: np.ndarray
    """(b, C) int64."""
    values: np.ndarray
    """(b, C, rows, columns) as stored."""
    xy_px: np.ndarray
    """(b, C, 2)."""


class Inbox:
    """A `Sink` for sources, from which the session takes its work. All of it may be called from any thread.

    At every moment `ledger.difference` is 0.
    """

    def __init__(self, limits: Limits, pairing: Pairing, groups: Groups, look: Look = lambda frame: "") -> None:
        """Begin empty.

        Args:
            limits: what may wait.
            pairing: frames to positions.
            groups: of frames that are seen together.
            look: says why a frame is of no use, nothing where it is; raises `FaultError` for what no detector gives.
        """
        ledger = Ledger()
        self.look = look
        self.limits, self.pairing, self.groups, self.ledger = limits, pairing, groups, ledger
        spool = limits.spool_bytes if limits.overrun == "lossless" else 0
        memory = limits.frames if limits.overrun == "lossless" else limits.frames + 1
        self._store = Store(memory, spool, limits.spool_folder)
        self._ready: deque[tuple[int, ...]] = deque()
        self._in_work: dict[int, int] = {}  # groups in the session by member
        self._checksums: dict[int, int] = {}
        self._arrived: dict[int, float] = {}
        self.latencies_s: deque[float] = deque(maxlen=_LATENCIES)
        """Of the last frames that were placed, from their arrival to their place in the image."""
        self._changed = threading.Condition()
        self.first_frame: Frame | None = None
        self.last_arrival = time.monotonic()
        self.end_said = False
        self.restarted = False
        """A frame came again with another content: a new series has begun, whose frames are in `later`."""
        self.later: list[Frame | Positions] = []
        self._highest_time_s = float("nan")
        self._ended_later = False
        self._next: Inbox | None = None
        self.error: Exception | None = None
        self.disconnections: list[str] = []
        self._resends = False
        self._helpers: set[int] = set()  # frames of an earlier run, which groups of this one may need

    def known(self, checksums: dict[int, int]) -> None:
        """Take frames for seen and placed by their checksums, as after `--resume`."""
        with self._changed:
            for number in checksums:
                self.ledger.see(number)
            self._checksums.update(checksums)
            self.ledger.placed += len(checksums)
            self._resends = True
            if self.groups.C > 1:
                self._helpers.update(checksums)

    def checksums(self, ids: Iterable[int]) -> dict[int, int]:
        """Return the checksums of some frames."""
        with self._changed:
            return {number: self._checksums[number] for number in ids}

    def ids_seen(self) -> set[int]:
        """Return the ids of all frames that came."""
        with self._changed:
            return set(self._checksums)

    def frame(self, frame: Frame) -> None:
        """See `Sink.frame`."""
        checksum = zlib.crc32(np.ascontiguousarray(frame.values).data)
        with self._changed:
            if self._next is not None:
                self._next.frame(frame)
                return
            self.last_arrival = time.monotonic()
            if self.restarted:
                self._keep_for_later(frame)
                return
            if self.first_frame is None:
                self.first_frame = frame
            first = self.first_frame.values
            if frame.values.shape != first.shape or frame.values.dtype != first.dtype:
                self._fault(
                    FaultError(
                        f"frame {frame.id} is {frame.values.dtype} of shape {frame.values.shape}; expected {first.dtype} of "
                        f"{first.shape}, as the first one was"
                    )
                )
                return
            earlier = self._checksums.get(frame.id)
            if earlier == checksum:
                self.ledger.duplicates += 1
                if frame.id in self._helpers and frame.id not in self._store:
                    self._help(frame)
                return
            if earlier is not None or self._begins_anew(frame):
                self.restarted = True
                self._keep_for_later(frame)
                self._changed.notify_all()
                return
            self._checksums[frame.id] = checksum
            self._arrived[frame.id] = self.last_arrival
            if self.ledger.highest is None or frame.id > self.ledger.highest:
                self._highest_time_s = frame.time_s
            self.ledger.see(frame.id)
            try:
                self._take(frame)
            except PtychoExportError as error:
                self._fault(error)
            self._changed.notify_all()

    def _begins_anew(self, frame: Frame) -> bool:
        """Say whether a frame with a lower id than others is not late, but of a series that began after them."""
        highest = self.ledger.highest
        if highest is None or frame.id > highest or self._resends:
            return False
        return frame.id < highest - _BACK or frame.time_s > self._highest_time_s + _STAMP_S

    def _keep_for_later(self, item: Frame | Positions) -> None:
        if len(self.later) < _LATER:
            self.later.append(item)
        else:
            self._fault(FaultError(f"more than {_LATER} frames of the next series came before this one was done"))

    def _take(self, frame: Frame) -> None:
        """Give a new frame its place in the account."""
        try:
            why = self.look(frame)
        except PtychoExportError:
            self.ledger.failed += 1
            raise
        if why:
            self._drop(frame.id, why)
            return
        found = self.pairing.frame(frame.id, frame.time_s)
        if isinstance(found, str):
            self._drop(frame.id, found)
            return
        if found is None:
            self.ledger.waiting_position += 1
        else:
            self.ledger.waiting_group += 1
        try:
            self._store.put(frame.id, frame.values)
        except FaultError:
            if found is None:
                self.pairing.forget(frame.id)
                self.ledger.waiting_position -= 1
            else:
                self.ledger.waiting_group -= 1
            self.ledger.failed += 1
            raise
        if found is not None:
            self._place(frame.id, found)
        self._keep_within()

    def _help(self, frame: Frame) -> None:
        """Keep a frame that an earlier run placed, for groups of this one."""
        try:
            self._store.put(frame.id, frame.values)
            found = self.pairing.frame(frame.id, frame.time_s)
            if isinstance(found, tuple):
                self._place(frame.id, found)
        except PtychoExportError as error:
            self._fault(error)
        self._changed.notify_all()

    def _place(self, number: int, xy_px: tuple[float, float]) -> None:
        """Let a frame that waits with its position wait for its group, and groups that are final for the session."""
        for group in self.groups.add(number, xy_px, opens=number not in self._helpers):
            self._ready_for_session(group)

    def _ready_for_session(self, group: tuple[int, ...]) -> None:
        self._ready.append(group)
        self.ledger.waiting_group -= 1
        self.ledger.queued += 1
        for member in group:
            self._in_work[member] = self._in_work.get(member, 0) + 1

    def _drop(self, number: int, reason: str) -> None:
        self._arrived.pop(number, None)
        self.ledger.drop(number, reason)

    def _keep_within(self) -> None:
        limits = self.limits
        if limits.overrun == "lossless":
            return
        while len(self._store) > limits.frames:
            if limits.overrun == "stop":
                raise FaultError(
                    f"more than {limits.frames} frames wait: the session is slower than the detector; give --overrun lossless or newest, "
                    "or a larger --inbox"
                )
            if self._ready:
                group = self._ready.popleft()
                self.ledger.queued -= 1
                self._drop(group[0], NEWER)
                self._release(group)
                continue
            number = self.pairing.oldest
            if number is None:
                return
            self.pairing.forget(number)
            self.ledger.waiting_position -= 1
            self._drop(number, NEWER)
            self._store.remove(number)

    def positions(self, positions: Positions) -> None:
        """See `Sink.positions`."""
        with self._changed:
            if self._next is not None:
                self._next.positions(positions)
                return
            if self.restarted:
                self._keep_for_later(positions)
                return
            try:
                for number, found in self.pairing.positions(positions):
                    self.last_arrival = time.monotonic()
                    if number in self._helpers:
                        if isinstance(found, tuple):
                            self._place(number, found)
                        continue
                    self.ledger.waiting_position -= 1
                    if isinstance(found, str):
                        self._drop(number, found)
                        self._store.remove(number)
                    else:
                        self.ledger.waiting_group += 1
                        self._place(number, found)
            except PtychoExportError as error:
                self._fault(error)
            self._changed.notify_all()

    def ended(self) -> None:
        """See `Sink.ended`."""
        with self._changed:
            if self._next is not None:
                self._next.ended()
                return
            self._ended_later = self.restarted
            if not self.end_said:
                self.last_arrival = time.monotonic()
            self.end_said = True
            self._changed.notify_all()

    def disconnected(self, what: str) -> None:
        """See `Sink.disconnected`."""
        with self._changed:
            if self.first_frame is not None:
                self.disconnections.append(what)
                # A source that comes back may send its scan again, whose frames that are known are duplicates.
                self._resends = True

    def fault(self, error: Exception) -> None:
        """See `Sink.fault`."""
        with self._changed:
            self._fault(error)

    def _fault(self, error: Exception) -> None:
        self.error = self.error or error
        self._changed.notify_all()

    def hand_over(self, new: Inbox) -> None:
        """Give what came of the next series to its inbox, and all that is still to come."""
        with self._changed:
            for item in self.later:
                if isinstance(item, Frame):
                    new.frame(item)
                else:
                    new.positions(item)
            self.later.clear()
            if self._ended_later:
                new.ended()
            self._next = new

    def flush(self) -> None:
        """Let groups go to the session that waited for neighbours: no frame will come any more."""
        with self._changed:
            groups, alone = self.groups.flush()
            for group in groups:
                if all(member in self._store for member in group):
                    self._ready_for_session(group)
                else:
                    self.ledger.waiting_group -= 1
                    self._drop(group[0], "too many of its neighbours were lost")
            for number in alone:
                self.ledger.waiting_group -= 1
                self._drop(number, f"fewer than {self.groups.C - 1} others within {self.groups.within_px:g} px")
                self._store.remove(number)

    def take(self, most: int, window_s: float) -> Work | None:
        """Return up to `most` groups, once there are so many or the first of them has waited for a window; None where there is none.

        Frames stay in the account as queued until `placed`, `failed` or `dropped` says otherwise.
        """
        with self._changed:
            end = time.monotonic() + window_s
            while len(self._ready) < most and self.error is None and not self.restarted:
                rest = end - time.monotonic()
                if rest <= 0:
                    break
                self._changed.wait(rest)
            groups = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
            if not groups:
                return None
            ids = np.array(groups, np.int64)
            values = np.stack([np.stack([self._store.get(member) for member in group]) for group in groups])
            xy = np.array([[self.groups.xy_px[member] for member in group] for group in groups])
            return Work(ids, values, xy)

    def wait_for(self, count: int, timeout_s: float) -> np.ndarray | None:
        """Return the first `count` frames that are ready, (count, rows, columns), which go on waiting; None where there are fewer."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) >= count or self.error is not None, timeout_s)
            if len(self._ready) < count:
                return None
            return np.stack([self._store.get(self._ready[k][0]) for k in range(count)])

    def placed(self, ids: np.ndarray) -> None:
        """Count groups (b, C) as placed."""
        with self._changed:
            self.ledger.queued -= len(ids)
            self.ledger.placed += len(ids)
            now = time.monotonic()
            for number in ids[:, 0].tolist():
                self.latencies_s.append(now - self._arrived.pop(number, now))
            self._release_all(ids)

    def failed(self, ids: np.ndarray) -> None:
        """Count groups (b, C) as failed."""
        with self._changed:
            self.ledger.queued -= len(ids)
            self.ledger.failed += len(ids)
            for number in ids[:, 0].tolist():
                self._arrived.pop(number, None)
            self._release_all(ids)

    def drop(self, ids: np.ndarray, reason: str) -> None:
        """List groups (b, C) under a reason."""
        with self._changed:
            self.ledger.queued -= len(ids)
            for number in ids[:, 0].tolist():
                self._drop(number, reason)
            self._release_all(ids)

    def _release_all(self, ids: np.ndarray) -> None:
        for group in ids.tolist():
            self._release(tuple(group))

    def _release(self, group: tuple[int, ...]) -> None:
        for member in group:
            self._in_work[member] -= 1
            if not self._in_work[member] and not self.groups.needed(member):
                del self._in_work[member]
                self._store.remove(member)
                if self.groups.C == 1:
                    del self.groups.xy_px[member]

    @property
    def ready(self) -> int:
        """Groups that wait for the session."""
        return len(self._ready)

    @property
    def spooled(self) -> int:
        """Frames that wait on disk."""
        return self._store.spooled

    def account(self, *, trusted: bool = False) -> dict[str, object]:
        """Return the account of this moment, see `Ledger.document`."""
        with self._changed:
            if self.ledger.difference:
                raise RuntimeError(f"the account of frames is off by {self.ledger.difference}")
            return self.ledger.document(trusted)

    def close(self) -> None:
        """Let go of all frames."""
        with self._changed:
            self._store.close()
