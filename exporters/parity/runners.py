"""The runtimes of the matrix under the contract of `engine.session.Session`: PyTorch's as the others."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Self

import numpy as np
import torch

from exporters.formats.torchscript_run import ConfinedTorchScript, StoredTorchScript
from exporters.graph.eager import eager_outputs
from exporters.graph.graphs import graph_io
from exporters.parity.double import DoubleConvolutions
from exporters.parity.reference import one_thread
from ptycho_runtime import contract
from ptycho_runtime.engine.batching import Feed, InputInfo
from ptycho_runtime.engine.devices import ORT_ERRORS
from ptycho_runtime.engine.onnx_session import OnnxSession
from ptycho_runtime.engine.opening import open_session
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.engine.session import BaseSession, TensorInput
from ptycho_runtime.errors import DeviceUnavailableError
from ptycho_runtime.export.onnx_file import CheckedModel
from ptycho_torch.models.module import PtychoModel

Outputs = dict[str, np.ndarray]
# Of a file that does not do what it should.
FAILURES: tuple[type[Exception], ...] = (*ORT_ERRORS, TypeError, LookupError, AttributeError)


class NotRunnable(RuntimeError):
    """The runtime cannot run here; the message is the reason that the report gives."""


class _TorchRunner(BaseSession):
    """What both PyTorch runners share: TF32 as the row says while they are open, and where results came out."""

    engine = "torch"

    def __init__(self, device: str, tf32: bool) -> None:
        if device == "cuda":
            _require_cuda()
        elif device != "cpu":
            raise NotRunnable(f"{device} is a provider of onnxruntime only")
        self.device, self.tf32 = device, tf32
        self.options = RunOptions(device, tf32=tf32)
        self.outputs_on: set[str] = set()
        self._before: tuple[bool, bool] | None = None

    def __enter__(self) -> Self:
        if self.device == "cuda":
            self._before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
        return self

    def close(self) -> None:
        """Put TF32 back as it was."""
        before, self._before = self._before, None
        if before is not None:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before

    def arrays(self, found: Mapping[str, torch.Tensor]) -> Outputs:
        """Return tensors as arrays, after noting where they are."""
        self.outputs_on |= {value.device.type for value in found.values()}
        return {name: value.cpu().numpy() for name, value in found.items()}

    def facts(self) -> dict[str, Any]:
        """Return PyTorch's version, where results came out, and on CUDA what it was told about precision and determinism."""
        return _torch_facts(self.device) | {"outputs_on": sorted(self.outputs_on)}


class EagerRunner(_TorchRunner):
    """The untouched eager model, float32 or float64."""

    def __init__(
        self,
        model: PtychoModel,
        graph: str,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        tf32: bool = False,
    ) -> None:
        """Copy the model to a device and precision."""
        super().__init__(device, tf32)
        self.model = copy.deepcopy(model).to(device)
        self.model = self.model.double() if dtype == torch.float64 else self.model
        self.graph, self.dtype = graph, dtype
        inputs, outputs = graph_io(model.spec, graph)
        self.inputs: dict[str, InputInfo] = {info["name"]: TensorInput(info) for info in inputs}
        self.outputs: list[str] = [info["name"] for info in outputs]

    def run(self, feed: Feed) -> Outputs:
        """Return the outputs by name, in the runner's precision."""
        tensors = {k: _tensor(v, self.device, self.dtype) for k, v in feed.items()}
        with torch.no_grad(), DoubleConvolutions():
            found = eager_outputs(self.model, self.graph, tensors)
        return self.arrays(found)


class TorchScriptRunner(_TorchRunner):
    """The stored TorchScript file."""

    def __init__(
        self,
        data: bytes,
        inputs: list[contract.TensorInfo],
        outputs: list[contract.TensorInfo],
        device: str = "cpu",
        *,
        tf32: bool = False,
    ) -> None:
        """Load the file onto a device; a `StoredTorchScript` in a confined child, on the CPU only."""
        super().__init__(device, tf32)
        self.inputs: dict[str, InputInfo] = {info["name"]: TensorInput(info) for info in inputs}
        self.outputs: list[str] = [info["name"] for info in outputs]
        self.module: Any = None
        self.confined: ConfinedTorchScript | None = None
        if isinstance(data, StoredTorchScript):
            if device != "cpu":
                raise NotRunnable("a stored TorchScript file is run in a confined process, on the CPU only")
            self.confined = ConfinedTorchScript(data, self.outputs)
        else:
            self.module = torch.jit.load(io.BytesIO(data), map_location=device)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        """Make ready; starts the child of a confined file."""
        super().__enter__()
        if self.confined is not None:
            self.confined.__enter__()
        return self

    def close(self) -> None:
        """Put PyTorch's settings back and end the child."""
        confined, self.confined = self.confined, None
        if confined is not None:
            confined.__exit__(None, None, None)
        super().close()

    def run(self, feed: Feed) -> Outputs:
        """Return the outputs by name."""
        if self.confined is not None:
            self.outputs_on.add("cpu")
            return dict(self.confined.run([feed[name] for name in self.inputs]))
        tensors = [_tensor(feed[name], self.device, torch.float32) for name in self.inputs]
        # By one thread: PyTorch's products are cut among threads, and their last digits are stored with the export.
        with torch.no_grad(), one_thread() if self.device == "cpu" else nullcontext():
            found = self.module(*tensors)
        if not isinstance(found, tuple):
            raise TypeError(
                f"the file returns a {type(found).__name__}; expected a tuple of {len(self.outputs)} tensors"
            )
        return self.arrays(dict(zip(self.outputs, found, strict=True)))


class OnnxRunner(BaseSession):
    """The stored ONNX file under onnxruntime, on exactly one provider, opened as the runtime opens it.

    A session on a GPU pads to its batch; so that every batch size is proven, each has a session of its own there.
    """

    engine = "onnxruntime"

    def __init__(self, data: bytes, device: str = "cpu", *, tf32: bool = False, whole: bool = False) -> None:
        """Open a session that fails rather than hand a node to another provider.

        Args:
            data: the file's content.
            device: `cpu`, `cuda` or `tensorrt`.
            tf32: whether factors may be rounded.
            whole: make each feed one run as it is, for files whose outputs are not the contract's.

        Raises:
            NotRunnable: the device cannot be used here.
            DamagedExportError: the CPU refuses the file.
        """
        self._data, self.device, self._whole = CheckedModel(data), device, whole
        self._tf32 = tf32
        self._sessions: dict[int, OnnxSession] = {}
        first = self._session(1)
        self.options, self.inputs, self.outputs = first.options, first.inputs, first.outputs

    def run(self, feed: Feed) -> Outputs:
        """Return the outputs by name."""
        # Copies: no runner can change what the next one is fed.
        copies = {name: np.array(feed[name], order="C") for name in self.inputs if name in feed}
        return self._session(max((len(value) for value in copies.values()), default=1)).run(copies)

    def facts(self) -> dict[str, Any]:
        """Return what `OnnxSession.facts` does, on GPUs with the provider of every node that ran."""
        all_facts = [session.facts() for session in self._sessions.values()]
        merged = dict(all_facts[0])
        if "node_providers" in merged:
            counts: dict[str, int] = {}
            for facts in all_facts:
                for provider, count in facts["node_providers"].items():
                    counts[provider] = counts.get(provider, 0) + count
            merged["node_providers"] = counts
        return merged

    def close(self) -> None:
        """Close the sessions and remove their profiles."""
        for session in self._sessions.values():
            session.close()

    def _session(self, groups: int) -> OnnxSession:
        size = groups if self.device != "cpu" and not self._whole else 0
        if size not in self._sessions:
            options = RunOptions(self.device, batch=size or None, tf32=self._tf32)
            try:
                self._sessions[size] = open_session(
                    self._data, options, profile=self.device != "cpu", whole=self._whole
                )
            except DeviceUnavailableError as error:
                raise NotRunnable(str(error)) from error
        return self._sessions[size]


def _tensor(value: np.ndarray, device: str, dtype: torch.dtype) -> torch.Tensor:
    # A copy: no runner can change what the next one is fed.
    tensor = torch.from_numpy(np.array(value, order="C"))
    return tensor.to(device) if value.dtype == np.int64 else tensor.to(device, dtype)


def _require_cuda() -> None:
    if not torch.cuda.is_available():
        raise NotRunnable("no CUDA device")


def _torch_facts(device: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"torch": torch.__version__}
    if device == "cuda":
        facts |= {
            "device": torch.cuda.get_device_name(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
            "tf32_cudnn": torch.backends.cudnn.allow_tf32,
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", "default"),
        }
    return facts
