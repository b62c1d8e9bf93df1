"""A lock that many threads hold together, or one alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SharedLock:
    """Threads hold it together; one that must be alone waits until all have left, and those that come after it wait."""

    def __init__(self) -> None:
        """Make a lock that nobody holds."""
        self._changed = threading.Condition()
        self._holders = 0
        self._alone = False

    @property
    def claimed(self) -> bool:
        """Whether a thread holds it alone, or waits to."""
        return self._alone

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold it beside others. Not for a thread that holds it already: it might wait for itself."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._holders += 1
        try:
            yield
        finally:
            with self._changed:
                self._holders -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold it with nobody else."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
            self._changed.wait_for(lambda: self._holders == 0)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


DEVICE_LOCK = SharedLock()  # all GPU work of this process holds it; capturing a CUDA graph holds it alone
