"""Run one graph on a GPU in batches of one size, from buffers that stay where they are, and as a CUDA graph where asked for.

What onnxruntime's Python interface has is used, and nothing beside it: copies wait until they are done, and their host side is
ordinary memory. Two sets of buffers let the copies of one batch pass while another runs.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import onnxruntime

from ptycho_runtime.engine.batching import Feed, Shapes, checked, cut, joined, shapes_of
from ptycho_runtime.engine.binding import FixedBinding
from ptycho_runtime.engine.device_lock import DEVICE_LOCK
from ptycho_runtime.engine.devices import ORT_ERRORS
from ptycho_runtime.engine.onnx_session import OnnxSession, Profile, in_a_line, run_failed
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.errors import DeviceUnavailableError, ReconstructionError

_BUFFER_SETS = 2  # one that runs, one that is filled or read


class GpuSession(OnnxSession):
    """One graph on one GPU. Its methods may be called from several threads at a time; runs follow each other.

    All runs are made by one thread of this object's: onnxruntime keeps its library handles, and a captured CUDA graph, per thread.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        options: RunOptions,
        *,
        note: str = "",
        profile: Profile | None = None,
        memory: str | None = None,
    ) -> None:
        """Take a session; buffers are allocated when the first feed tells their sizes.

        Args:
            session: opened on the device. With `options.cuda_graph` it captures the first run, and replays it from the same
                buffers afterwards.
            options: see `OnnxSession`; fewer groups than `options.groups` are padded.
            note: see `Session.note`.
            profile: see `OnnxSession`.
            memory: see `OnnxSession`.
        """
        super().__init__(session, options, note=note, profile=profile, memory=memory)
        self._sets: dict[Shapes, queue.SimpleQueue[FixedBinding]] = {}
        # A captured graph knows one set of addresses.
        self._depth = 1 if options.cuda_graph else _BUFFER_SETS
        self._captured = False
        self._lock = threading.Lock()
        self._runner = ThreadPoolExecutor(1, thread_name_prefix="gpu session")

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """See `Session.run`; a run that cannot be captured, or other shapes than were captured, are refused too."""
        arrays, groups = checked(self.inputs, feed)
        size = self.options.groups
        parts: list[dict[str, np.ndarray]] = []
        running: deque[Future[dict[str, np.ndarray]]] = deque()
        for start in range(0, groups, size):
            if len(running) == self._depth:
                parts.append(running.popleft().result())
            stop = min(start + size, groups)
            part = cut(self.inputs, arrays, start, stop, size)
            free = self._buffers(shapes_of(self.inputs, part))
            buffers = free.get()
            try:
                with DEVICE_LOCK.together():
                    buffers.fill(part)
                running.append(self._runner.submit(self._run, buffers, free, stop - start))
            except BaseException:
                free.put(buffers)
                raise
        return joined([*parts, *(future.result() for future in running)])

    def close(self) -> None:
        """See `Session.close`."""
        self._runner.shutdown()
        with self._lock:
            self._sets.clear()
        super().close()

    def _run(self, buffers: FixedBinding, free: queue.SimpleQueue[FixedBinding], groups: int) -> dict[str, np.ndarray]:
        try:
            if self.options.cuda_graph and not self._captured:
                self._capture(buffers)
                with DEVICE_LOCK.together():
                    return buffers.read(groups)
            with DEVICE_LOCK.together():
                try:
                    buffers.run()
                    return buffers.read(groups)
                except ORT_ERRORS as error:
                    raise run_failed(self.device, error) from error
        finally:
            free.put(buffers)

    def _capture(self, buffers: FixedBinding) -> None:
        # onnxruntime captures in a mode in which an allocation or a copy by any other thread spoils the capture.
        with DEVICE_LOCK.alone():
            try:
                buffers.run()
            except ORT_ERRORS as error:
                raise DeviceUnavailableError(
                    f"cuda cannot capture this model as a CUDA graph: {in_a_line(error)}; run it without --cuda-graph"
                ) from error
        self._captured = True

    def _buffers(self, shapes: Shapes) -> queue.SimpleQueue[FixedBinding]:
        session = self.session
        with self._lock:
            if shapes not in self._sets:
                if self.options.cuda_graph and self._sets:
                    (known,) = self._sets
                    raise ReconstructionError(
                        f"inputs have shapes {list(shapes)}, and the CUDA graph was captured for {list(known)}; "
                        "open another session for them, or one without a CUDA graph"
                    )
                made: queue.SimpleQueue[FixedBinding] = queue.SimpleQueue()
                with DEVICE_LOCK.together():
                    for _ in range(self._depth):
                        made.put(FixedBinding(session, shapes, self.memory))
                self._sets[shapes] = made
            return self._sets[shapes]
