"""Run exported PtychoPINN models on a beamline host: numpy and onnxruntime, no PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptycho_runtime.api import Reconstructor, open
    from ptycho_runtime.errors import (
        CheckFailedError,
        DamagedExportError,
        DeviceUnavailableError,
        NotExportedError,
        OutputError,
        ReconstructionError,
        ScanError,
        UnsafeGraphError,
    )
    from ptycho_runtime.export.bundle import Export, open_export

__all__ = [
    "CheckFailedError",
    "DamagedExportError",
    "DeviceUnavailableError",
    "Export",
    "NotExportedError",
    "OutputError",
    "ReconstructionError",
    "Reconstructor",
    "ScanError",
    "UnsafeGraphError",
    "open",
    "open_export",
]
_ROOMS = {"Reconstructor": "api", "open": "api", "Export": "export.bundle", "open_export": "export.bundle"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first asked for: the contract and the errors load neither numpy nor onnxruntime."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"ptycho_runtime.{_ROOMS.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
