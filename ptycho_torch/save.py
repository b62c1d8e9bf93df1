"""Bundles as PtychoPINN writes them: members, parameters, metadata of the model's era."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_torch import params as params_module
from ptycho_torch.bundle.layout import (
    ARCHITECTURE,
    BUNDLE_VERSION,
    MANIFEST,
    METADATA,
    ROLES,
    params_member,
    weights_member,
)
from ptycho_torch.bundle.write import write_zip
from ptycho_torch.errors import ConfigurationError, MissingModelsError
from ptycho_torch.metadata import PORTABLE, metadata_of
from ptycho_torch.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn


def save_bundle(
    models: Mapping[str, nn.Module | Mapping[str, Any]],
    base_path: str | Path,
    config: Any,
    intensity_scale: float | None,
) -> Path:
    """Write a bundle; see `ptycho_torch.model_manager.save_torch_bundle`."""
    import torch

    absent = [role for role in ROLES if role not in models]
    if absent:
        raise MissingModelsError(f"models lack {', '.join(absent)}; a bundle holds {' and '.join(ROLES)}")
    values = {key: value for key, value in params_module.to_legacy(config).items() if value is not None}
    scale = intensity_scale if intensity_scale is not None else params_module.cfg.get("intensity_scale", 1.0)
    values.update(intensity_scale=float(scale), _version=BUNDLE_VERSION)
    described = next((model for model in models.values() if isinstance(getattr(model, "spec", None), ModelSpec)), None)
    metadata = None if described is None else _metadata(described)
    members = [(MANIFEST, pickle.dumps(_manifest(list(models), metadata), protocol=4))]
    for role, model in models.items():
        state = model.state_dict() if isinstance(model, torch.nn.Module) else model
        members.append((weights_member(role), _saved(state)))
        members.append((params_member(role), pickle.dumps(values, protocol=4)))
    if metadata is not None:
        members.append((METADATA, _saved(_with_tensors(metadata))))
    if described is not None:
        members.append((ARCHITECTURE, described.spec.dumps().encode()))  # type: ignore[union-attr,operator]
    target = Path(base_path)
    target = target if target.suffix == ".zip" else target.with_name(target.name + ".zip")
    write_zip(target, members)
    return target


def _manifest(models: list[str], metadata: dict[str, Any] | None) -> dict[str, Any]:
    manifest: dict[str, Any] = {"models": models, "version": BUNDLE_VERSION, "backend": "pytorch"}
    if metadata is not None and metadata["schema_version"] == PORTABLE:
        manifest["artifact_schema_version"] = PORTABLE
    return manifest


def _metadata(model: Any) -> dict[str, Any] | None:
    """Return what PtychoPINN's later eras store beside the weights; None where the model's era stores nothing."""
    spec: ModelSpec = model.spec
    if spec.rules.metadata == "none":
        if spec.probe_mask == "tensor":
            raise ConfigurationError(
                f"a model of era {spec.era} with a probe mask of its own; bundles of that era have no place for the mask, "
                "only checkpoints have"
            )
        return None
    return metadata_of(model.configurations(), spec, portable=spec.rules.metadata == "with layout")


def _saved(value: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _with_tensors(value: Any) -> Any:
    """Return a value with PyTorch tensors where it has arrays, which is how PtychoPINN stores them."""
    import torch

    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    if isinstance(value, dict):
        return {key: _with_tensors(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_tensors(item) for item in value)
    return value
