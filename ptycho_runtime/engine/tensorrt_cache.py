"""TensorRT's engines: kept where no other model, GPU or version finds them, and whether they may round to TF32.

onnxruntime names an engine after the names in the graph, its own version, CUDA's and TensorRT's, and the GPU's compute
capability, but after no weight and no size: two models of one architecture would share an engine.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from ptycho_runtime.errors import OutputError
from ptycho_runtime.files import cache_folder

TF32_SWITCH = "NVIDIA_TF32_OVERRIDE"  # read by NVIDIA's libraries once, when they are first used
_PROVIDER = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_tensorrt.so"
_COMPUTE_CAPABILITY = (75, 76)  # the driver's attributes for its major and minor number

Load = Callable[[str], Any]


@dataclass(frozen=True)
class Host:
    """What an engine is built for, beside the model."""

    gpu: str  # name and compute capability
    tensorrt: int  # as its library gives it
    onnxruntime: str


def this_host(load: Load = ctypes.CDLL) -> Host:
    """Return the first GPU that this process sees, and the versions; raises `OSError` where a library is missing or refuses.

    Args:
        load: opens a shared library by name.
    """
    return Host(_gpu(load("libcuda.so.1")), int(load(library_name()).getInferLibVersion()), onnxruntime.__version__)


def library_name(provider: Path = _PROVIDER) -> str:
    """Return the name of the TensorRT library that onnxruntime's provider is linked to; raises `OSError` without one."""
    found = re.search(rb"libnvinfer\.so\.\d+", provider.read_bytes())
    if found is None:
        raise OSError(f"{provider.name} names no TensorRT library")
    return found[0].decode()


def refuses_tf32() -> bool:
    """Say whether this process keeps NVIDIA's libraries from rounding factors to TF32."""
    return os.environ.get(TF32_SWITCH) == "0"


def engine_folder(model: bytes, batch: int, host: Host, root: Path) -> Path:
    """Return the folder for engines of one model and batch, in the one for a host's timings.

    Args:
        model: an ONNX file's content.
        batch: groups a run, for which the engine is tuned.
        host: what the engine is built for.
        root: where all of them are kept.
    """
    own = (hashlib.sha256(model).hexdigest(), batch, refuses_tf32())
    return root / _digest(astuple(host)) / _digest(own)


def engine_options(model: bytes, batch: int) -> dict[str, str]:
    """Return the provider's options that keep engines, and how fast kernels were found to be, for the next session.

    Raises `OSError`, with what to do, where a library is missing or the folder cannot be written.
    """
    try:
        host = this_host()
    except OSError as error:
        raise OSError(
            f"{error}; TensorRT's libraries have to be where the loader finds them (LD_LIBRARY_PATH)"
        ) from error
    try:
        folder = engine_folder(model, batch, host, cache_folder() / "tensorrt")
        # An engine is code for the GPU: nobody else is to put one here.
        for path in (folder.parent.parent, folder.parent, folder):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, OutputError) as error:
        raise OSError(
            f"engines cannot be kept ({error}); set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder.parent),
    }


def _gpu(driver: Any) -> str:
    device, name, numbers = ctypes.c_int(), ctypes.create_string_buffer(256), []
    _driver_call(driver.cuInit, 0)
    _driver_call(driver.cuDeviceGet, ctypes.byref(device), 0)
    _driver_call(driver.cuDeviceGetName, name, len(name), device)
    for attribute in _COMPUTE_CAPABILITY:
        number = ctypes.c_int()
        _driver_call(driver.cuDeviceGetAttribute, ctypes.byref(number), attribute, device)
        numbers.append(number.value)
    return f"{name.value.decode(errors='replace')} {numbers[0]}.{numbers[1]}"


def _driver_call(function: Any, *arguments: Any) -> None:
    code = function(*arguments)
    if code:
        raise OSError(f"the NVIDIA driver answered {function.__name__} with error {code}")


def _digest(values: tuple[object, ...]) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:32]
