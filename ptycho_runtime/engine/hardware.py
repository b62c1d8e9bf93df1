"""What this host computes on."""

from __future__ import annotations

import platform
from pathlib import Path

_CPU_NAME = ("model name", "Hardware", "cpu")
_CPU_INFO = Path("/proc/cpuinfo")
_INT8_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


def reduced_arithmetic() -> str:
    """Return in words what makes reduced precision fast and whether this processor has it; empty where the system does not tell."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
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


def processor() -> str:
    """Return the processor's name as the system tells it."""
    try:
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in _CPU_NAME:
                return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine()
