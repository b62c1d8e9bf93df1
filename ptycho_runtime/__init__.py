"""Run exported PtychoPINN models on a beamline host: numpy and onnxruntime, no PyTorch."""

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
