"""Which device is meant is settled before a session is opened, and proven when it is."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

import ptycho_runtime
from ptycho_runtime import DeviceUnavailableError, ReconstructionError, RunOptions, open_export
from ptycho_runtime.engine import devices, hardware
from ptycho_runtime.engine.opening import open_session
from ptycho_runtime.engine.options import PROVIDERS
from ptycho_runtime.engine.tuned import Setting, Trial, Tuned, remember

GRAPH = "diffraction_to_obj"
no_gpu = pytest.mark.skipif(not devices.why_not("cuda"), reason="this host has a GPU")


class TestOptions:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"device": "gpu"}, r"^device 'gpu'; expected auto, cpu, cuda or tensorrt$"),
            ({"batch": 0}, r"^batch is 0; expected a whole number from 1 to 4096$"),
            ({"batch": True}, r"^batch is True; expected"),
            ({"threads": 1.5}, r"^threads is 1\.5; expected"),
            ({"threads": 10**9}, r"^threads is 1000000000; expected"),
            ({"precision": "float16"}, r"^precision 'float16'; expected float32 or auto$"),
        ],
    )
    def test_values_that_none_can_have_are_refused(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ReconstructionError, match=message):
            RunOptions(**fields)

    def test_numbers_of_numpy_are_numbers(self) -> None:
        import numpy as np

        found = RunOptions(batch=np.int64(4))  # type: ignore[arg-type]
        assert type(found.batch) is int and found.groups == 4

    @pytest.mark.parametrize("device", ["cpu", "tensorrt"])
    def test_cuda_graph_on_another_device(self, device: str) -> None:
        with pytest.raises(DeviceUnavailableError, match=f"^CUDA graphs run on cuda, not on {device}; ask for cuda"):
            RunOptions(device, cuda_graph=True)


@no_gpu
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_device_asked_for_by_name_is_that_or_an_error(device: str, tiny: Path) -> None:
    with pytest.raises(DeviceUnavailableError, match=f"{device} cannot be used: "):
        open_session(open_export(tiny).graphs[GRAPH], RunOptions(device))


@no_gpu
def test_auto_says_why_it_runs_on_the_cpu(tiny: Path) -> None:
    with open_session(open_export(tiny).graphs[GRAPH]) as session:
        assert session.device == session.options.device == "cpu"
        assert session.note.startswith("running on the CPU: ")


def test_missing_provider_names_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "DRIVER_FILES", ("/dev/null",))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert "pip install 'onnxruntime-gpu" in devices.why_not("cuda")


class TestGpuThatOnlySeemsToBeThere:
    """A host with a driver and the provider, whose libraries fail when a session is opened."""

    @pytest.fixture(autouse=True)
    def driver_and_provider(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(devices, "DRIVER_FILES", ("/dev/null",))
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)

    @pytest.fixture
    def opened(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Return the providers for which sessions are opened; CUDA's cannot be."""
        seen: list[str] = []
        real = onnxruntime.InferenceSession

        def watched(model: bytes, told: Any, providers: list[tuple[str, dict[str, str]]]) -> Any:
            seen.append(providers[0][0])
            if providers[0][0] != PROVIDERS["cpu"]:
                raise RuntimeError("libcudnn.so.9: cannot open\nshared object file")
            return real(model, told, providers=providers)

        monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
        return seen

    def test_by_name_it_is_refused_with_the_reason(self, tiny: Path, opened: list[str]) -> None:
        expected = (
            r"^cuda cannot be used: onnxruntime refused the session: libcudnn\.so\.9: cannot open shared object file$"
        )
        with pytest.raises(DeviceUnavailableError, match=expected):
            open_session(open_export(tiny).graphs[GRAPH], RunOptions("cuda"))
        assert opened == [PROVIDERS["cuda"]]

    def test_auto_goes_on_with_the_cpu_and_what_was_tuned_for_it(self, tiny: Path, opened: list[str]) -> None:
        for device, batch in (("cuda", 64), ("cpu", 5)):
            remember(open_export(tiny), GRAPH, device, Tuned((Trial(Setting(batch, 1), 1.0, 0.0),)))
        with ptycho_runtime.open(tiny) as model:
            assert (model.options.device, model.batch, model.tuned) == ("cpu", 5, Setting(5, 1))
            assert model.patches.note.startswith("running on the CPU: onnxruntime refused the session: libcudnn")
        assert opened == [PROVIDERS["cuda"], PROVIDERS["cpu"]]

    def test_cuda_graph_does_not_turn_into_a_cpu_run(self, tiny: Path, opened: list[str]) -> None:
        with pytest.raises(DeviceUnavailableError, match=r"^CUDA graphs cannot be used: onnxruntime refused"):
            open_session(open_export(tiny).graphs[GRAPH], RunOptions(cuda_graph=True))


def test_session_that_came_up_elsewhere_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "DRIVER_FILES", ("/dev/null",))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))

    class Elsewhere:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            pass

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Elsewhere)
    with pytest.raises(DeviceUnavailableError, match=r"the session came up on CPUExecutionProvider; pip install"):
        open_session(open_export(tiny).graphs[GRAPH], RunOptions("cuda"))


def test_quota_of_the_control_group(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert hardware.cgroup_cpus(tmp_path, tmp_path / "none") == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert hardware.cgroup_cpus(tmp_path, tmp_path / "none") == math.inf
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert hardware.cgroup_cpus(tmp_path, tmp_path / "none") == 0.5


def test_threads_respect_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cgroup_cpus", lambda: 0.5)
    assert hardware.usable_threads() == 1


def test_more_threads_than_the_process_may_keep_busy_are_capped_and_said(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setattr(hardware, "cgroup_cpus", lambda: math.inf)
    with ptycho_runtime.open(tiny, device="cpu", threads=64) as model:
        assert model.options.threads == 2
        assert model.patches.note == "64 threads were asked for, capped at the 2 that this process may keep busy"
    with ptycho_runtime.open(tiny, device="cpu", threads=2) as model:
        assert (model.options.threads, model.patches.note) == (2, "")
