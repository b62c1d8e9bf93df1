"""What the members of a bundle are called: PtychoPINN's own, and those that an export adds."""

from __future__ import annotations

from typing import Final

from ptycho_runtime import contract

MANIFEST: Final = "manifest.dill"
METADATA: Final = "torch_scaling_metadata.pt"
# Written by this project's save_torch_bundle; PtychoPINN passes over it.
ARCHITECTURE: Final = "architecture.json"
ROLES: Final = ("autoencoder", "diffraction_to_obj")
# What a training run leaves in place of one role's weights.
SENTINEL_KEY: Final = "_sentinel"
# Parameters without which nothing can be rebuilt.
REQUIRED_PARAMS: Final = ("N", "gridsize")
BUNDLE_VERSION: Final = "2.0-pytorch"

_ADDED = (contract.EXPORTS_JSON, contract.GOLDEN_NPZ, contract.VARIANT_NPZ)
_ADDED_FILES = (contract.ONNX_FILE, contract.TORCHSCRIPT_FILE, contract.INT8_FILE, contract.FLOAT16_FILE)


def weights_member(role: str) -> str:
    """Return the member that holds a role's weights."""
    return f"{role}/model.pth"


def params_member(role: str) -> str:
    """Return the member that holds a role's parameters."""
    return f"{role}/params.dill"


def is_own_member(name: str) -> bool:
    """Say whether an export added this member (so that it is not PtychoPINN's)."""
    return name in _ADDED or name.endswith(tuple(f"/{file}" for file in _ADDED_FILES))
