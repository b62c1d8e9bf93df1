"""Reading, the session and stitching at the same time: as one after the other, only sooner. Sessions here are stand-ins."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ptycho_runtime import ReconstructionError, contract
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.export.bundle import Export
from ptycho_runtime.image.core import Graphs
from ptycho_runtime.image.options import ReconstructOptions
from ptycho_runtime.image.reconstruct import reconstruct
from ptycho_runtime.image.result import Reconstruction
from ptycho_runtime.image.stitch import Stitcher
from ptycho_runtime.scan.scan import Scan

N, BATCH, COUNT = 16, 4, 42
EXPORT = Export(Path("stand-in"), {}, N, 1, "amplitude", "half_n_over_rms", None, "J", -1.0)
OWN_THREADS = {"scan reader", "stitcher"}
Hook = Callable[[int], object]


class Session:
    """A session whose object patches are made of the patterns; `hook` is called with the number of each run."""

    engine, device, note, options = "onnxruntime", "cpu", "", RunOptions()

    def __init__(self, hook: Hook = lambda run: None, side_px: int = N) -> None:
        self.hook, self.side_px, self.runs = hook, side_px, 0
        self.inputs = {contract.DIFFRACTION: SimpleNamespace(shape=["batch", 1, N, N])}

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.hook(self.runs)
        self.runs += 1
        first = N // 2 - self.side_px // 2
        middle = np.s_[..., first : first + self.side_px, first : first + self.side_px]
        x = feed[contract.DIFFRACTION] * feed[contract.INPUT_SCALE]
        return {contract.OBJECT_REAL: np.cos(x)[middle], contract.OBJECT_IMAG: np.sin(3 * x)[middle]}


def scan(hook: Hook = lambda first: None) -> Scan:
    """Return a scan in memory; `hook` is called with the first frame of each read."""
    rng = np.random.default_rng(0)
    patterns, positions = rng.random((COUNT, N, N), np.float32), rng.uniform(20, 40, (COUNT, 2))

    def read(frames: np.ndarray) -> np.ndarray:
        hook(int(frames[0]))
        return patterns[frames]

    energy = {(N, "amplitude"): np.square(patterns, dtype=np.float64).sum((1, 2))}
    return Scan("stand-in", read, np.arange(COUNT), positions, N, "amplitude", energy_of_row=energy)


def run(session: Any, scan: Scan, **options: Any) -> Reconstruction:
    return reconstruct(EXPORT, Graphs(session, batch=BATCH), scan, ReconstructOptions(**options))


def one_after_the_other(scan: Scan, groups: int = COUNT) -> np.ndarray:
    """Return the object without any thread: read, run and stitch in turn."""
    session, stitcher = Session(), Stitcher(scan.positions_px, N)
    factor = np.float32((N / 2) / np.sqrt(scan.energy(N, "amplitude").mean()))
    for start in range(0, groups, BATCH):
        which = np.arange(start, min(start + BATCH, groups))
        feed = {contract.DIFFRACTION: scan.patterns(which, N, "amplitude")[:, None], contract.INPUT_SCALE: factor}
        found = session.run(feed)
        stitcher.add(
            found[contract.OBJECT_REAL][:, 0] + 1j * found[contract.OBJECT_IMAG][:, 0], scan.positions_px[which]
        )
    return stitcher.result().object


def assert_no_thread_is_left() -> None:
    assert not OWN_THREADS & {thread.name for thread in threading.enumerate()}


def slow_stitcher(monkeypatch: pytest.MonkeyPatch, hook: Hook) -> None:
    """Have `hook` called with the number of each batch before it is stitched."""
    add, count = Stitcher.add_parts, 0

    def slow(self: Stitcher, real: np.ndarray, imag: np.ndarray, positions_px: np.ndarray) -> None:
        nonlocal count
        hook(count)
        count += 1
        add(self, real, imag, positions_px)

    monkeypatch.setattr(Stitcher, "add_parts", slow)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_three_batches_are_in_work_at_once(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stitcher with a batch, the session with the next and the reader three further on wait for one another."""
    meeting = threading.Barrier(3, timeout=60)
    slow_stitcher(monkeypatch, lambda stitched: stitched != batch or meeting.wait())
    session = Session(lambda run: run != batch + 1 or meeting.wait())
    found = run(session, scan(lambda first: first != (batch + 4) * BATCH or meeting.wait()))
    assert not meeting.broken
    assert found.done == COUNT


@pytest.mark.parametrize("seed", range(3))
def test_object_does_not_depend_on_timing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = one_after_the_other(scan())
    draw = random.Random(seed)

    def now_and_then(_: int) -> None:
        time.sleep(draw.choice([0.0, 0.0, 0.01]))

    slow_stitcher(monkeypatch, now_and_then)
    found = run(Session(now_and_then), scan(now_and_then))
    assert np.array_equal(found.object, expected)
    assert_no_thread_is_left()


def test_time_in_the_session_is_that_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def takes(seconds: float, number: int) -> Hook:
        def hook(at: int) -> None:
            clock[0] += seconds if at == number else 0.0

        return hook

    def second(_: int) -> None:
        clock[0] += 1.0

    # The first batch is read before the session runs at all, and the last one is stitched when it has run for good.
    session = Session(second)
    slow_stitcher(monkeypatch, takes(3.0, (COUNT - 1) // BATCH))
    found = run(session, scan(takes(5.0, 0)))
    assert found.timing.session_seconds == session.runs == -(-COUNT // BATCH)
    assert found.timing.seconds == session.runs + 5.0 + 3.0


@pytest.mark.parametrize("place", ["reader", "session", "stitcher"])
@pytest.mark.parametrize("error", [OSError("gone"), KeyError("a bug")])
def test_error_anywhere_is_raised(place: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int) -> None:
        if number == 5 * (BATCH if place == "reader" else 1):
            raise error

    hooks = {"reader": lambda first: None, "session": lambda run: None, "stitcher": lambda batch: None, place: fail}
    slow_stitcher(monkeypatch, hooks["stitcher"])
    with pytest.raises(type(error)) as raised:
        run(Session(hooks["session"]), scan(hooks["reader"]))
    assert raised.value is error
    assert_no_thread_is_left()


@pytest.mark.parametrize("slow", [0.0, 0.02])
def test_ctrl_c_in_the_session_keeps_the_batches_before(slow: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(run: int) -> None:
        if run == 5:
            raise KeyboardInterrupt

    expected = one_after_the_other(scan(), 5 * BATCH)
    slow_stitcher(monkeypatch, lambda batch: time.sleep(slow))
    found = run(Session(stop), scan())
    assert found.partial
    assert found.done == 5 * BATCH
    assert np.array_equal(found.object, expected)
    assert_no_thread_is_left()


def test_ctrl_c_before_anything_is_finished_leaves_nothing() -> None:
    def stop(run: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Session(stop), scan())
    assert_no_thread_is_left()


def test_session_that_gives_only_the_middle_of_patches() -> None:
    assert np.array_equal(run(Session(side_px=N // 2), scan()).object, run(Session(), scan()).object)


def test_middle_that_is_too_small_is_refused() -> None:
    with pytest.raises(ReconstructionError, match=r"of 8 × 8 pixels have no middle of 6 .* --crop-px 5 or less"):
        run(Session(side_px=8), scan(), crop_px=6)
    assert_no_thread_is_left()
