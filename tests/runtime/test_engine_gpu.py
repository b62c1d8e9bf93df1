"""The GPU's path. Where there is no GPU, buffers in host memory and a session on the CPU stand in for it.

What those cannot show: that a CUDA graph is captured and replays right, and what is gained by anything here. The tests marked
`cuda` show the former where there is a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import ptycho_runtime
from ptycho_runtime import DeviceUnavailableError, RunOptions, contract, open_export
from ptycho_runtime.cli import main as cli
from ptycho_runtime.engine import devices
from ptycho_runtime.engine.batching import warmup_feed
from ptycho_runtime.engine.binding import FixedBinding
from ptycho_runtime.engine.device_lock import SharedLock
from ptycho_runtime.engine.gpu import GpuSession
from ptycho_runtime.engine.opening import open_session
from ptycho_runtime.errors import ReconstructionError

GRAPH = "diffraction_to_obj"
no_gpu = pytest.mark.skipif(not devices.why_not("cuda"), reason="this host has a GPU")
needs_gpu = pytest.mark.skipif(bool(devices.why_not("cuda")), reason="no CUDA device")


def feed_of(groups: int, seed: int = 0) -> dict[str, np.ndarray]:
    x = np.random.default_rng(seed).random((groups, 1, 64, 64), dtype=np.float32)
    return {contract.DIFFRACTION: x, contract.INPUT_SCALE: np.ones((groups, 1, 1, 1), np.float32)}


@pytest.fixture
def cpu(tiny: Path) -> onnxruntime.InferenceSession:
    return open_session(open_export(tiny).graphs[GRAPH], RunOptions("cpu", threads=1)).session


def on_cpu(session: Any, batch: int = 4, cuda_graph: bool = False) -> GpuSession:
    return GpuSession(session, RunOptions("cuda", batch, cuda_graph=cuda_graph), memory="cpu")


@pytest.mark.parametrize("groups", [1, 3, 4, 5, 13])
def test_any_number_of_groups_gives_the_numbers_of_a_plain_run(groups: int, cpu: Any) -> None:
    feed = feed_of(groups)
    found = on_cpu(cpu).run(feed)
    for name, wanted in zip(found, cpu.run(list(found), feed), strict=True):
        assert found[name].shape == wanted.shape
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=1e-5)


def test_results_stay_when_the_buffers_are_used_again(cpu: Any) -> None:
    session = on_cpu(cpu)
    first = session.run(feed_of(4, 1))
    kept = {name: value.copy() for name, value in first.items()}
    session.run(feed_of(8, 2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, kept[name])


def test_buffers_are_allocated_once(cpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[int]] = []
    allocate = onnxruntime.OrtValue.ortvalue_from_shape_and_type

    def watched(shape: list[int], *rest: Any) -> Any:
        made.append(shape)
        return allocate(shape, *rest)

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", watched)
    session = on_cpu(cpu)
    for groups in (4, 1, 9):
        session.run(feed_of(groups))
    assert sorted(made) == 2 * [[4, 1, 1, 1]] + 6 * [
        [4, 1, 64, 64]
    ]  # twice the scale, patterns, real and imaginary part


class Watched:
    """Lets a test hold a run, and notes what happens in which order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        self.may_run = threading.Event()
        self.runs = threading.Event()
        fill, run = FixedBinding.fill, FixedBinding.run

        def watched_fill(binding: FixedBinding, feed: Any) -> None:
            fill(binding, feed)
            self.events.append("filled")
            if self.events.count("filled") == 2:
                self.may_run.set()

        def watched_run(binding: FixedBinding) -> None:
            self.events.append("run begins")
            assert self.may_run.wait(10)
            run(binding)
            self.events.append("run ends")

        monkeypatch.setattr(FixedBinding, "fill", watched_fill)
        monkeypatch.setattr(FixedBinding, "run", watched_run)


def test_next_batch_is_copied_in_while_one_runs(cpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)  # the first run ends only after the second fill
    on_cpu(cpu).run(feed_of(8))
    assert watched.events.index("run ends") > [n for n, e in enumerate(watched.events) if e == "filled"][1]


def test_captured_graph_has_one_set_of_buffers(cpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.may_run.set()
    seen: set[int] = set()
    run = FixedBinding.run
    monkeypatch.setattr(FixedBinding, "run", lambda binding: (seen.add(id(binding)), run(binding))[1])
    on_cpu(cpu, cuda_graph=True).run(feed_of(12))
    assert len(seen) == 1
    assert watched.events == 3 * ["filled", "run begins", "run ends"]


def test_all_runs_are_made_by_one_thread(cpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[int] = set()
    run = FixedBinding.run
    monkeypatch.setattr(FixedBinding, "run", lambda binding: (threads.add(threading.get_ident()), run(binding))[1])
    session = on_cpu(cpu)
    callers = [threading.Thread(target=session.run, args=(feed_of(6, seed),)) for seed in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_callers_at_a_time_get_their_own_numbers(cpu: Any) -> None:
    session = on_cpu(cpu, 2)
    feeds = [feed_of(7, seed) for seed in range(4)]
    found: dict[int, dict[str, np.ndarray]] = {}
    callers = [
        threading.Thread(target=lambda n=n: found.__setitem__(n, session.run(feeds[n]))) for n in range(len(feeds))
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    for number, feed in enumerate(feeds):
        wanted = cpu.run([contract.OBJECT_REAL], feed)[0]
        np.testing.assert_allclose(found[number][contract.OBJECT_REAL], wanted, rtol=0, atol=1e-5)


def test_failed_run_gives_its_buffers_back(cpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = on_cpu(cpu)
    with monkeypatch.context() as patch:
        patch.setattr(FixedBinding, "run", lambda binding: (_ for _ in ()).throw(RuntimeError("device lost")))
        for _ in range(3):
            with pytest.raises(
                DeviceUnavailableError,
                match=r"^cuda could not run the graph: device lost; a smaller --batch takes less memory$",
            ):
                session.run(feed_of(9))
    assert session.run(feed_of(9))[contract.OBJECT_REAL].shape == (9, 1, 64, 64)


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            (contract.DIFFRACTION, lambda x: x.astype(np.float64), r"diffraction is float64 of shape \(4, 1, 64, 64\); the graph"),
            (contract.DIFFRACTION, lambda x: x.reshape(4, 1, 32, 128), r"of shape \(4, 1, 32, 128\); the graph takes tensor"),
            (contract.DIFFRACTION, lambda x: x.reshape(4, 64, 64), r"of shape \(4, 64, 64\); the graph takes tensor"),
            (contract.INPUT_SCALE, lambda x: x[:1], r"groups by input: {'diffraction': 4, 'input_scale_factor': 1}; expected as"),
        ],
    )  # fmt: skip
    def test_arrays_that_the_graph_does_not_take(
        self, name: str, change: Callable[[np.ndarray], np.ndarray], message: str, cpu: Any
    ) -> None:
        feed = feed_of(4)
        feed[name] = change(feed[name])
        with pytest.raises(ReconstructionError, match=message):
            on_cpu(cpu).run(feed)

    def test_no_groups(self, cpu: Any) -> None:
        with pytest.raises(ReconstructionError, match="one at least"):
            on_cpu(cpu).run(feed_of(0))

    def test_other_shapes_than_were_captured(self, tiny: Path) -> None:
        model = open_session(open_export(tiny).graphs["autoencoder"], RunOptions("cpu", threads=1)).session
        inputs = {info.name: info for info in model.get_inputs()}
        plain, graph = on_cpu(model), on_cpu(model, cuda_graph=True)
        for modes in (1, 2):
            assert plain.run(warmup_feed(inputs, 4, modes))[contract.PREDICTED].shape == (4, 1, 64, 64)
        graph.run(warmup_feed(inputs, 4, 2))
        graph.run(warmup_feed(inputs, 9, 2))
        with pytest.raises(
            ReconstructionError, match=r"\(1, 64, 64\).*the CUDA graph was captured for .*\(2, 64, 64\)"
        ):
            graph.run(warmup_feed(inputs, 4, 1))

    def test_run_that_cannot_be_captured(self, cpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(binding: FixedBinding) -> None:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")

        monkeypatch.setattr(FixedBinding, "run", fail)
        expected = (
            r"^cuda cannot capture this model as a CUDA graph: operation not permitted when stream is capturing; "
            r"run it without --cuda-graph$"
        )
        with pytest.raises(DeviceUnavailableError, match=expected):
            on_cpu(cpu, cuda_graph=True).run(feed_of(4))

    @pytest.mark.parametrize("device", ["cpu", "tensorrt"])
    def test_cuda_graph_on_another_device(self, device: str, tiny: Path) -> None:
        with pytest.raises(DeviceUnavailableError, match=f"^CUDA graphs run on cuda, not on {device}; ask for cuda"):
            ptycho_runtime.open(tiny, device, cuda_graph=True)

    @no_gpu
    def test_cuda_graph_without_a_gpu_does_not_turn_into_a_cpu_run(self, tiny: Path) -> None:
        with pytest.raises(DeviceUnavailableError, match=r"^CUDA graphs cannot be used: no NVIDIA driver is loaded"):
            ptycho_runtime.open(tiny, "auto", cuda_graph=True)

    @pytest.mark.parametrize("command", ["reconstruct", "predict"])
    def test_command_line_says_so_in_one_line(
        self, command: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        np.save(tmp_path / "x.npy", feed_of(1)[contract.DIFFRACTION])
        out = str(tmp_path / "out.npy") if command == "predict" else str(tmp_path / "out.npz")
        arguments = [command, str(tiny), str(tmp_path / "x.npy"), "-o", out, "--device", "cpu", "--cuda-graph"]
        assert cli.run(arguments) == 4
        assert capsys.readouterr().err == (
            "ptycho-runtime: CUDA graphs run on cuda, not on cpu; ask for cuda, or for no CUDA graph\n"
        )


class TestSharedLock:
    def test_one_alone_waits_for_those_inside_and_keeps_others_out(self) -> None:
        lock, order = SharedLock(), list[str]()
        leave, taken = threading.Event(), threading.Event()

        def first() -> None:
            with lock.together():
                taken.set()
                assert leave.wait(10)
                order.append("first leaves")

        def lone() -> None:
            with lock.alone():
                order.append("alone")

        def late() -> None:
            with lock.together():
                order.append("late")

        threads = [threading.Thread(target=run) for run in (first, lone, late)]
        threads[0].start()
        assert taken.wait(10)
        threads[1].start()
        for _ in range(10_000):
            if lock.claimed or order:  # the one alone waits, or had it
                break
            threading.Event().wait(0.001)
        threads[2].start()
        leave.set()
        for thread in threads:
            thread.join(10)
        assert order == ["first leaves", "alone", "late"]

    def test_many_are_inside_at_a_time(self) -> None:
        lock, both = SharedLock(), threading.Barrier(2, timeout=10)

        def inside() -> None:
            with lock.together():
                both.wait()

        threads = [threading.Thread(target=inside) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert not both.broken


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_gpu_answers_to_new_numbers_in_old_buffers(cuda_graph: bool, demo: Path) -> None:
    model = open_export(demo).graphs[GRAPH]
    cpu = open_session(model, RunOptions("cpu"))
    gpu = open_session(model, RunOptions("cuda", 4, cuda_graph=cuda_graph))
    gpu.warmup()  # where asked for, this run is captured and the others replay it
    for seed, groups in ((1, 4), (2, 4), (3, 9)):
        found, wanted = gpu.run(feed_of(groups, seed)), cpu.run(feed_of(groups, seed))
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-4)
