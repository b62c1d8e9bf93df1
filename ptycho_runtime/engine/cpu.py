"""Run one graph on the CPU: a batch is split among the threads, each of which runs its part alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime

from ptycho_runtime.engine.batching import Feed, checked, joined, split
from ptycho_runtime.engine.onnx_session import OnnxSession
from ptycho_runtime.engine.options import RunOptions

Open = Callable[[int], onnxruntime.InferenceSession]


class CpuSession(OnnxSession):
    """One graph on the CPU. Its threads wait for each other once a batch and not once an operator.

    Fewer groups than threads are run by all threads together, in a session of their own that is opened when it is first needed.
    """

    def __init__(self, opened: Open, options: RunOptions, *, note: str = "") -> None:
        """Open the session that most batches will need.

        Args:
            opened: opens one that works with so many threads.
            options: with the threads that work.
            note: see `Session.note`.
        """
        self.threads = options.threads or 1
        first = self.threads if options.groups < self.threads else 1
        self._open: Open | None = opened
        self._sessions = {first: opened(first)}
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        super().__init__(self._sessions[first], options, note=note)

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """See `Session.run`."""
        arrays, groups = checked(self.inputs, feed)
        if self.threads == 1 or groups < self.threads:
            return self._on(self._with(self.threads), arrays)
        session, pool = self._with(1), self._workers()
        parts = split(self.inputs, arrays, groups, self.threads)
        others = [pool.submit(self._on, session, part) for part in parts[1:]]
        return joined([self._on(session, parts[0]), *(other.result() for other in others)])

    def close(self) -> None:
        """See `Session.close`."""
        with self._lock:
            pool, self._pool, self._open = self._pool, None, None
            self._sessions.clear()
        if pool is not None:
            pool.shutdown()
        super().close()

    def _with(self, threads: int) -> onnxruntime.InferenceSession:
        with self._lock:
            if threads not in self._sessions:
                if self._open is None:
                    return self.session
                self._sessions[threads] = self._open(threads)
            return self._sessions[threads]

    def _workers(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="session")
            return self._pool
