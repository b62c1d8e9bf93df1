"""The account of a live run: at every moment each frame that was seen stands in exactly one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

KEYS = (
    "seen",
    "placed",
    "waiting_position",
    "waiting_group",
    "queued",
    "dropped",
    "failed",
    "missing",
    "duplicates",
    "trusted",
)


@dataclass
class Ledger:
    """Frames by where they are. `seen` counts each id once."""

    seen: int = 0
    placed: int = 0
    waiting_position: int = 0
    waiting_group: int = 0
    queued: int = 0
    """Ready for the session, or in it."""
    failed: int = 0
    """In the session or the stitcher when that failed."""
    duplicates: int = 0
    """Frames that came again, beside `seen`."""
    dropped: dict[str, list[int]] = field(default_factory=dict)
    """Ids by the reason why they are not in the image."""
    lowest: int | None = None
    highest: int | None = None
    expected: int | None = None
    """Frames that the scan has, where that was said."""

    def see(self, number: int) -> None:
        """Count a frame that was not there before."""
        self.seen += 1
        self.lowest = number if self.lowest is None else min(self.lowest, number)
        self.highest = number if self.highest is None else max(self.highest, number)

    def drop(self, number: int, reason: str) -> None:
        """List a frame that will not be in the image."""
        self.dropped.setdefault(reason, []).append(number)

    @property
    def missing(self) -> int:
        """Frames that never came: gaps in the ids, and what the expected number lacks."""
        gaps = 0 if self.lowest is None or self.highest is None else self.highest - self.lowest + 1 - self.seen
        return max(gaps, (self.expected or 0) - self.seen, 0)

    @property
    def difference(self) -> int:
        """`seen` less all places where frames are: 0, or the account is wrong."""
        listed = sum(map(len, self.dropped.values()))
        placed = self.placed + self.waiting_position + self.waiting_group + self.queued
        return self.seen - placed - listed - self.failed

    @property
    def complete(self) -> bool:
        """Say whether every frame of the scan is in the image."""
        return self.placed == self.seen and self.missing == 0

    def document(self, trusted: bool) -> dict[str, Any]:
        """Return the account as JSON has it."""
        dropped = {reason: len(ids) for reason, ids in self.dropped.items()}
        values = {name: getattr(self, name) for name in KEYS if name not in ("dropped", "trusted")}
        values |= {"dropped": dropped, "trusted": trusted}
        return {name: values[name] for name in KEYS}
