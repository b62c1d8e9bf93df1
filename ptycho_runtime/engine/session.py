"""Run one graph under onnxruntime in batches: warmed up, safe to call from several threads."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from ptycho_runtime import contract as c
from ptycho_runtime.engine.batching import Feed, InputInfo, joined, split, warmup_feed
from ptycho_runtime.engine.devices import Opened, open_session, usable_threads
from ptycho_runtime.engine.gpu import GpuSession


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
    not once an operator. Fewer groups than threads are run by all threads together. What a GPU does is in `gpu_session`.
    """

    engine = "onnxruntime"

    def __init__(
        self,
        model: bytes,
        device: str = "auto",
        batch: int = 16,
        *,
        tf32: bool = False,
        threads: int | None = None,
        cuda_graph: bool = False,
    ) -> None:
        """Open the session; see `devices.open_session` for what is raised.

        Args:
            model: an ONNX file's content.
            device: `auto`, `cpu`, `cuda` or `tensorrt`.
            batch: groups per run on a GPU, where a new size costs a new plan; smaller requests are padded.
            tf32: see `open_session`.
            threads: see `open_session`.
            cuda_graph: see `open_session`; every run then has the shapes of the first.
        """
        self.threads = threads or usable_threads()
        self._model = model
        self._opened: dict[int, Opened] = {}  # CPU sessions by threads
        together = self.threads if batch < self.threads else 1
        first = open_session(model, device, tf32=tf32, threads=together, batch=batch, cuda_graph=cuda_graph)
        self._opened[together] = first
        self.session, self.device, self.note = first.session, first.device, first.note
        self.batch = batch
        self.inputs: dict[str, InputInfo] = {i.name: i for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.cold_s: float | None = None
        self.steady_s: float | None = None
        self._gpu = None if self.device == "cpu" else GpuSession(self.session, batch, cuda_graph=cuda_graph)
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def warmup(self, modes: int = 1) -> None:
        """Run once on numbers, so that the first real patterns do not wait for plans and memory."""
        self.run(warmup_feed(self.inputs, self.batch, modes))

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Return the outputs by name for any number of groups; inputs as the contract has them."""
        start = time.perf_counter()
        found = self._run_cpu(feed) if self._gpu is None else self._gpu.run(feed)
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
