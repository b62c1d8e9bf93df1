"""From a PtychoPINN bundle to TorchScript and ONNX, stored beside the original weights and proven equal to them."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from exporters.errors import MixedInstallationError
from exporters.installation import check_installation
from ptycho_runtime.errors import TorchMissingError

if TYPE_CHECKING:
    __version__: str
    from exporters.pipeline import ExportResult, export_bundle, verify_bundle

__all__ = ["ExportResult", "MixedInstallationError", "__version__", "export_bundle", "verify_bundle"]


def __getattr__(name: str) -> Any:
    """Import the pipeline, and with it PyTorch, when it is first asked for."""
    if name == "__version__":
        from ptycho_runtime import __version__

        return __version__
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    check_installation()
    if importlib.util.find_spec("torch") is None:
        raise TorchMissingError(
            f"exporters.{name} needs PyTorch, which is not installed: pip install 'ptycho-export[export]'"
        )
    from exporters import pipeline

    return getattr(pipeline, name)
