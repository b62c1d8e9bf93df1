"""Which device is to run the graphs, before any session is opened: what speaks against a GPU on this host, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from ptycho_runtime.engine import tensorrt_cache
from ptycho_runtime.engine.options import DEFAULTS, PROVIDERS, RunOptions
from ptycho_runtime.errors import DeviceUnavailableError

# What onnxruntime raises; its classes have no common base but Exception.
ORT_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(
        getattr(_state, name)
        for name in (
            "EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "ModelLoaded",
            "NoModel", "NoSuchFile", "NotImplemented", "RuntimeException",
        )
        if hasattr(_state, name)
    ),
)  # fmt: skip
GPU_WHEEL = "pip install 'onnxruntime-gpu[cuda,cudnn]' in place of onnxruntime brings the wheel and its CUDA libraries"
DRIVER_FILES = ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Resolved:
    """A device, and in one line why it is not a GPU; that a GPU's session can be opened is only known when it is."""

    device: str
    note: str = ""


def resolve(options: RunOptions = DEFAULTS) -> Resolved:
    """Return the device that options mean on this host.

    Raises `DeviceUnavailableError` where something speaks against a device that was asked for by name, or against the CUDA that a
    CUDA graph needs.
    """
    if options.device == "cpu":
        return Resolved("cpu")
    device = "cuda" if options.device == "auto" else options.device
    reason = why_not(device, tf32=options.tf32)
    if not reason:
        return Resolved(device)
    return Resolved("cpu", instead(options, reason))


def instead(options: RunOptions, reason: str) -> str:
    """Return what is said where the CPU runs in place of a GPU that cannot be used.

    Raises `DeviceUnavailableError` unless the options leave it open.
    """
    if options.device != "auto":
        raise DeviceUnavailableError(f"{options.device} cannot be used: {reason}")
    if options.cuda_graph:
        raise DeviceUnavailableError(f"CUDA graphs cannot be used: {reason}")
    return f"running on the CPU: {reason}"


def why_not(device: str, *, tf32: bool = False) -> str:
    """Return why a GPU device cannot be used on this host, with the fix; empty where nothing speaks against it.

    Args:
        device: `cuda` or `tensorrt`.
        tf32: whether products may be rounded to TF32.
    """
    if not any(Path(name).exists() for name in DRIVER_FILES):
        return "no NVIDIA driver is loaded (no /dev/nvidiactl)"
    if PROVIDERS[device] not in onnxruntime.get_available_providers():
        return f"this onnxruntime {onnxruntime.__version__} has no {PROVIDERS[device]}; {GPU_WHEEL}"
    if device == "tensorrt" and not tf32 and not tensorrt_cache.refuses_tf32():
        # onnxruntime has no option against it.
        return (
            f"TensorRT rounds products to TF32 by itself; start with {tensorrt_cache.TF32_SWITCH}=0 in the environment, "
            "or allow TF32"
        )
    return ""


def provider_options(model: bytes, options: RunOptions) -> dict[str, str]:
    """Return what the provider of the options' device is told.

    Args:
        model: the ONNX file's content, after which TensorRT's engines are kept.
        options: with a device that is resolved.

    Raises `OSError`, with what to do, where TensorRT's libraries are missing or its engines cannot be kept.
    """
    if options.device == "cpu":
        return {}
    if options.device == "tensorrt":
        return tensorrt_cache.engine_options(model, options.groups)
    told = {"use_tf32": "1" if options.tf32 else "0", "cudnn_conv_algo_search": "HEURISTIC"}
    return {**told, "enable_cuda_graph": "1"} if options.cuda_graph else told
