"""What a PtychoPINN bundle is: reading, writing, its parameters and the eager models. Importable without PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ptycho_torch import errors, params
from ptycho_torch.architecture import detect
from ptycho_torch.bundle import read_bundle
from ptycho_torch.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho_torch.errors import BundleError
from ptycho_torch.model_manager import (
    create_torch_model_with_gridsize,
    load_inference_bundle_torch,
    load_torch_bundle,
    save_torch_bundle,
)
from ptycho_torch.spec import ModelSpec

if TYPE_CHECKING:
    __version__: str

__all__ = [
    "BundleError",
    "InferenceConfig",
    "ModelConfig",
    "ModelSpec",
    "TrainingConfig",
    "__version__",
    "create_torch_model_with_gridsize",
    "detect",
    "errors",
    "load_inference_bundle_torch",
    "load_torch_bundle",
    "params",
    "read_bundle",
    "save_torch_bundle",
]


def __getattr__(name: str) -> Any:
    """Return the version when it is asked for."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ptycho_runtime import __version__

    return __version__
