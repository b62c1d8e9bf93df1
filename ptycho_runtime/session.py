"""Run one graph under onnxruntime in batches: warmed up, safe to call from several threads."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import onnxruntime

from ptycho_runtime import contract as c
from ptycho_runtime.devices import Opened, open_session, usable_threads

Feed = Mapping[str, np.ndarray]
_PER_GROUP = (c.DIFFRACTION, c.INPUT_SCALE, c.POSITIONS, c.OUTPUT_SCALE, c.EXPERIMENT_ID)


class InputInfo(Protocol):
    """An input of a graph, as onnxruntime describes it."""

    name: str
    shape: list[Any]  # sizes; the name of a dynamic axis
    type: str


class Session(Protocol):
    """One graph on one engine and device."""

    engine: str
    device: str
    note: str  # in one line why it is not another device; mostly empty
    inputs: dict[str, InputInfo]
    outputs: list[str]
    cold_s: float | None  # the first run
    steady_s: float | None  # the latest run after it

    def warmup(self, modes: int = 1) -> None:
        """Run once on numbers, so that the first real patterns do not wait."""

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Return the outputs by name for any number of groups; inputs as the contract has them."""


class GraphSession:
    """One graph under onnxruntime on one device.

    On the CPU a batch is split among the threads, each of which runs its part alone: they wait for each other once a batch and
    not once an operator. Fewer groups than threads are run by all threads together.
    """

    engine = "onnxruntime"

    def __init__(
        self, model: bytes, device: str = "auto", batch: int = 16, *, tf32: bool = False, threads: int | None = None
    ) -> None:
        """Open the session; see `devices.open_session` for what is raised.

        Args:
            model: an ONNX file's content.
            device: `auto`, `cpu`, `cuda` or `tensorrt`.
            batch: groups per run on a GPU, where a new size costs a new plan; smaller requests are padded.
            tf32: see `open_session`.
            threads: see `open_session`.
        """
        self.threads = threads or usable_threads()
        self._model = model
        self._opened: dict[int, Opened] = {}  # CPU sessions by threads
        first = open_session(model, device, tf32=tf32, threads=self.threads if batch < self.threads else 1)
        self._opened[self.threads if batch < self.threads else 1] = first
        self.session, self.device, self.note = first.session, first.device, first.note
        self.batch = batch
        self.inputs: dict[str, InputInfo] = {i.name: i for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.cold_s: float | None = None
        self.steady_s: float | None = None
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def warmup(self, modes: int = 1) -> None:
        """Run once on numbers, so that the first real patterns do not wait for plans and memory."""
        self.run(warmup_feed(self.inputs, self.batch, modes))

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Return the outputs by name for any number of groups; inputs as the contract has them."""
        start = time.perf_counter()
        found = self._run_cpu(feed) if self.device == "cpu" else self._run_padded(feed)
        elapsed = time.perf_counter() - start
        if self.cold_s is None:
            self.cold_s = elapsed
        else:
            self.steady_s = elapsed
        return found

    def _run_cpu(self, feed: Feed) -> dict[str, np.ndarray]:
        count = len(feed[c.DIFFRACTION])
        if self.threads == 1 or count < self.threads:
            return self._on_cpu(self.threads, feed)
        parts = split(feed, self.threads)
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="session")
            self._cpu(1)
        others = [self._pool.submit(self._on_cpu, 1, part) for part in parts[1:]]
        found = [self._on_cpu(1, parts[0]), *(other.result() for other in others)]
        return joined(found)

    def _on_cpu(self, threads: int, feed: Feed) -> dict[str, np.ndarray]:
        used = {name: np.ascontiguousarray(feed[name]) for name in self.inputs}
        found = self._cpu(threads).session.run(self.outputs, used)
        return {name: np.asarray(value) for name, value in zip(self.outputs, found, strict=True)}

    def _cpu(self, threads: int) -> Opened:
        if threads not in self._opened:
            self._opened[threads] = open_session(self._model, "cpu", threads=threads)
        return self._opened[threads]

    def _run_padded(self, feed: Feed) -> dict[str, np.ndarray]:
        count = len(feed[c.DIFFRACTION])
        parts = []
        for start in range(0, count, self.batch):
            stop = min(start + self.batch, count)
            part = cut(feed, start, stop, self.batch)
            parts.append({k: v[: stop - start] for k, v in self._on_gpu(part).items()})
        return joined(parts)

    def _on_gpu(self, feed: Feed) -> dict[str, np.ndarray]:
        # A binding and its buffers serve one caller at a time.
        with self._lock:
            binding = self.session.io_binding()
            for name in self.inputs:
                value = np.ascontiguousarray(feed[name])
                binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
            for name in self.outputs:
                binding.bind_output(name)
            self.session.run_with_iobinding(binding)
            found = binding.copy_outputs_to_cpu()
        return {name: np.asarray(value) for name, value in zip(self.outputs, found, strict=True)}


def warmup_feed(inputs: Mapping[str, InputInfo], batch: int, modes: int = 1) -> dict[str, np.ndarray]:
    """Return numbers of the right shapes for a graph's inputs."""
    feed = {}
    for name, info in inputs.items():
        sizes = [{c.BATCH_AXIS: batch, c.MODES_AXIS: modes}.get(d, 1) if isinstance(d, str) else d for d in info.shape]
        feed[name] = np.zeros(sizes, np.int64) if "int64" in info.type else np.full(sizes, 0.5, np.float32)
    return feed


def split(feed: Feed, parts: int) -> list[dict[str, np.ndarray]]:
    """Return a feed's groups in parts whose sizes differ by one at most, in order."""
    edges = np.linspace(0, len(feed[c.DIFFRACTION]), parts + 1).round().astype(int)
    return [cut(feed, int(start), int(stop)) for start, stop in itertools.pairwise(edges)]


def cut(feed: Feed, start: int, stop: int, size: int | None = None) -> dict[str, np.ndarray]:
    """Return some of a feed's groups, the last one repeated up to `size` of them."""
    return {k: _padded(v[start:stop], size or stop - start) if k in _PER_GROUP else v for k, v in feed.items()}


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the outputs of consecutive parts as those of the whole."""
    return parts[0] if len(parts) == 1 else {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    if len(values) == size:
        return values
    return np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])
