"""Run exported PtychoPINN models on a beamline host: numpy and onnxruntime, no PyTorch.

Importing this package imports the standard library alone; what is asked for brings what it needs.
"""

from __future__ import annotations

import importlib
import os
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptycho_runtime.api import Reconstructor, open
    from ptycho_runtime.check import check_host
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
    from ptycho_runtime.image.options import ReconstructOptions
    from ptycho_runtime.image.result import Reconstruction
    from ptycho_runtime.scan.options import ReadOptions
    from ptycho_runtime.scan.read import read_scan
    from ptycho_runtime.scan.scan import Scan

    __version__: str

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
    "ReadOptions",
    "ReconstructOptions",
    "Reconstruction",
    "ReconstructionError",
    "Reconstructor",
    "RunOptions",
    "Scan",
    "ScanError",
    "UnsafeGraphError",
    "__version__",
    "check_host",
    "open",
    "open_export",
    "read_scan",
]
_HOMES = {
    "Export": "export.bundle",
    "ReadOptions": "scan.options",
    "ReconstructOptions": "image.options",
    "Reconstruction": "image.result",
    "Reconstructor": "api",
    "RunOptions": "engine.options",
    "Scan": "scan.scan",
    "check_host": "check",
    "open": "api",
    "open_export": "export.bundle",
    "read_scan": "scan.read",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        return _version()
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def _version() -> str:
    """Return the version of the installed distribution; a checkout that is not installed has none."""
    try:
        return metadata.version("ptycho-export")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
