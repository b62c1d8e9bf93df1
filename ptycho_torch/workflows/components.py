"""`load_inference_bundle_torch`, as PtychoPINN's inference scripts call it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_torch.model_manager import load_torch_bundle

if TYPE_CHECKING:
    from ptycho_torch.models.module import PtychoModel


def load_inference_bundle_torch(
    bundle_dir: str | Path, model_name: str = "diffraction_to_obj"
) -> tuple[dict[str, PtychoModel], dict[str, Any]]:
    """Load a training run's bundle for inference.

    Args:
        bundle_dir: the run's directory holding `wts.h5.zip`, or anything `load_torch_bundle` takes.
        model_name: the model to return.

    Returns:
        ({model_name: module in eval mode}, the bundle's parameters); raises as `load_torch_bundle` does.
    """
    return load_torch_bundle(bundle_dir, model_name)
