"""How much memory this process has taken."""

from __future__ import annotations

import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Return the most this process ever had resident, bytes; 0 where the platform does not say."""
    found = _status("VmHWM")
    if found is not None:
        return found
    if sys.platform == "win32":
        return 0
    import resource

    # On Linux this would start from what the parent had when it made this process, hence the above.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_bytes() -> int:
    """Return what this process has resident now, bytes; 0 where the platform does not say."""
    return _status("VmRSS") or 0


def _status(name: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
