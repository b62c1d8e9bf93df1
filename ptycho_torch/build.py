"""From a record and its detected architecture to modules with their weights, and to the parameters that go with them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_runtime.errors import TorchMissingError
from ptycho_torch import params as params_module
from ptycho_torch.architecture import Detection, role_weights
from ptycho_torch.bundle import ROLES, BundleRecord, StateDict
from ptycho_torch.bundle.layout import BUNDLE_VERSION
from ptycho_torch.errors import ConfigurationError, WeightMismatchError
from ptycho_torch.json_file import read_json_object
from ptycho_torch.metadata import configurations
from ptycho_torch.spec import ModelSpec

if TYPE_CHECKING:
    import torch

    from ptycho_torch.models.module import PtychoModel


def require_torch(what: str) -> None:
    """Raise `TorchMissingError` with the install command where PyTorch is absent."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise TorchMissingError(
            f"{what} needs PyTorch, which is not installed: pip install 'ptycho-export[export]'"
        ) from error


def with_params(record: BundleRecord, given: Mapping[str, Any] | str | Path | None) -> BundleRecord:
    """Return the record with parameters for what a checkpoint lacks; a bundle's own parameters win nothing here.

    Raises `ConfigurationError` for a file that is no JSON object, or for a bundle that has parameters already.
    """
    if given is None:
        return record
    values = dict(given) if isinstance(given, Mapping) else read_json_object(given, "parameters")
    if record.kind != "ckpt":
        raise ConfigurationError(f"{record.path.name}: has params of its own; --params is for checkpoints")
    return replace(record, params=dict.fromkeys(ROLES, params_module.to_legacy(values)))


def bundle_params(record: BundleRecord, detection: Detection) -> dict[str, Any]:
    """Return the parameters a bundle carries; a checkpoint's are completed from its architecture."""
    values = dict(record.params.get("diffraction_to_obj") or {})
    if record.kind == "ckpt":
        spec = detection.spec
        derived = {
            "N": spec.N,
            "gridsize": spec.gridsize,
            "n_filters_scale": spec.n_filters_scale,
            "model_type": "supervised" if spec.supervised else "pinn",
            "amp_activation": spec.amp_activation,
            "object.big": spec.object_big,
            "probe.big": spec.probe_big,
            "_version": BUNDLE_VERSION,
        }
        values = {**derived, **values}
    return values


def build_models(record: BundleRecord, detections: Mapping[str, Detection]) -> dict[str, PtychoModel]:
    """Return a module for each role; raises as `build_model` does. The record's weights become the modules'.

    Where both roles have the same weights (a sentinel stands for one), the second module gets a copy, so that the modules
    stay independent and no third copy is ever in memory.
    """
    taken: set[int] = set()
    models = {}
    for role, detection in detections.items():
        identity = id(role_weights(record, role))
        models[role] = build_model(record, role, detection, copy=identity in taken)
        taken.add(identity)
    return models


def build_model(record: BundleRecord, role: str, detection: Detection, *, copy: bool = True) -> PtychoModel:
    """Return a role's module with its weights loaded strictly, in eval mode; the random generators stay untouched.

    Args:
        record: what `read_bundle` returned.
        role: `diffraction_to_obj` or `autoencoder`.
        detection: the architecture of its weights.
        copy: copy the numbers; without, they are the record's own, which must then not be used again.

    Raises:
        WeightMismatchError: names the first keys that do not fit.
    """
    import torch

    from ptycho_torch.models.module import PtychoModel

    configs = configurations(detection.spec, detection.probe_mask, record)
    with torch.device("meta"):
        model = PtychoModel(detection.spec, detection.probe_mask, configs)
    if detection.spec.parity_scale_mode != "off":
        model.log_scale_delta = torch.nn.Parameter(torch.tensor(detection.spec.parity_fixed_delta, device="cpu"))
    load_weights(model, role_weights(record, role), f"{record.path.name}: {role}", copy=copy)
    return model.eval().requires_grad_(False)


def load_weights(model: PtychoModel, weights: StateDict, where: str, *, copy: bool = True) -> None:
    """Put a state_dict into a module: every key once, every shape and dtype as built, all aliases of a tensor equal."""
    import torch

    expected = model.state_dict(keep_vars=True)
    optional = {"log_scale_delta"} if model.spec.parity_scale_mode == "fixed" else set()
    missing = [key for key in expected if key not in weights and key not in optional]
    unexpected = [key for key in weights if key not in expected]
    problems = [f"missing {key}" for key in missing] + [f"unexpected {key}" for key in unexpected]
    aliases: dict[int, str] = {}
    for key, value in weights.items():
        if key not in expected:
            continue
        built = expected[key]
        wanted = str(built.dtype).removeprefix("torch.")
        if tuple(built.shape) != value.shape:
            problems.append(f"{key} has shape {value.shape}, expected {tuple(built.shape)}")
        elif wanted != value.dtype.name:
            problems.append(f"{key} has dtype {value.dtype.name}, expected {wanted}")
        first = aliases.setdefault(id(built), key)
        if first != key and not np.array_equal(weights[first], value):
            problems.append(f"{key} differs from {first}, which is the same tensor")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise WeightMismatchError(f"{where}: weights do not fit the architecture: {'; '.join(problems[:5])}{more}")
    made: dict[int, torch.Tensor] = {}
    tensors = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody else will read it
        for key, value in weights.items():
            if id(expected[key]) not in made:
                made[id(expected[key])] = torch.from_numpy(
                    np.array(value) if copy or not value.flags.c_contiguous else value
                )
            tensors[key] = made[id(expected[key])]
    model.load_state_dict(tensors, strict=not optional, assign=True)


def spec_from_params(gridsize: int, N: int, values: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a new model of the current era for legacy parameters."""
    legacy = params_module.to_legacy(values)
    model = {name: values[name] for name in ModelSpec.__dataclass_fields__ if name in values}
    count = gridsize**2
    if "object.big" in legacy and legacy["object.big"] is not None:
        model["object_big"] = bool(legacy["object.big"])
    if "probe.big" in legacy:
        model["probe_big"] = bool(legacy["probe.big"])
    if "amp_activation" in legacy:
        model["amp_activation"] = "sigmoid" if legacy["amp_activation"] == "sigmoid" else "silu"
    model["supervised"] = legacy.get("model_type") == "supervised" or bool(model.get("supervised", False))
    out = count if model.get("object_big", True) else 1
    base: dict[str, Any] = {
        "era": "J",
        "generator": "cnn",
        "encoder_attention": "cbam",
        "border_mask": True,
        "amp_channels": out,
        "c_outer": out,
        "probe_scale": 4.0,
    }
    return ModelSpec(**{**base, **model, "N": N, "gridsize": gridsize})
