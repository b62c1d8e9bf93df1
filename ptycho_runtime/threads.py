"""Work beside the calling thread: one thread ahead of it that reads, one behind it that finishes, or several that share what is to do."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

_POLL_S = 0.1  # how soon a thread that waits for room notices that it is no longer wanted

T = TypeVar("T")
R = TypeVar("R")


def ahead(items: Iterable[T], depth: int, name: str) -> Generator[T, None, None]:
    """Yield items that a thread makes, at most `depth` of them ahead.

    Args:
        items: iterated in the thread.
        depth: items that may wait.
        name: the thread's.

    What iterating raises, of whatever kind, is raised here, after the items before it. Closing the generator ends the thread.
    """
    ready: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: tuple[T] | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                put((item,))
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:  # an error that stayed in this thread would leave the other one waiting for ever
            put(error)

    thread = threading.Thread(target=make, name=name, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:
        stop.set()
        thread.join()


def shared(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Yield what `work` gives for each item, in the items' order, worked out by several threads.

    Args:
        work: called with one item at a time, in any of the threads.
        items: iterated in the calling thread, two a thread ahead of what was yielded.
        threads: that work; with one all is done in the calling thread.

    What `work` raises is raised here, in its item's place.
    """
    if threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="shared work") as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class Behind(Generic[T]):
    """A thread that works through items one by one in the order they were put, at most `depth` items behind.

    One thread and one order: what it accumulates does not depend on timing.
    """

    def __init__(self, work: Callable[[T], None], depth: int, name: str) -> None:
        """Start the thread.

        Args:
            work: called in the thread for each item.
            depth: items that may wait.
            name: the thread's.
        """
        self._work = work
        self._waiting: queue.Queue[tuple[T] | None] = queue.Queue(depth)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand an item over, waiting for room; raises what `work` raised on an earlier one."""
        self._put((item,))

    def finish(self) -> None:
        """Wait until all items are worked through; raises what `work` raised."""
        self._put(None)
        self._thread.join()
        self._raise()

    def close(self) -> None:
        """End the thread after the item it is at; those that wait are dropped."""
        self._stop.set()
        with contextlib.suppress(queue.Full):  # a full queue wakes the thread as well
            self._waiting.put_nowait(None)
        self._thread.join()

    def _put(self, item: tuple[T] | None) -> None:
        while self._thread.is_alive():
            try:
                self._waiting.put(item, timeout=_POLL_S)
                break
            except queue.Full:
                continue
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None and not self._stop.is_set():
            try:
                self._work(item[0])
            except BaseException as error:  # raised again where items come from
                self._error = error
                return
