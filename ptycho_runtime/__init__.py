"""Run exported PtychoPINN models on a beamline host: numpy and onnxruntime, no PyTorch.

Importing this package imports the standard library alone; what is asked for brings what it needs.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptycho_runtime.api import Reconstructor, open
    from ptycho_runtime.engine.options import RunOptions
    from ptycho_runtime.errors import (
        CheckFailedError,
        DamagedExportError,
        DeviceUnavailableError,
        NotExportedError,
        OutputError,
        PtychoExportError,
        ReconstructionError,
        ScanError,
        UnsafeGraphError,
    )
    from ptycho_runtime.export.bundle import Export, open_export

# Before onnxruntime is imported, which reads it then: it would write a device id into the user's cache and look up its
# collector's name. Every module of the three houses that imports onnxruntime comes by here first.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__all__ = [
    "CheckFailedError",
    "DamagedExportError",
    "DeviceUnavailableError",
    "Export",
    "NotExportedError",
    "OutputError",
    "PtychoExportError",
    "ReconstructionError",
    "Reconstructor",
    "RunOptions",
    "ScanError",
    "UnsafeGraphError",
    "open",
    "open_export",
]
_HOMES = {
    "Export": "export.bundle",
    "Reconstructor": "api",
    "RunOptions": "engine.options",
    "open": "api",
    "open_export": "export.bundle",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
