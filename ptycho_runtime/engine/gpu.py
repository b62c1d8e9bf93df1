"""Run one graph on a GPU in batches of one size, from buffers that stay where they are, and as a CUDA graph where asked for.

What onnxruntime's Python interface has is used, and nothing beside it: copies wait until they are done, and their host side is
ordinary memory. Two sets of buffers let the copies of one batch pass while another runs.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime

from ptycho_runtime import contract as c
from ptycho_runtime.engine.batching import Feed, cut, joined
from ptycho_runtime.engine.device_lock import DEVICE_DOOR
from ptycho_runtime.engine.devices import ORT_ERRORS
from ptycho_runtime.errors import DeviceUnavailableError, ReconstructionError

_DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
_BUFFER_SETS = 2  # one that runs, one that is filled or read

Shapes = tuple[tuple[int, ...], ...]  # of the inputs, in the graph's order


class FixedBinding:
    """Input and output buffers of one size on a device, bound once: their addresses never change."""

    def __init__(self, session: onnxruntime.InferenceSession, shapes: Shapes, memory: str = "cuda") -> None:
        """Allocate the buffers and bind them.

        Args:
            session: whose graph is to be run.
            shapes: of its inputs.
            memory: `cuda`, or `cpu` for a session on the CPU.

        Raises:
            ReconstructionError: an output whose size does not follow from those of the inputs, or a type of no array here.
        """
        self.session, self._binding = session, session.io_binding()
        inputs = session.get_inputs()
        sizes = {
            axis: size
            for info, shape in zip(inputs, shapes, strict=True)
            for axis, size in zip(info.shape, shape, strict=True)
            if isinstance(axis, str)
        }
        self._inputs: dict[str, Any] = {}
        for info, shape in zip(inputs, shapes, strict=True):
            self._inputs[info.name] = _buffer(info.name, shape, info.type, memory)
            self._binding.bind_ortvalue_input(info.name, self._inputs[info.name])
        self._outputs: dict[str, Any] = {}
        for info in session.get_outputs():
            size = tuple(sizes.get(axis) if isinstance(axis, str) else axis for axis in info.shape)
            self._outputs[info.name] = _buffer(info.name, size, info.type, memory)
            self._binding.bind_ortvalue_output(info.name, self._outputs[info.name])

    def fill(self, feed: Feed) -> None:
        """Copy inputs in; they are of the shapes and types that `checked_shapes` looked at."""
        for name, buffer in self._inputs.items():
            buffer.update_inplace(np.ascontiguousarray(feed[name]))
        self._binding.synchronize_inputs()

    def run(self) -> None:
        """Run to the end; what onnxruntime raises comes through."""
        self.session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def read(self, groups: int | None = None) -> dict[str, np.ndarray]:
        """Return the first `groups` of the outputs, or all, in arrays of their own."""
        found = {}
        for name, buffer in self._outputs.items():
            array = buffer.numpy()
            # From a GPU it is a copy; in host memory it is the buffer itself, which the next run overwrites.
            array = array if array.flags.owndata else array.copy()
            found[name] = array[:groups]
        return found


class GpuSession:
    """One graph on one GPU. Its methods may be called from several threads at a time; runs follow each other.

    All runs are made by one thread of this object's: onnxruntime keeps its library handles, and a captured CUDA graph, per thread.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        batch: int,
        *,
        cuda_graph: bool = False,
        memory: str = "cuda",
    ) -> None:
        """Take a session; buffers are allocated when the first feed tells their sizes.

        Args:
            session: opened on the device.
            batch: groups a run; fewer are padded.
            cuda_graph: the session captures the first run, and replays it from the same buffers afterwards.
            memory: where buffers lie: `cuda`, or `cpu` for a session on the CPU.
        """
        self.session, self.batch, self.cuda_graph, self._memory = session, batch, cuda_graph, memory
        self._inputs = session.get_inputs()
        self._sets: dict[Shapes, queue.SimpleQueue[FixedBinding]] = {}
        self._depth = 1 if cuda_graph else _BUFFER_SETS  # a captured graph knows one set of addresses
        self._captured = False
        self._lock = threading.Lock()
        self._runner = ThreadPoolExecutor(1, thread_name_prefix="gpu session")

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Return the outputs by name for any number of groups; inputs as the contract has them.

        Raises:
            ReconstructionError: an input of another shape or type than the graph's, or than what was captured; no groups, or
                more of them in one input than in another.
            DeviceUnavailableError: the run cannot be captured.
        """
        count = checked_groups(self._inputs, feed)
        parts: list[dict[str, np.ndarray]] = []
        running: deque[Future[dict[str, np.ndarray]]] = deque()
        for start in range(0, count, self.batch):
            if len(running) == self._depth:
                parts.append(running.popleft().result())
            stop = min(start + self.batch, count)
            part = cut(feed, start, stop, self.batch)
            free = self._buffers(checked_shapes(self._inputs, part))
            buffers = free.get()
            try:
                with DEVICE_DOOR.together():
                    buffers.fill(part)
                running.append(self._runner.submit(self._run, buffers, free, stop - start))
            except BaseException:
                free.put(buffers)
                raise
        return joined([*parts, *(future.result() for future in running)])

    def _run(self, buffers: FixedBinding, free: queue.SimpleQueue[FixedBinding], groups: int) -> dict[str, np.ndarray]:
        try:
            if self.cuda_graph and not self._captured:
                self._capture(buffers)
            else:
                with DEVICE_DOOR.together():
                    buffers.run()
            with DEVICE_DOOR.together():
                return buffers.read(groups)
        finally:
            free.put(buffers)

    def _capture(self, buffers: FixedBinding) -> None:
        # onnxruntime captures in a mode in which an allocation or a copy by any other thread spoils the capture.
        with DEVICE_DOOR.alone():
            try:
                buffers.run()
            except ORT_ERRORS as error:
                raise DeviceUnavailableError(
                    f"cuda cannot capture this model as a CUDA graph: {' '.join(str(error).split())[:300]}; "
                    "run it without --cuda-graph"
                ) from error
        self._captured = True

    def _buffers(self, shapes: Shapes) -> queue.SimpleQueue[FixedBinding]:
        with self._lock:
            if shapes not in self._sets:
                if self.cuda_graph and self._sets:
                    (known,) = self._sets
                    raise ReconstructionError(
                        f"inputs have shapes {list(shapes)}, and the CUDA graph was captured for {list(known)}; "
                        "open another session for them, or one without a CUDA graph"
                    )
                made: queue.SimpleQueue[FixedBinding] = queue.SimpleQueue()
                with DEVICE_DOOR.together():
                    for _ in range(self._depth):
                        made.put(FixedBinding(self.session, shapes, self._memory))
                self._sets[shapes] = made
            return self._sets[shapes]


def checked_groups(inputs: list[Any], feed: Feed) -> int:
    """Return how many groups a feed has.

    Raises `ReconstructionError` where inputs differ in that: padding would hide it.
    """
    counts = {info.name: len(feed[info.name]) for info in inputs if info.shape[:1] == [c.BATCH_AXIS]}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ReconstructionError(f"groups by input: {counts}; expected as many in each, and one at least")
    return counts[c.DIFFRACTION]


def checked_shapes(inputs: list[Any], feed: Mapping[str, np.ndarray]) -> Shapes:
    """Return the shapes of a feed in the order of a graph's inputs.

    Raises `ReconstructionError` for arrays that the graph does not take: onnxruntime copies any array of as many numbers into a
    buffer, whatever its type and shape, and runs on what comes of it.
    """
    for info in inputs:
        found, dtype = np.asarray(feed[info.name]), _DTYPES.get(info.type)
        fits = found.ndim == len(info.shape) and all(
            isinstance(axis, str) or axis == size for axis, size in zip(info.shape, found.shape, strict=True)
        )
        if not fits or found.dtype != dtype:
            raise ReconstructionError(
                f"{info.name} is {found.dtype} of shape {found.shape}; the graph takes {info.type} of {tuple(info.shape)}"
            )
    return tuple(np.shape(feed[info.name]) for info in inputs)


def _buffer(name: str, shape: tuple[int | None, ...], type_name: str, memory: str) -> Any:
    if None in shape or type_name not in _DTYPES:
        raise ReconstructionError(
            f"{name} is {type_name} of shape {shape}; a GPU session needs every size beforehand, and one of {', '.join(_DTYPES)}"
        )
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), _DTYPES[type_name], memory, 0)
