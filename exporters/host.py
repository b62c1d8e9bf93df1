"""What a check ran on: processor, cores, memory, GPU and its driver."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ptycho_runtime.engine.hardware import processor

_DRIVER = Path("/proc/driver/nvidia/version")


def hardware() -> dict[str, Any]:
    """Return what this process may use; what a host does not tell is left out."""
    found: dict[str, Any] = {"processor": processor(), "cores": len(os.sched_getaffinity(0))}
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads:
        found["OMP_NUM_THREADS"] = threads
    found["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found["gpu"] = _gpu()
    if _DRIVER.is_file():
        found["gpu_driver"] = _DRIVER.read_text(encoding="utf-8", errors="replace").splitlines()[0]
    return found


def _gpu() -> str:
    if not torch.cuda.is_available():
        return "no CUDA device"
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}"
