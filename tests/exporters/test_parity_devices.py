"""Devices are read back, not believed: what counts as a CUDA row, and what is said where onnxruntime would use the CPU.

No GPU is needed: facts and sessions are given. What a real one answers is for `make verify-cuda` on a GPU host.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters.parity import runners  # noqa: E402
from exporters.parity.devices import why_unproven  # noqa: E402
from exporters.parity.runners import NotRunnable, OnnxRunner, TorchScriptRunner  # noqa: E402
from ptycho_runtime import RunOptions  # noqa: E402
from ptycho_runtime.engine import devices, tensorrt_cache  # noqa: E402
from ptycho_runtime.engine.devices import provider_options  # noqa: E402
from ptycho_runtime.engine.onnx_session import OnnxSession  # noqa: E402
from ptycho_runtime.engine.opening import open_session  # noqa: E402

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def double() -> bytes:
    """Return an ONNX file that doubles its input."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return onnx.ModelProto.SerializeToString(model)


@pytest.mark.parametrize(
    ("runtime", "device", "precision", "facts", "doubt"),
    [
        ("onnx", "cuda", "float32", {"node_providers": {CUDA: 9}, "tf32": False}, ""),
        ("onnx", "cuda", "tf32", {"node_providers": {CUDA: 9}, "tf32": True}, ""),
        ("onnx", "cuda", "float32", {"node_providers": {CUDA: 9}, "tf32": True}, "use_tf32 was True in a float32 row"),
        ("onnx", "cuda", "tf32", {"node_providers": {CUDA: 9}, "tf32": False}, "use_tf32 was False in a tf32 row"),
        ("onnx", "cuda", "float32", {"node_providers": {CUDA: 9}}, "use_tf32 was None"),
        ("onnx", "cuda", "float32", {"node_providers": {}, "tf32": False}, "says of no node"),
        ("onnx", "cuda", "float32", {"node_providers": {CUDA: 8, CPU: 1}, "tf32": False}, f"ran 1 on {CPU}, of 9"),
        ("onnx", "tensorrt", "tf32", {"node_providers": {"TensorrtExecutionProvider": 1}}, ""),
        ("onnx", "tensorrt", "tf32", {"node_providers": {CUDA: 4}}, f"ran 4 on {CUDA}, of 4"),
        ("onnx", "cpu", "float32", {"providers": [CPU]}, ""),
        ("onnx", "cpu", "float32", {"providers": [CUDA, CPU]}, "session has"),
        ("eager", "cpu", "float32", {"outputs_on": ["cpu"]}, ""),
        ("eager", "cuda", "float32", {"outputs_on": ["cpu"]}, "left the results on cpu; expected cuda"),
        ("torchscript", "cuda", "float32", {"outputs_on": ["cpu", "cuda"]}, "on cpu, cuda; expected cuda"),
        ("eager", "cuda", "float32", {}, "on no device"),
        ("eager", "cuda", "tf32", {"outputs_on": ["cuda"], "tf32_matmul": True, "tf32_cudnn": True}, ""),
        ("eager", "cuda", "float32", {"outputs_on": ["cuda"], "tf32_matmul": False, "tf32_cudnn": True}, "tf32_cudnn"),
        ("eager", "cuda", "tf32", {"outputs_on": ["cuda"], "tf32_matmul": False, "tf32_cudnn": True}, "tf32_matmul"),
    ],
)
def test_facts_that_do_not_show_the_device(
    runtime: str, device: str, precision: str, facts: dict[str, Any], doubt: str
) -> None:
    found = why_unproven(runtime, device, precision, facts)
    assert doubt in found
    assert bool(found) == bool(doubt)


class FakeSession:
    """A session on CUDA that records how it was opened and writes a profile like onnxruntime's."""

    def __init__(self, data: bytes, options: Any, providers: list[tuple[str, dict[str, str]]]) -> None:
        self.options, self.asked = options, providers

    def get_providers(self) -> list[str]:
        return [name for name, _ in self.asked] + [CPU]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return dict(self.asked)

    def get_inputs(self) -> list[Any]:
        return []

    get_outputs = get_inputs

    def end_profiling(self) -> str:
        nodes = [(f"node_{number}_kernel_time", name) for number, name in enumerate((CUDA, CUDA, CPU))]
        records: list[dict[str, Any]] = [
            {"cat": "Node", "name": name, "dur": 1, "args": {"provider": provider, "op_name": "Conv"}}
            for name, provider in nodes
        ]
        records += [{"cat": "Node", "name": "fence", "args": {}}, {"cat": "Session"}]
        path = Path(f"{self.options.profile_file_prefix}_1.json")
        path.write_text(json.dumps(records))
        return str(path)


@pytest.fixture
def gpu_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a host say it has a CUDA device."""
    monkeypatch.setattr(devices, "DRIVER_FILES", ("/dev/null",))
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider", CUDA, CPU])


@pytest.mark.usefixtures("gpu_host")
class TestSession:
    @pytest.mark.parametrize("tf32", [False, True])
    def test_cuda_is_the_only_provider_opened_as_the_runtime_does_and_every_node_is_read_back(
        self, tf32: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[FakeSession] = []

        def watched(*arguments: Any, **options: Any) -> FakeSession:
            opened.append(FakeSession(*arguments, **options))
            return opened[-1]

        monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
        with OnnxRunner(double(), "cuda", tf32=tf32) as runner:
            (session,) = opened
            assert session.asked == [(CUDA, provider_options(b"", RunOptions("cuda", tf32=tf32)))]
            assert session.asked[0][1] == {"use_tf32": "1" if tf32 else "0", "cudnn_conv_algo_search": "HEURISTIC"}
            assert session.options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
            assert session.options.get_session_config_entry("session.force_spinning_stop") == "1"
            facts = runner.facts()
            folder = Path(session.options.profile_file_prefix).parent
        assert facts["node_providers"] == {CUDA: 2, CPU: 1}
        assert facts["tf32"] is tf32
        assert not folder.exists()

    def test_a_session_that_came_up_on_the_cpu_is_not_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FakeSession, "get_providers", lambda self: [CPU])
        monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession)
        with pytest.raises(NotRunnable, match=f"^cuda cannot be used: .* the session came up on {CPU}"):
            OnnxRunner(double(), "cuda")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a CUDA device")
    @pytest.mark.skipif(CUDA not in onnxruntime.get_available_providers(), reason="this onnxruntime has no CUDA")
    @pytest.mark.parametrize("device", ["cuda", "tensorrt"])
    def test_real_onnxruntime_that_would_fall_back_is_told_so(
        self, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(tensorrt_cache, "this_host", lambda: tensorrt_cache.Host("a GPU 9.0", 101300, "1.31.1"))
        with pytest.raises(NotRunnable, match=f"^{device} cannot be used: onnxruntime refused the session: "):
            OnnxRunner(double(), device, tf32=True)


class TestBatches:
    """On a GPU a session pads to its batch, so each batch size is proven in a session of its own."""

    @pytest.mark.parametrize(("device", "sessions"), [("cuda", 3), ("cpu", 1)])
    def test_sessions_of_a_runner(self, device: str, sessions: int, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[RunOptions] = []

        def watched(data: bytes, options: RunOptions, **how: Any) -> OnnxSession:
            asked.append(options)
            return open_session(data, replace(options, device="cpu"), whole=True)

        monkeypatch.setattr(runners, "open_session", watched)
        with OnnxRunner(double(), device) as runner:
            for groups in (1, 3, 3, 16):
                assert runner.run({"x": np.ones(groups, np.float32)})["y"].tolist() == groups * [2.0]
        assert len(asked) == sessions
        if device == "cuda":
            assert [options.batch for options in asked] == [1, 3, 16]


def test_a_file_that_the_cpu_refuses_is_an_error_and_not_a_row_that_did_not_run() -> None:
    with pytest.raises(runners.FAILURES) as caught:
        OnnxRunner(b"rubbish", "cpu")
    assert not isinstance(caught.value, NotRunnable)


def test_cpu_facts_are_read_back() -> None:
    with OnnxRunner(double(), "cpu") as runner:
        assert runner.run({"x": np.ones(3, np.float32)})["y"].tolist() == [2.0, 2.0, 2.0]
        assert why_unproven("onnx", "cpu", "float32", runner.facts()) == ""


def test_tf32_is_put_back_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.jit, "load", lambda data, map_location: None)

    def flags() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = flags()
    for tf32 in (False, True):
        with TorchScriptRunner(b"", [], [], "cuda", tf32=tf32):
            assert flags() == (tf32, tf32)
        assert flags() == before


def test_a_torchscript_file_that_returns_one_tensor_is_refused() -> None:
    class Single(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    import io

    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(Single(), torch.ones(2, 3)), buffer)
    info: Any = [{"name": "x", "shape": [], "dtype": "float32"}]
    runner = TorchScriptRunner(buffer.getvalue(), info, info * 2)
    with pytest.raises(TypeError, match="the file returns a Tensor; expected a tuple of 2 tensors"):
        runner.run({"x": np.ones((2, 3), np.float32)})
