"""The stored ONNX file under what runs it: onnxruntime on the CPU and on a GPU, and OpenVINO.

Nothing here imports a runtime before an engine is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from exporters.bench.case import WHOLE, CannotRun, Case, Feed

if TYPE_CHECKING:
    import numpy as np

    from ptycho_runtime.engine.binding import FixedBinding
    from ptycho_runtime.engine.onnx_session import OnnxSession
    from ptycho_runtime.engine.session import Session


_BATCH = 16  # what a CPU session is told that it will mostly get


class RuntimeEngine:
    """A session on the CPU as the runtime opens it."""

    def __init__(self, case: Case, session: Session) -> None:
        """Take the session."""
        self.case, self.session = case, session

    @classmethod
    def onnx(cls, case: Case, which: str, threads: int) -> Self:
        """Open a stored ONNX file under onnxruntime."""
        from ptycho_runtime.engine.opening import open_session
        from ptycho_runtime.engine.options import RunOptions

        return cls(case, open_session(case.stored(which), RunOptions("cpu", _BATCH, threads)))

    @classmethod
    def openvino(cls, case: Case, which: str, threads: int, precision: str | None) -> Self:
        """Open a stored ONNX file under OpenVINO; the precision is the stored variant's where None."""
        from ptycho_runtime.engine.openvino import OpenVinoSession
        from ptycho_runtime.engine.options import RunOptions
        from ptycho_runtime.errors import DeviceUnavailableError

        model = case.stored(which)
        try:
            options = RunOptions("cpu", _BATCH, threads)
            return cls(case, OpenVinoSession(model, options, precision=precision or case.precisions[which]))
        except DeviceUnavailableError as error:
            raise CannotRun(str(error)) from error

    def prepare(self, feed: Feed) -> Callable[[], Any]:
        """Return the run; the feed stays where it is."""
        used = {name: feed[name] for name in self.case.inputs}
        return lambda: self.session.run(used)

    def arrays(self, found: Any) -> dict[str, np.ndarray]:
        """Return the outputs by name."""
        return {name: found[name] for name in self.case.outputs}


class CopyingEngine:
    """The runtime's own session on a GPU, for one batch size at a time: patterns come from host memory, and patches go back there."""

    def __init__(
        self,
        case: Case,
        device: str,
        threads: int,
        which: str = WHOLE,
        *,
        tf32: bool = False,
        cuda_graph: bool = False,
    ) -> None:
        """Open a stored ONNX file for batch 1, to find out whether it can be.

        Args:
            case: whose ONNX file is opened.
            device: `cuda` or `tensorrt`; or `cpu`, where host memory stands in for a GPU's.
            threads: of the process.
            which: of the case's files.
            tf32: whether factors are rounded.
            cuda_graph: whether runs are replayed as a CUDA graph.
        """
        from ptycho_runtime.engine.tensorrt_cache import TF32_SWITCH, refuses_tf32

        if tf32 and refuses_tf32():
            raise CannotRun(f"{TF32_SWITCH}=0 in the environment forbids TF32")
        self.case, self.device, self.threads = case, device, threads
        self.tf32, self.cuda_graph = tf32, cuda_graph
        self.model = case.stored(which)
        self.batch, self.opened = 1, self._open(1)

    def session(self, batch: int) -> OnnxSession:
        """Return the session of a batch size; raises `CannotRun`.

        The one of the size before is closed: a GPU has no room for what each contender's largest batches need, all at a time.
        """
        if batch != self.batch:
            self.opened.close()
            self.batch, self.opened = batch, self._open(batch)
        return self.opened

    def _open(self, batch: int) -> OnnxSession:
        from ptycho_runtime.engine.opening import open_session
        from ptycho_runtime.engine.options import RunOptions
        from ptycho_runtime.errors import DeviceUnavailableError

        try:
            options = RunOptions(self.device, batch, self.threads, tf32=self.tf32, cuda_graph=self.cuda_graph)
            return open_session(self.model, options)
        except DeviceUnavailableError as error:
            raise CannotRun(str(error)) from error

    def prepare(self, feed: Feed) -> Callable[[], Any]:
        """Return the run of the session of the feed's batch size."""
        session = self.session(len(feed[self.case.inputs[0]]))
        return lambda: session.run(feed)

    def arrays(self, found: Any) -> dict[str, np.ndarray]:
        """Return the outputs by name."""
        return dict(found)


class BoundEngine(CopyingEngine):
    """The same sessions with their buffers alone: copies to and from the GPU do not count, as they do not for PyTorch."""

    bound: tuple[OnnxSession, FixedBinding] | None = None

    def session(self, batch: int) -> OnnxSession:
        """See `CopyingEngine.session`; buffers go before the session that they are bound to."""
        if batch != self.batch:
            self.bound = None
        return super().session(batch)

    def prepare(self, feed: Feed) -> Callable[[], Any]:
        """Copy the feed into buffers, which stay where they are: a captured graph knows their addresses."""
        session = self.session(len(feed[self.case.inputs[0]]))
        if self.bound is None or self.bound[0] is not session:
            self.bound = session, session.bind(feed)
        binding = self.bound[1]
        binding.fill(feed)

        def call() -> FixedBinding:
            binding.run()
            return binding

        return call

    def arrays(self, found: Any) -> dict[str, np.ndarray]:
        """Return the outputs by name."""
        return dict(found.read())
