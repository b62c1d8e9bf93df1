"""Run one graph under OpenVINO on the CPU: the optional second engine, which reads the same ONNX files.

It has kernels for bfloat16 and int8 that onnxruntime lacks. Nothing here decides that its numbers are good enough; see
`variants`.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from ptycho_runtime import contract as c
from ptycho_runtime.engine.batching import Feed, InputInfo, cut, joined, warmup_feed
from ptycho_runtime.engine.devices import usable_threads
from ptycho_runtime.errors import DeviceUnavailableError
from ptycho_runtime.export.onnx_file import CheckedModel

FIX = "pip install 'ptycho-export[openvino]' brings it"
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}  # what products are computed in, as OpenVINO calls it
# Groups in one request: each thread takes requests of its own, and its share of a layer's values should stay in its cache.
_REQUEST_GROUPS = 8


class OpenVinoInput:
    """An input of a graph, described as onnxruntime does."""

    def __init__(self, info: c.TensorInfo) -> None:
        """Take what the ONNX file says of it."""
        self.name, self.shape, self.type = info["name"], list(info["shape"]), f"tensor({info['dtype']})"


class OpenVinoSession:
    """One graph under OpenVINO. Its methods may be called from several threads at a time; they wait for each other."""

    engine = "openvino"
    device = "cpu"
    note = ""

    def __init__(
        self, model: bytes, batch: int = 16, *, precision: str = "float32", threads: int | None = None
    ) -> None:
        """Compile the graph, once for each size of request when it first occurs.

        Args:
            model: an ONNX file's content; what it holds in int8 is computed in int8.
            batch: groups that are mostly asked for at a time.
            precision: of the other products, a key of `PRECISIONS`.
            threads: what this process may use where None.

        Raises:
            DeviceUnavailableError: OpenVINO is not installed, or cannot run the graph or the precision on this processor.
        """
        self.openvino = _openvino()
        self.core = self.openvino.Core()
        if precision == "bfloat16" and not has_bfloat16():
            raise DeviceUnavailableError("openvino: this processor has no bfloat16 arithmetic")
        model = CheckedModel(model)
        found = model.told
        self.inputs: dict[str, InputInfo] = {info["name"]: OpenVinoInput(info) for info in found.inputs}
        self.outputs = [info["name"] for info in found.outputs]
        self.threads, self.batch, self.precision = threads or usable_threads(), batch, precision
        self.cold_s: float | None = None
        self.steady_s: float | None = None
        self._model = model
        self._lock = threading.Lock()
        self._requests: dict[int, list[Any]] = {}
        try:
            self._compiled(self._size(batch))
        except RuntimeError as error:
            raise DeviceUnavailableError(
                f"openvino cannot run the graph: {' '.join(str(error).split())[:300]}"
            ) from error

    def warmup(self, modes: int = 1) -> None:
        """Run once on numbers, so that the first real patterns do not wait for compilation."""
        self.run(warmup_feed(self.inputs, self.batch, modes))

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Return the outputs by name for any number of groups; inputs as the contract has them."""
        count = len(feed[c.DIFFRACTION])
        size = self._size(count)
        start = time.perf_counter()
        with self._lock:
            requests = self._compiled(size)
            parts: list[dict[str, np.ndarray]] = []
            waiting: list[tuple[Any, int]] = []
            for number, first in enumerate(range(0, count, size)):
                if len(waiting) == len(requests):
                    parts.append(self._result(*waiting.pop(0)))
                stop = min(first + size, count)
                request = requests[number % len(requests)]
                part = cut(feed, first, stop, size)
                used = {name: np.ascontiguousarray(part[name]) for name in self.inputs}
                request.start_async(used, share_inputs=True)
                waiting.append((request, stop - first))
            parts += [self._result(request, groups) for request, groups in waiting]
        elapsed = time.perf_counter() - start
        if self.cold_s is None:
            self.cold_s = elapsed
        else:
            self.steady_s = elapsed
        return joined(parts)

    def _size(self, count: int) -> int:
        """Return how many groups a request takes when `count` are asked for: an equal share for each thread."""
        return max(1, min(_REQUEST_GROUPS, -(-count // self.threads)))

    def _compiled(self, size: int) -> list[Any]:
        if size not in self._requests:
            graph = self.core.read_model(self._model)
            shapes = {
                name: [size if axis == c.BATCH_AXIS else -1 if isinstance(axis, str) else axis for axis in info.shape]
                for name, info in self.inputs.items()
            }
            graph.reshape(shapes)
            options = {
                # Left to itself it rounds to bfloat16 where the processor has it.
                "INFERENCE_PRECISION_HINT": PRECISIONS[self.precision],
                "INFERENCE_NUM_THREADS": self.threads,
                "NUM_STREAMS": self.threads,
            }
            compiled = self.core.compile_model(graph, "CPU", options)
            self._requests[size] = [compiled.create_infer_request() for _ in range(self.threads)]
        return self._requests[size]

    def _result(self, request: Any, groups: int) -> dict[str, np.ndarray]:
        request.wait()
        return {name: np.array(request.get_tensor(name).data[:groups]) for name in self.outputs}


def has_bfloat16() -> bool:
    """Say whether OpenVINO computes in bfloat16 on this processor; raises `DeviceUnavailableError` where it is not installed."""
    return "BF16" in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise DeviceUnavailableError(f"OpenVINO is not installed; {FIX}") from error
    return openvino
