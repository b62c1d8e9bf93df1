"""What this host computes on."""

from __future__ import annotations

import platform
from pathlib import Path

_CPU_NAME = ("model name", "Hardware", "cpu")


def processor() -> str:
    """Return the processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in _CPU_NAME:
                return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine()
