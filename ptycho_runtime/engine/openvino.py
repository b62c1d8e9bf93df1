"""Run one graph under OpenVINO on the CPU: the optional second engine, which reads the same ONNX files.

It has kernels for bfloat16 and int8 that onnxruntime lacks, and on some hosts its float32 is faster. Nothing here decides that
its numbers are good enough; see `variants` and `chosen`.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.engine.batching import Feed, InputInfo, checked, cut, joined
from ptycho_runtime.engine.hardware import capped_threads
from ptycho_runtime.engine.options import DEFAULTS, RunOptions
from ptycho_runtime.engine.session import BaseSession, TensorInput, closed
from ptycho_runtime.errors import DeviceUnavailableError
from ptycho_runtime.export.onnx_file import CheckedModel

FIX = "pip install 'ptycho-export[openvino]' brings it"
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}  # what products are computed in, as OpenVINO calls it
# Groups in one request: each thread takes requests of its own, and its share of a layer's values should stay in its cache.
_REQUEST_GROUPS = 8


class OpenVinoSession(BaseSession):
    """One graph under OpenVINO. Its methods may be called from several threads at a time; they wait for each other."""

    engine = "openvino"
    device = "cpu"

    def __init__(self, model: bytes, options: RunOptions = DEFAULTS, *, precision: str = "float32") -> None:
        """Compile the graph, once for each size of request when it first occurs.

        Args:
            model: an ONNX file's content; what it holds in int8 is computed in int8.
            options: batch, the groups that are mostly asked for at a time, and threads; the device is the CPU whatever they say.
            precision: of the other products, a key of `PRECISIONS`.

        Raises:
            DeviceUnavailableError: OpenVINO is not installed, or cannot run the graph or the precision on this processor.
        """
        self.openvino = _openvino()
        self.core: Any = self.openvino.Core()
        if precision == "bfloat16" and not has_bfloat16():
            raise DeviceUnavailableError("openvino: this processor has no bfloat16 arithmetic")
        model = CheckedModel(model)
        found = model.told
        self.inputs: dict[str, InputInfo] = {info["name"]: TensorInput(info) for info in found.inputs}
        self.outputs: list[str] = [info["name"] for info in found.outputs]
        self.threads, self.note = capped_threads(options.threads)
        self.options = replace(options, device="cpu", threads=self.threads, cuda_graph=False, engine=self.engine)
        self.precision = precision
        self._model = model
        self._lock = threading.Lock()
        self._compiled: dict[int, tuple[Any, list[Any]]] = {}
        self._closed = False
        try:
            self._requests(self._size(self.options.groups))
        except RuntimeError as error:
            raise DeviceUnavailableError(
                f"openvino cannot run the graph: {' '.join(str(error).split())[:300]}"
            ) from error

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """See `Session.run`."""
        arrays, count = checked(self.inputs, feed)
        size = self._size(count)
        with self._lock:
            if self._closed:
                raise closed(self.engine)
            requests = self._requests(size)
            parts: list[dict[str, np.ndarray]] = []
            waiting: list[tuple[Any, int]] = []
            for number, first in enumerate(range(0, count, size)):
                if len(waiting) == len(requests):
                    parts.append(self._result(*waiting.pop(0)))
                stop = min(first + size, count)
                request = requests[number % len(requests)]
                part = cut(self.inputs, arrays, first, stop, size)
                request.start_async({name: np.ascontiguousarray(part[name]) for name in self.inputs}, share_inputs=True)
                waiting.append((request, stop - first))
            parts += [self._result(request, groups) for request, groups in waiting]
        return joined(parts)

    def facts(self) -> dict[str, Any]:
        """Return the version, and of what was compiled the devices, the precision and the threads."""
        with self._lock:
            if self._closed:
                raise closed(self.engine)
            compiled, _ = next(iter(self._compiled.values()))
            return {
                "openvino": self.openvino.__version__,
                "devices": list(compiled.get_property("EXECUTION_DEVICES")),
                "precision": str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string()),
                "threads": int(compiled.get_property("INFERENCE_NUM_THREADS")),
            }

    def close(self) -> None:
        """See `Session.close`."""
        with self._lock:
            self._closed = True
            self._compiled.clear()
            self.core = None

    def _size(self, count: int) -> int:
        """Return how many groups a request takes when `count` are asked for: an equal share for each thread."""
        return max(1, min(_REQUEST_GROUPS, -(-count // self.threads)))

    def _requests(self, size: int) -> list[Any]:
        if size not in self._compiled:
            graph = self.core.read_model(self._model)
            shapes = {
                name: [
                    size if axis == contract.BATCH_AXIS else -1 if isinstance(axis, str) else axis
                    for axis in info.shape
                ]
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
            self._compiled[size] = compiled, [compiled.create_infer_request() for _ in range(self.threads)]
        return self._compiled[size][1]

    def _result(self, request: Any, groups: int) -> dict[str, np.ndarray]:
        request.wait()
        return {name: np.array(request.get_tensor(name).data[:groups]) for name in self.outputs}


def installed_version() -> str:
    """Return the version of the package, without importing it; empty where it is not installed."""
    try:
        return version("openvino")
    except PackageNotFoundError:
        return ""


def has_bfloat16() -> bool:
    """Say whether OpenVINO computes in bfloat16 on this processor; raises `DeviceUnavailableError` where it is not installed."""
    return "BF16" in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _openvino() -> Any:
    # Importing it would tell its maker so over the network, and leave an identity in the user's home, through this package; where
    # the package cannot be imported, it does without. One that is imported already was somebody else's choice.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is how Python bars a module
    try:
        import openvino
    except ImportError as error:
        raise DeviceUnavailableError(f"OpenVINO is not installed; {FIX}") from error
    return openvino
