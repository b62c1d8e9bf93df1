"""What a check ran on: processor, cores, memory, GPU and its driver."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

_CPU = Path("/proc/cpuinfo")
_DRIVER = Path("/proc/driver/nvidia/version")


def hardware() -> dict[str, Any]:
    """Return what this process may use; what a host does not tell is left out."""
    found: dict[str, Any] = {"processor": _processor(), "cores": len(os.sched_getaffinity(0))}
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads:
        found["OMP_NUM_THREADS"] = threads
    found["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found["gpu"] = _gpu()
    if _DRIVER.is_file():
        found["gpu_driver"] = _DRIVER.read_text(encoding="utf-8", errors="replace").splitlines()[0]
    return found


def _processor() -> str:
    told = _CPU.read_text(encoding="utf-8", errors="replace") if _CPU.is_file() else ""
    found = re.search(r"^(?:model name|Hardware)\s*:\s*(.+)$", told, re.MULTILINE)
    return " ".join(found[1].split()) if found else platform.processor() or platform.machine()


def _gpu() -> str:
    if not torch.cuda.is_available():
        return "no CUDA device"
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}"
