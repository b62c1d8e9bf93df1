"""A thread ahead and a thread behind: in order, never far apart, and no error is lost."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from ptycho_runtime.threads import Behind, ahead, shared

NAME = "a thread of these tests"


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert NAME not in [thread.name for thread in threading.enumerate()]


def test_ahead_keeps_order() -> None:
    assert list(ahead(range(50), 3, NAME)) == list(range(50))


def test_ahead_makes_no_more_than_may_wait() -> None:
    made: list[int] = []
    full = threading.Event()

    def items() -> Iterator[int]:
        for i in itertools.count():
            made.append(i)
            if i == 4:
                full.set()  # one given out, three waiting, one that waits for room
            yield i

    reader = ahead(items(), 3, NAME)
    assert next(reader) == 0
    assert full.wait(10)
    assert not threading.Event().wait(0.2)
    assert made == [0, 1, 2, 3, 4]
    reader.close()


@pytest.mark.parametrize("error", [OSError("disk"), KeyError("a bug"), MemoryError()])
def test_ahead_raises_what_reading_raises_after_the_items_before(error: Exception) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise error

    reader = ahead(items(), 3, NAME)
    assert next(reader) == 1
    with pytest.raises(type(error)) as raised:
        next(reader)
    assert raised.value is error


def test_behind_works_in_order_and_to_the_end() -> None:
    found: list[int] = []
    worker = Behind(found.append, 2, NAME)
    for i in range(50):
        worker.put(i)
    worker.finish()
    assert found == list(range(50))


def test_behind_makes_the_caller_wait_for_room() -> None:
    started, release, entered = threading.Event(), threading.Event(), threading.Event()

    def work(item: int) -> None:
        started.set()
        release.wait(10)

    worker = Behind(work, 2, NAME)
    worker.put(0)
    assert started.wait(10)
    worker.put(1)
    worker.put(2)

    def one_more() -> None:
        worker.put(3)
        entered.set()

    thread = threading.Thread(target=one_more)
    thread.start()
    assert not entered.wait(0.3)
    release.set()
    assert entered.wait(10)
    thread.join()
    worker.finish()


@pytest.mark.parametrize("error", [ValueError("no middle"), KeyError("a bug")])
def test_behind_raises_what_work_raises(error: Exception) -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 3:
            raise error
        done.append(item)

    worker = Behind(work, 2, NAME)
    with pytest.raises(type(error)) as raised:
        for i in range(50):  # more than may wait: an error must not leave the caller waiting for room
            worker.put(i)
    assert raised.value is error
    with pytest.raises(type(error)):
        worker.finish()
    worker.close()
    assert done == [0, 1, 2]


def test_closing_drops_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    started, release, done = threading.Event(), threading.Event(), []
    join = threading.Thread.join

    def released(thread: threading.Thread, timeout: float | None = None) -> None:
        release.set()  # closing waits for the thread, so it has told it to stop
        join(thread, timeout)

    def work(item: int) -> None:
        started.set()
        release.wait(10)
        done.append(item)

    monkeypatch.setattr(threading.Thread, "join", released)
    worker = Behind(work, 2, NAME)
    for i in range(3):
        worker.put(i)
        assert started.wait(10)
    worker.close()
    assert done == [0]


@pytest.mark.parametrize("threads", [1, 3])
def test_shared_work_comes_back_in_order(threads: int) -> None:
    assert list(shared(lambda item: item * item, range(50), threads)) == [item * item for item in range(50)]


@pytest.mark.parametrize("threads", [1, 2])
def test_shared_work_raises_in_its_items_place(threads: int) -> None:
    def work(item: int) -> int:
        if item == 3:
            raise OSError("disk")
        return item

    done: list[int] = []
    with pytest.raises(OSError, match="disk"):
        done.extend(shared(work, range(50), threads))
    assert done == [0, 1, 2]


def test_shared_work_is_never_far_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(50):
            taken.append(item)
            yield item

    results = shared(lambda item: item, items(), 2)
    assert next(results) == 0
    assert len(taken) == 5
    assert list(results) == list(range(1, 50))
