"""Which device runs the graphs, proven rather than assumed, and how many threads this process may use."""

from __future__ import annotations

import math
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from ptycho_runtime.engine import tensorrt_cache as engines
from ptycho_runtime.engine.device_lock import DEVICE_DOOR
from ptycho_runtime.errors import DeviceUnavailableError
from ptycho_runtime.export.onnx_file import CheckedModel

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
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
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_DRIVER_FILES = ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia/version")
_FIX = "pip install 'onnxruntime-gpu[cuda,cudnn]' in place of onnxruntime brings the wheel and its CUDA libraries"


@dataclass(frozen=True)
class Opened:
    """A session, the device it truly runs on, and in one line why it is not another."""

    session: onnxruntime.InferenceSession
    device: str
    note: str = ""


def open_session(
    model: bytes,
    device: str = "auto",
    *,
    tf32: bool = False,
    threads: int | None = None,
    batch: int = 16,
    cuda_graph: bool = False,
) -> Opened:
    """Return a session on a device on which every node of the graph runs.

    Args:
        model: an ONNX file's content.
        device: `cpu`, `cuda` or `tensorrt`, or `auto`: CUDA where it truly works, else the CPU with a note that says why.
        tf32: let a GPU round the factors of products to 10 bits; off by default.
        threads: for the CPU; what this process may use where None.
        batch: groups a run on a GPU, for which TensorRT's engines are kept.
        cuda_graph: let CUDA capture the session's first run, to replay it. The caller then keeps its buffers where they are.

    Raises:
        DeviceUnavailableError: a device that was asked for by name cannot be used, or would hand nodes to the CPU; a CUDA graph
            that was asked for cannot be had.
    """
    if cuda_graph and device not in ("auto", "cuda"):
        raise DeviceUnavailableError(f"CUDA graphs run on cuda, not on {device}; ask for cuda, or for no CUDA graph")
    if device == "cpu":
        return Opened(_session(model, "cpu", {}, threads), "cpu")
    wanted = "cuda" if device == "auto" else device
    reason = why_not(wanted, tf32=tf32)
    if not reason:
        # Finds the CUDA libraries of pip packages without importing torch.
        onnxruntime.preload_dlls()
        try:
            options = _gpu_options(model, wanted, batch, tf32=tf32, cuda_graph=cuda_graph)
            return Opened(_session(model, wanted, options, threads), wanted)
        except OSError as error:
            reason = str(error)
        except ORT_ERRORS as error:
            reason = f"onnxruntime refused the session: {' '.join(str(error).split())[:300]}"
    if device != "auto":
        raise DeviceUnavailableError(f"{device} cannot be used: {reason}")
    if cuda_graph:
        raise DeviceUnavailableError(f"CUDA graphs cannot be used: {reason}")
    return Opened(_session(model, "cpu", {}, threads), "cpu", f"running on the CPU: {reason}")


def why_not(device: str, *, tf32: bool = False) -> str:
    """Return why a GPU device cannot be used on this host, with the fix; empty where nothing speaks against it.

    Args:
        device: `cuda` or `tensorrt`.
        tf32: whether products may be rounded to TF32.
    """
    if not any(Path(name).exists() for name in _DRIVER_FILES):
        return "no NVIDIA driver is loaded (no /dev/nvidiactl)"
    if PROVIDERS[device] not in onnxruntime.get_available_providers():
        return f"this onnxruntime {onnxruntime.__version__} has no {PROVIDERS[device]}; {_FIX}"
    if device == "tensorrt" and not tf32 and not engines.refuses_tf32():
        # onnxruntime has no option against it.
        return f"TensorRT rounds products to TF32 by itself; start with {engines.TF32_SWITCH}=0 in the environment, or allow TF32"
    return ""


def _gpu_options(model: bytes, device: str, batch: int, *, tf32: bool, cuda_graph: bool) -> dict[str, str]:
    if device == "tensorrt":
        return engines.engine_options(model, batch)
    options = {"use_tf32": "1" if tf32 else "0", "cudnn_conv_algo_search": "HEURISTIC"}
    return {**options, "enable_cuda_graph": "1"} if cuda_graph else options


def _session(
    model: bytes, device: str, provider_options: dict[str, str], threads: int | None
) -> onnxruntime.InferenceSession:
    model = CheckedModel(model)  # what was looked through is what is opened
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or usable_threads()
    # Threads spin within a run, where the next operator comes soon, but not after it: reconstruction alternates two sessions
    # and stitches beside them, and the threads of the one that waits would take the cores from the one that runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if device != "cpu":
        # A node without a kernel is an error instead of a silent detour over the CPU.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    with nullcontext() if device == "cpu" else DEVICE_DOOR.together():
        session = onnxruntime.InferenceSession(model, options, providers=[(PROVIDERS[device], provider_options)])
    if session.get_providers()[0] != PROVIDERS[device]:
        raise RuntimeError(f"the session came up on {session.get_providers()[0]}; {_FIX}")
    return session


def usable_threads() -> int:
    """Return how many threads this process may keep busy: its affinity, and the CPU quota of its control group."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this platform
        allowed = os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, cgroup_cpus())))


def cgroup_cpus(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Return the CPU quota of this process's control group (version 2 or 1) in CPUs; infinity without one."""
    folders = {root}
    try:
        for line in own.read_text().splitlines():
            folders.add(root / line.rpartition(":")[2].lstrip("/"))
    except OSError:
        pass
    quota = math.inf
    for folder in folders:
        try:
            limit, period = (folder / "cpu.max").read_text().split()
            quota = min(quota, math.inf if limit == "max" else int(limit) / int(period))
        except (OSError, ValueError):
            continue
    try:
        limit, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        quota = min(quota, int(limit) / int(period) if int(limit) > 0 else math.inf)
    except (OSError, ValueError):
        pass
    return quota
