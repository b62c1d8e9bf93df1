"""`load_inference_bundle_torch`, where PtychoPINN's inference scripts look for it."""

from ptycho_torch.model_manager import load_inference_bundle_torch

__all__ = ["load_inference_bundle_torch"]
