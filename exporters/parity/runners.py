"""The runtimes under one contract: a context manager that turns a feed into named outputs and says what ran them."""

from __future__ import annotations

import copy
import io
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import onnxruntime
import torch

from exporters.formats.torchscript_run import ConfinedTorchScript, StoredTorchScript
from exporters.graph.graphs import eager_outputs
from exporters.parity.devices import PROVIDERS
from ptycho_runtime import contract as c
from ptycho_runtime.engine.devices import ORT_ERRORS
from ptycho_runtime.export.onnx_file import CheckedModel
from ptycho_torch.models.module import PtychoModel

Feed = Mapping[str, np.ndarray]
Outputs = dict[str, np.ndarray]
FAILURES: tuple[type[Exception], ...] = (
    *ORT_ERRORS,
    TypeError,
    LookupError,
    AttributeError,
)  # of a file that does not do what it should


class NotRunnable(RuntimeError):
    """The runtime cannot run here; the message is the reason that the report gives."""


class Runner(Protocol):
    """One graph on one runtime and device."""

    def __enter__(self) -> Self:
        """Make ready; raises `NotRunnable` where this host cannot."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release what was taken."""

    def run(self, feed: Feed) -> Outputs:
        """Return the outputs by name."""

    def facts(self) -> dict[str, Any]:
        """Return what really ran: providers read back, TF32 state, versions."""


class _Base:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class _TorchRunner(_Base):
    """What both PyTorch runners share: TF32 as the row says while they are open, and where results came out."""

    def __init__(self, device: str, tf32: bool) -> None:
        if device == "cuda":
            _require_cuda()
        elif device != "cpu":
            raise NotRunnable(f"{device} is a provider of onnxruntime only")
        self.device, self.tf32 = device, tf32
        self.outputs_on: set[str] = set()
        self._before: tuple[bool, bool] | None = None

    def __enter__(self) -> Self:
        if self.device == "cuda":
            self._before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = self._before

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

    def run(self, feed: Feed) -> Outputs:
        """Return the outputs by name, in the runner's precision."""
        tensors = {k: _tensor(v, self.device, self.dtype) for k, v in feed.items()}
        with torch.no_grad():
            found = eager_outputs(self.model, self.graph, tensors)
        return self.arrays(found)


class TorchScriptRunner(_TorchRunner):
    """The stored TorchScript file."""

    def __init__(
        self,
        data: bytes,
        inputs: list[c.TensorInfo],
        outputs: list[c.TensorInfo],
        device: str = "cpu",
        *,
        tf32: bool = False,
    ) -> None:
        """Load the file onto a device; a `StoredTorchScript` in a confined child, on the CPU only."""
        super().__init__(device, tf32)
        self.inputs = [info["name"] for info in inputs]
        self.outputs = [info["name"] for info in outputs]
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put PyTorch's settings back and end the child."""
        if self.confined is not None:
            self.confined.__exit__(kind, error, trace)
        super().__exit__(kind, error, trace)

    def run(self, feed: Feed) -> Outputs:
        """Return the outputs by name."""
        if self.confined is not None:
            self.outputs_on.add("cpu")
            return dict(self.confined.run([feed[name] for name in self.inputs]))
        tensors = [_tensor(feed[name], self.device, torch.float32) for name in self.inputs]
        with torch.no_grad():
            found = self.module(*tensors)
        if not isinstance(found, tuple):
            raise TypeError(
                f"the file returns a {type(found).__name__}; expected a tuple of {len(self.outputs)} tensors"
            )
        return self.arrays(dict(zip(self.outputs, found, strict=True)))


class OnnxRunner(_Base):
    """The stored ONNX file under onnxruntime, on exactly one provider."""

    def __init__(self, data: bytes, device: str = "cpu", *, tf32: bool = False) -> None:
        """Open a session that fails rather than hand a node to another provider."""
        data = CheckedModel(data)
        provider = PROVIDERS[device]
        if provider not in onnxruntime.get_available_providers():
            raise NotRunnable(f"this onnxruntime has no {provider}")
        if device != "cpu":
            _require_cuda()
            onnxruntime.preload_dlls()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        provider_options: dict[str, str] = {}
        if device != "cpu":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            options.enable_profiling = True
            self.folder = tempfile.TemporaryDirectory(prefix="parity-")
            options.profile_file_prefix = str(Path(self.folder.name) / "profile")
            provider_options = {"use_tf32": "1" if tf32 else "0"} if device == "cuda" else {}
        try:
            self.session = onnxruntime.InferenceSession(data, options, providers=[(provider, provider_options)])
        except ORT_ERRORS as error:
            self._remove_profile()
            if device == "cpu":  # every host has it, so the file is to blame
                raise
            raise NotRunnable(_refusal(str(error), provider)) from error
        self.provider, self.device = provider, device
        if self.session.get_providers()[0] != provider:
            self._remove_profile()
            raise NotRunnable(
                f"onnxruntime fell back to {self.session.get_providers()[0]}; it could not use {provider}"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the profile."""
        self._remove_profile()

    def _remove_profile(self) -> None:
        if self.folder is not None:
            self.folder.cleanup()

    def run(self, feed: Feed) -> Outputs:
        """Return the outputs by name."""
        names = [i.name for i in self.session.get_inputs()]
        found = self.session.run(None, {name: np.array(feed[name], order="C") for name in names})
        return {o.name: np.asarray(v) for o, v in zip(self.session.get_outputs(), found, strict=True)}

    def facts(self) -> dict[str, Any]:
        """Return the provider of every node that ran (from the profile on GPUs), TF32 state and version."""
        facts: dict[str, Any] = {
            "onnxruntime": onnxruntime.__version__,
            "providers": self.session.get_providers(),
        }
        if self.device == "cuda":
            options = self.session.get_provider_options()[self.provider]
            facts |= {"tf32": options.get("use_tf32") == "1", "provider_options": options}
        if self.device != "cpu":
            records = json.loads(Path(self.session.end_profiling()).read_text(encoding="utf-8"))
            nodes = [r.get("args", {}).get("provider") for r in records if r.get("cat") == "Node"]
            facts["node_providers"] = {str(p): nodes.count(p) for p in set(nodes) if p}
        return facts


def _tensor(value: np.ndarray, device: str, dtype: torch.dtype) -> torch.Tensor:
    # A copy: no runner can change what the next one is fed.
    tensor = torch.from_numpy(np.array(value, order="C"))
    return tensor.to(device) if value.dtype == np.int64 else tensor.to(device, dtype)


def _require_cuda() -> None:
    if not torch.cuda.is_available():
        raise NotRunnable("no CUDA device")


def _refusal(message: str, provider: str) -> str:
    text = " ".join(message.split())[:200]
    # Where a provider's libraries are missing, or it lacks an operator, onnxruntime would run on the CPU without a word.
    if "fallback" in text.lower():
        return f"onnxruntime would fall back to the CPU, since {provider} cannot be loaded or cannot run all nodes ({text})"
    return f"onnxruntime refused the session: {text}"


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
