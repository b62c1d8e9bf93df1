"""What a check ran on: processor, cores, memory, GPU and its driver, versions and command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ptycho_runtime.engine.hardware import processor, reduced_arithmetic, usable_threads

_DRIVER = Path("/proc/driver/nvidia/version")


def host_facts() -> dict[str, Any]:
    """Return versions, hardware, the exact command and the time, for the report."""
    packages = {}
    for package in (
        "ptycho-export", "torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy", "scikit-image",
    ):  # fmt: skip
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        **hardware(),
        "command": f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join([sys.executable, *sys.orig_argv[1:]])}",
        **_commit(),
        "packages": packages,
    }


def _commit() -> dict[str, str]:
    """Return the commit of this project where it runs from a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return {}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": done.stdout.strip()}


def hardware() -> dict[str, Any]:
    """Return what this process may use; what a host does not tell is left out."""
    found: dict[str, Any] = {"processor": processor(), "cores": len(os.sched_getaffinity(0))}
    arithmetic = reduced_arithmetic()
    if arithmetic:
        found["arithmetic"] = arithmetic
    # The widest instructions that PyTorch's kernels use here, such as AVX2 or AVX512.
    found["instructions"] = torch.backends.cpu.get_cpu_capability()
    found["threads"] = {"usable": usable_threads(), "PyTorch": torch.get_num_threads()}
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
