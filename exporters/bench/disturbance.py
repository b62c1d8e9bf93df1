"""How much other processes were in the way: a machine that does something else as well measures nothing well."""

from __future__ import annotations

import os
from pathlib import Path

_STAT = Path("/proc/stat")
_IDLE = (3, 4)  # idle, waiting for a disk
_GUEST = 8  # guest time is in user time already


def busy_s(text: str | None = None) -> float | None:
    """Return the CPU seconds all cores have worked since boot; None where the platform does not say.

    Args:
        text: the content of `/proc/stat`; read where None.
    """
    if text is None:
        try:
            text = _STAT.read_text(encoding="ascii")
        except OSError:
            return None
    ticks = [int(value) for value in text.split("\n", 1)[0].split()[1:]][:_GUEST]
    return sum(value for place, value in enumerate(ticks) if place not in _IDLE) / os.sysconf("SC_CLK_TCK")


def disturbance(others_s: float, wall_s: float, threads: int, cores: int) -> float:
    """Return the share of the measured threads' cores that other processes took, 0 to 1; what fits on cores left idle is none.

    Args:
        others_s: CPU seconds of all other processes.
        wall_s: seconds it went on.
        threads: of the measured process.
        cores: of the machine.
    """
    in_the_way = others_s / wall_s - (cores - threads) if wall_s > 0.0 else 0.0
    return min(1.0, max(0.0, in_the_way / threads))
