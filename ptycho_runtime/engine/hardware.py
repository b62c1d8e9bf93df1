"""What this host computes on, and how many threads this process may use."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

_CPU_NAME = ("model name", "Hardware", "cpu")
CPU_INFO = Path("/proc/cpuinfo")
_INT8_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


def reduced_arithmetic(cpu_info: Path = CPU_INFO) -> str:
    """Return in words what makes reduced precision fast and whether this processor has it; empty where the system does not tell.

    Args:
        cpu_info: where the system tells it.
    """
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    flags = {flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split()[1:]}
    if not flags:
        return ""
    has = [
        "no " * (not flags & wanted) + what
        for what, wanted in (("int8 dot products", _INT8_PRODUCTS), ("bfloat16", _BFLOAT16))
    ]
    return f"this processor has {has[0]} and {has[1]}"


def processor(cpu_info: Path = CPU_INFO) -> str:
    """Return the processor's name as the system tells it.

    Args:
        cpu_info: where it does.
    """
    try:
        for line in cpu_info.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in _CPU_NAME:
                return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_threads() -> int:
    """Return how many threads this process may keep busy: its affinity, and the CPU quota of its control group."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:
        # Not on this platform.
        allowed = os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, cgroup_cpus())))


def capped_threads(asked: int | None) -> tuple[int, str]:
    """Return (how many threads work, what is to be said of it): what was asked for, but never more than may be kept busy."""
    usable = usable_threads()
    if asked is None or asked <= usable:
        return asked or usable, ""
    return usable, f"{asked} threads were asked for, capped at the {usable} that this process may keep busy"


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
