"""The stored ONNX file under what runs it: onnxruntime on the CPU and on a GPU, and OpenVINO.

Nothing here imports a runtime before an engine is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.bench.case import CannotRun, Case, Feed

if TYPE_CHECKING:
    import numpy as np

    from ptycho_runtime.gpu_session import FixedBinding
    from ptycho_runtime.session import GraphSession


class OnnxEngine:
    """An onnxruntime session on the CPU as the runtime opens it."""

    def __init__(self, case: Case, threads: int) -> None:
        """Open the stored ONNX file."""
        from ptycho_runtime.devices import open_session

        self.session = open_session(Path(case.onnx).read_bytes(), "cpu", threads=threads).session
        self.case = case

    def prepare(self, feed: Feed) -> Callable[[], Any]:
        """Return the run; the feed stays where it is."""
        names, used = self.case.outputs, {name: feed[name] for name in self.case.inputs}
        return lambda: self.session.run(names, used)

    def arrays(self, found: Any) -> dict[str, np.ndarray]:
        """Return the outputs by name."""
        return dict(zip(self.case.outputs, found, strict=True))


class CopyingEngine:
    """The runtime's own sessions on a GPU, one for each batch size: patterns come from host memory, and patches go back there."""

    def __init__(self, case: Case, device: str, threads: int, *, tf32: bool = False, cuda_graph: bool = False) -> None:
        """Open the stored ONNX file for batch 1, to find out whether it can be.

        Args:
            case: whose ONNX file is opened.
            device: `cuda` or `tensorrt`; or `cpu`, where host memory stands in for a GPU's.
            threads: of the process.
            tf32: whether factors are rounded.
            cuda_graph: whether runs are replayed as a CUDA graph.
        """
        from ptycho_runtime.engines import TF32_SWITCH, refuses_tf32

        if tf32 and refuses_tf32():
            raise CannotRun(f"{TF32_SWITCH}=0 in the environment forbids TF32")
        self.case, self.device, self.threads = case, device, threads
        self.tf32, self.cuda_graph = tf32, cuda_graph
        self.model = Path(case.onnx).read_bytes()
        self.sessions: dict[int, GraphSession] = {}
        self.session(1)

    def session(self, batch: int) -> GraphSession:
        """Return the session of a batch size; raises `CannotRun`."""
        from ptycho_runtime.errors import DeviceUnavailableError
        from ptycho_runtime.session import GraphSession

        if batch not in self.sessions:
            try:
                self.sessions[batch] = GraphSession(
                    self.model, self.device, batch, tf32=self.tf32, threads=self.threads, cuda_graph=self.cuda_graph
                )
            except DeviceUnavailableError as error:
                raise CannotRun(str(error)) from error
        return self.sessions[batch]

    def prepare(self, feed: Feed) -> Callable[[], Any]:
        """Return the run of the session of the feed's batch size."""
        session = self.session(len(feed[self.case.inputs[0]]))
        return lambda: session.run(feed)

    def arrays(self, found: Any) -> dict[str, np.ndarray]:
        """Return the outputs by name."""
        return dict(found)


class BoundEngine(CopyingEngine):
    """The same sessions with their buffers alone: copies to and from the GPU do not count, as they do not for PyTorch."""

    def __init__(self, case: Case, device: str, threads: int, *, tf32: bool = False, cuda_graph: bool = False) -> None:
        """Open the stored ONNX file; see `CopyingEngine`."""
        super().__init__(case, device, threads, tf32=tf32, cuda_graph=cuda_graph)
        self.bindings: dict[int, FixedBinding] = {}

    def prepare(self, feed: Feed) -> Callable[[], Any]:
        """Copy the feed into the buffers of its batch size, which stay the same: a captured graph knows their addresses."""
        from ptycho_runtime.gpu_session import FixedBinding

        groups = len(feed[self.case.inputs[0]])
        if groups not in self.bindings:
            session = self.session(groups).session
            shapes = tuple(feed[info.name].shape for info in session.get_inputs())
            self.bindings[groups] = FixedBinding(session, shapes, "cpu" if self.device == "cpu" else "cuda")
        binding = self.bindings[groups]
        binding.fill(feed)

        def call() -> FixedBinding:
            binding.run()
            return binding

        return call

    def arrays(self, found: Any) -> dict[str, np.ndarray]:
        """Return the outputs by name."""
        return dict(found.read())


class OpenVinoEngine:
    """OpenVINO's CPU plug-in on the stored ONNX file, compiled for each batch size."""

    def __init__(self, case: Case, threads: int, precision: str) -> None:
        """Read the file; `precision` is one of OpenVINO's (`f32`, `bf16`)."""
        try:
            import openvino
        except ImportError as error:
            raise CannotRun("OpenVINO is not installed") from error
        self.core, self.case = openvino.Core(), case
        self.model = self.core.read_model(case.onnx)
        # Left to itself it rounds to bfloat16 where the processor has it.
        self.options = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }

    def prepare(self, feed: Feed) -> Callable[[], Any]:
        """Compile for the feed's batch size."""
        used = {name: feed[name] for name in self.case.inputs}
        self.model.reshape({name: list(value.shape) for name, value in used.items()})
        request = self.core.compile_model(self.model, "CPU", self.options).create_infer_request()
        return lambda: request.infer(used, share_inputs=True, share_outputs=True)

    def arrays(self, found: Any) -> dict[str, np.ndarray]:
        """Return the outputs by name."""
        return {name: found[name].copy() for name in self.case.outputs}
