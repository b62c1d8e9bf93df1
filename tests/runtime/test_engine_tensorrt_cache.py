"""Where TensorRT's engines are kept. No test here builds one: that needs a GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from ptycho_runtime import DeviceUnavailableError, RunOptions, open_export
from ptycho_runtime.engine import devices
from ptycho_runtime.engine import tensorrt_cache as engines
from ptycho_runtime.engine.opening import open_session
from ptycho_runtime.engine.options import PROVIDERS
from ptycho_runtime.engine.tensorrt_cache import Host, engine_folder, engine_options, library_name, this_host

HOST = Host("NVIDIA H100 9.0", 101300, "1.31.1")
LIBRARIES = Path(onnxruntime.__file__).parent / "capi"
needs_provider = pytest.mark.skipif(
    not (LIBRARIES / "libonnxruntime_providers_tensorrt.so").exists(),
    reason="this onnxruntime has no TensorRT provider",
)


class Driver:
    """Answers like NVIDIA's driver on a host with one GPU: numbers through pointers, 0 for well."""

    def __init__(self, init_code: int = 0) -> None:
        def cuInit(flags: int) -> int:
            return init_code

        self.cuInit = cuInit

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = b"NVIDIA H100 80GB HBM3"
        return 0

    def cuDeviceGetAttribute(self, number: Any, attribute: int, device: Any) -> int:
        ctypes.cast(number, ctypes.POINTER(ctypes.c_int))[0] = {75: 9, 76: 0}[attribute]
        return 0


class TensorRT:
    """Answers like TensorRT's library."""

    @staticmethod
    def getInferLibVersion() -> int:
        return 101300


def libraries(driver: Driver) -> Callable[[str], Any]:
    return lambda name: driver if name == "libcuda.so.1" else TensorRT


@needs_provider
def test_host_is_the_gpu_the_library_and_onnxruntime() -> None:
    assert this_host(libraries(Driver())) == Host("NVIDIA H100 80GB HBM3 9.0", 101300, onnxruntime.__version__)


def test_driver_that_refuses_is_named_with_its_code() -> None:
    with pytest.raises(OSError, match=r"^the NVIDIA driver answered cuInit with error 100$"):
        this_host(libraries(Driver(init_code=100)))


@needs_provider
def test_library_is_the_one_that_this_onnxruntime_is_linked_to() -> None:
    assert library_name().startswith("libnvinfer.so.")


def test_provider_without_a_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "provider.so").write_bytes(b"libnvinfer_plugin")
    with pytest.raises(OSError, match=r"^provider\.so names no TensorRT library$"):
        library_name(tmp_path / "provider.so")


class TestFolder:
    def test_is_the_same_for_the_same(self, tmp_path: Path) -> None:
        assert engine_folder(b"model", 16, HOST, tmp_path) == engine_folder(b"model", 16, replace(HOST), tmp_path)

    @pytest.mark.parametrize(
        "host",
        [replace(HOST, gpu="NVIDIA A100 8.0"), replace(HOST, tensorrt=101400), replace(HOST, onnxruntime="1.32.0")],
    )
    def test_is_another_for_another_host_and_so_are_its_timings(self, host: Host, tmp_path: Path) -> None:
        found, other = (engine_folder(b"model", 16, one, tmp_path) for one in (HOST, host))
        assert found.parent != other.parent

    def test_is_another_for_other_weights_batches_and_rounding(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv(engines.TF32_SWITCH, raising=False)
        found = {engine_folder(b"model", 16, HOST, tmp_path), engine_folder(b"Model", 16, HOST, tmp_path)}
        found.add(engine_folder(b"model", 17, HOST, tmp_path))
        monkeypatch.setenv(engines.TF32_SWITCH, "0")
        found.add(engine_folder(b"model", 16, HOST, tmp_path))
        assert len(found) == 4
        assert {folder.parent for folder in found} == {engine_folder(b"model", 16, HOST, tmp_path).parent}


def test_options_point_to_a_folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(engines, "this_host", lambda: HOST)
    options = engine_options(b"model", 16)
    folder = engine_folder(b"model", 16, HOST, tmp_path / "ptycho-runtime" / "tensorrt")
    assert (options["trt_engine_cache_path"], options["trt_timing_cache_path"]) == (str(folder), str(folder.parent))
    assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent, folder.parent.parent)} == {0o700}


@needs_provider
@pytest.mark.parametrize("provider", ["tensorrt", "cuda"])
def test_installed_provider_knows_the_options_it_is_given(
    provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt option would be noticed on a GPU alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(engines, "this_host", lambda: HOST)
    options = devices.provider_options(b"model", RunOptions(provider, 16, cuda_graph=provider == "cuda"))
    code = (LIBRARIES / f"libonnxruntime_providers_{provider}.so").read_bytes()
    assert [name for name in options if b"\0" + name.encode() + b"\0" not in code] == []


class TestRefusals:
    @pytest.fixture
    def model(self, tiny: Path) -> bytes:
        return open_export(tiny).graphs["diffraction_to_obj"]

    @pytest.fixture(autouse=True)
    def driver_and_provider(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the host look as if it had a GPU, up to the point that is tested."""
        monkeypatch.setattr(devices, "DRIVER_FILES", ("/dev/null",))
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
        monkeypatch.delenv(engines.TF32_SWITCH, raising=False)

    def test_rounding_that_was_not_allowed(self, model: bytes) -> None:
        expected = (
            r"^tensorrt cannot be used: TensorRT rounds products to TF32 by itself; "
            r"start with NVIDIA_TF32_OVERRIDE=0 in the environment, or allow TF32$"
        )
        with pytest.raises(DeviceUnavailableError, match=expected):
            open_session(model, RunOptions("tensorrt"))

    def test_libraries_that_are_missing(self, model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing() -> Host:
            raise OSError("libnvinfer.so.10: cannot open shared object file")

        monkeypatch.setattr(engines, "this_host", missing)
        with pytest.raises(DeviceUnavailableError, match=r"^tensorrt cannot be used: libnvinfer.*LD_LIBRARY_PATH\)$"):
            open_session(model, RunOptions("tensorrt", tf32=True))

    def test_cache_that_cannot_be_written(self, model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        monkeypatch.setattr(engines, "this_host", lambda: HOST)
        with pytest.raises(DeviceUnavailableError, match=r"set XDG_CACHE_HOME to a folder that can be written$"):
            open_session(model, RunOptions("tensorrt", tf32=True))
