"""The names users of PtychoPINN know: load, save and create models."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ptycho_runtime.errors import TorchMissingError
from ptycho_torch import params as params_module
from ptycho_torch.architecture.detect import Architecture, Detection, detect, role_weights
from ptycho_torch.bundle import ARCHITECTURE, ROLES, BundleRecord, StateDict, read_bundle
from ptycho_torch.errors import BundleError, ConfigurationError, MissingModelsError, WeightMismatchError
from ptycho_torch.spec import ModelSpec

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from ptycho_torch.models.module import PtychoModel

BUNDLE_VERSION = "2.0-pytorch"
Role = Literal["autoencoder", "diffraction_to_obj"]


def require_torch(what: str) -> None:
    """Raise `TorchMissingError` with the install command where PyTorch is absent."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise TorchMissingError(
            f"{what} needs PyTorch, which is not installed: pip install 'ptycho-export[export]'"
        ) from error


def load_torch_bundle(
    base_path: str | Path,
    model_name: str | None = None,
    *,
    architecture: Architecture | None = None,
    params_cfg: Mapping[str, Any] | str | Path | None = None,
) -> tuple[dict[str, PtychoModel], dict[str, Any]]:
    """Load both models of a bundle, weights strictly, and apply its parameters to `params.cfg`.

    Args:
        base_path: PtychoPINN's base path (`{base_path}.zip` is read), a zip, an unpacked folder, a run directory or a `.ckpt`.
        model_name: return this model alone in the dictionary; both by default.
        architecture: fields that settle what the bundle leaves open (a dictionary, a `ModelSpec`, or a JSON file).
        params_cfg: parameters for what a checkpoint lacks (a dictionary or a JSON file).

    Returns:
        ({name: module in eval mode, float32, on the CPU}, the bundle's parameters).

    Raises:
        FileNotFoundError: nothing is there.
        BundleError: the bundle is refused; `params.cfg` is then exactly as it was.
        TorchMissingError: PyTorch is not installed.
    """
    require_torch("load_torch_bundle")
    if model_name is not None and model_name not in ROLES:
        raise MissingModelsError(f"no model is called {model_name!r}; a bundle holds {' and '.join(ROLES)}")
    record = with_params(read_bundle(base_path), params_cfg)
    wanted = ROLES if model_name is None else (model_name,)
    with params_module.restored_on_failure() as cfg:
        detections = {role: detect(record, role, architecture) for role in wanted}
        refusals = [
            d.autoencoder_refusal for role, d in detections.items() if role == "autoencoder" and d.autoencoder_refusal
        ]
        if refusals:
            raise refusals[0]
        values = bundle_params(record, detections[wanted[0]])
        params_module.update_legacy_dict(cfg, values)
        models = build_models(record, detections)
    return models, values


def with_params(record: BundleRecord, given: Mapping[str, Any] | str | Path | None) -> BundleRecord:
    """Return the record with parameters for what a checkpoint lacks; a bundle's own parameters win nothing here.

    Raises `ConfigurationError` for a file that is no JSON object, or for a bundle that has parameters already.
    """
    if given is None:
        return record
    import dataclasses
    import json

    if isinstance(given, Mapping):
        values = dict(given)
    else:
        try:
            values = json.loads(Path(given).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{given}: cannot be read as JSON parameters ({error})") from error
        if not isinstance(values, dict):
            raise ConfigurationError(f"{given}: holds {type(values).__name__}; expected an object of parameters")
    if record.kind != "ckpt":
        raise ConfigurationError(f"{record.path.name}: has params of its own; --params is for checkpoints")
    return dataclasses.replace(record, params=dict.fromkeys(ROLES, params_module.to_legacy(values)))


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

    with torch.device("meta"):
        model = PtychoModel(detection.spec, detection.probe_mask)
    if detection.spec.parity_scale_mode != "off":
        model.log_scale_delta = torch.nn.Parameter(torch.tensor(detection.spec.parity_fixed_delta, device="cpu"))
    load_weights(model, role_weights(record, role), f"{record.path.name}: {role}", copy=copy)
    return model.eval().requires_grad_(False)


def load_weights(model: PtychoModel, weights: StateDict, where: str, *, copy: bool = True) -> None:
    """Put a state_dict into a module: every key once, every shape and dtype as built, all aliases of a tensor equal."""
    import warnings

    import numpy as np
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


def create_torch_model_with_gridsize(
    gridsize: int, N: int, params_dict: Mapping[str, Any] | None = None
) -> PtychoModel:
    """Return a freshly initialised model of the current era for a group size and a pattern size (px).

    Args:
        gridsize: patterns along each side of a group; C = gridsize².
        N: side of a pattern, 64, 128 or 256 px.
        params_dict: legacy parameters or `ModelSpec` fields that differ from the defaults.

    Raises:
        ConfigurationError: sizes or values that PtychoPINN does not have.
        TorchMissingError: PyTorch is not installed.
    """
    require_torch("create_torch_model_with_gridsize")
    from ptycho_torch.models.module import PtychoModel

    return PtychoModel(spec_from_params(gridsize, N, params_dict or {})).eval()


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


def save_torch_bundle(
    models: Mapping[str, nn.Module | Mapping[str, Any]],
    base_path: str | Path,
    config: Any,
    intensity_scale: float | None = None,
) -> Path:
    """Write models and their configuration as `{base_path}.zip`, in PtychoPINN's layout.

    A module built here is described in `architecture.json` too, for what params and weights do not say.

    Args:
        models: `autoencoder` and `diffraction_to_obj`: modules, state_dicts or `{"_sentinel": name}`.
        base_path: where to write, without `.zip`; parent folders are made.
        config: a configuration dataclass or legacy dictionary; values that are None are left out.
        intensity_scale: stored with the parameters; `params.cfg`'s, else 1.0, where None.

    Returns:
        The path written.

    Raises:
        MissingModelsError: one of the two models is absent.
        ConfigurationError: a probe mask that the era's bundles cannot hold.
        OutputError: the folder cannot be written; an older file stays as it was.
        TorchMissingError: PyTorch is not installed.
    """
    require_torch("save_torch_bundle")
    import torch

    from ptycho_torch.bundle.write import write_zip

    absent = [role for role in ROLES if role not in models]
    if absent:
        raise MissingModelsError(f"models lack {', '.join(absent)}; a bundle holds {' and '.join(ROLES)}")
    values = {key: value for key, value in params_module.to_legacy(config).items() if value is not None}
    scale = intensity_scale if intensity_scale is not None else params_module.cfg.get("intensity_scale", 1.0)
    values.update(intensity_scale=float(scale), _version=BUNDLE_VERSION)
    members = [("manifest.dill", pickle.dumps({"models": list(models), "version": BUNDLE_VERSION}, protocol=4))]
    metadata = None
    for role, model in models.items():
        state = model.state_dict() if isinstance(model, torch.nn.Module) else model
        metadata = metadata or _metadata(model)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        members.append((f"{role}/model.pth", buffer.getvalue()))
        members.append((f"{role}/params.dill", pickle.dumps(values, protocol=4)))
    if metadata is not None:
        buffer = io.BytesIO()
        torch.save(metadata, buffer)
        members.append(("torch_scaling_metadata.pt", buffer.getvalue()))
    for spec in (getattr(model, "spec", None) for model in models.values()):
        if isinstance(spec, ModelSpec):
            members.append((ARCHITECTURE, spec.dumps().encode()))
            break
    target = Path(base_path)
    target = target if target.suffix == ".zip" else target.with_name(target.name + ".zip")
    write_zip(target, members)
    return target


def _metadata(model: Any) -> dict[str, Any] | None:
    """Return what PtychoPINN's later eras store beside the weights, for the fields that params.dill cannot hold."""
    spec = getattr(model, "spec", None)
    if not isinstance(spec, ModelSpec):
        return None
    mask = model.model.forward_model.probe_mask.cpu().numpy() if spec.probe_mask == "tensor" else None
    if spec.rules.metadata == "none":
        if mask is not None:
            raise ConfigurationError(
                f"a model of era {spec.era} with a probe mask of its own; bundles of that era have no place for the mask, "
                "only checkpoints have"
            )
        return None
    return spec_metadata(spec, mask)


def spec_metadata(spec: ModelSpec, probe_mask: np.ndarray | None = None) -> dict[str, Any]:
    """Return `torch_scaling_metadata.pt`'s content (schema ci-entrypoints-v1) for a spec of era J0 or J."""
    import torch

    newer = {
        "use_legacy_decoder_channel_override": False,
        "object_layout": "grouped_patches" if spec.object_big else "single_patch",
        "training_canvas": "relative_overlap" if spec.object_big else "independent",
        "rect_s1s2_init": "ones",
        "amplitude_physics_gain": spec.amplitude_physics_gain,
    }
    model_config: dict[str, Any] = {
        "mode": "Supervised" if spec.supervised else "Unsupervised",
        "architecture": spec.generator,
        "learned_input_channels": spec.learned_input_channels,
        "fno_modes": spec.fno_modes,
        "fno_width": spec.fno_width,
        "fno_blocks": spec.fno_blocks,
        "fno_cnn_blocks": spec.fno_cnn_blocks,
        "fno_input_transform": spec.input_transform,
        "generator_output_mode": spec.output_mode if spec.generator != "cnn" else "real_imag",
        "cnn_output_mode": spec.output_mode if spec.generator == "cnn" else "amp_phase",
        "use_shared_decoder": spec.shared_decoder,
        "intensity_scale_trainable": spec.intensity_scale_trainable,
        "intensity_scale": spec.intensity_scale,
        "num_datasets": spec.num_datasets,
        "C_model": spec.C,
        "n_filters_scale": spec.n_filters_scale,
        "amp_activation": spec.amp_activation,
        "batch_norm": spec.batch_norm,
        "probe_mask": spec.probe_mask == "disk",
        "probe_mask_tensor": None if probe_mask is None else torch.as_tensor(probe_mask),
        "probe_mask_sigma": 1.0,
        "probe_mask_diameter": None,
        "cbam_bottleneck": spec.bottleneck_cbam,
        **{f"{kind}_encoder": spec.encoder_attention == kind for kind in ("cbam", "eca")},
        **{f"{kind}_decoder": spec.decoder_attention == kind for kind in ("cbam", "eca", "spatial")},
        "decoder_spatial_kernel": spec.decoder_spatial_kernel,
        "object_big": spec.object_big,
        "probe_big": spec.probe_big,
        "C_forward": spec.C,
        "training_patch_weighting": spec.patch_weighting,
        "physics_forward_mode": "rectangular_scaled" if spec.physics == "rectangular" else "amplitude",
        **(newer if spec.rules.metadata == "with layout" else {}),
    }
    return {
        "schema_version": "ci-entrypoints-v1",
        "data_config": {
            "N": spec.N,
            "C": spec.C,
            "grid_size": (spec.gridsize, spec.gridsize),
            "max_neighbor_distance": spec.max_neighbor_distance_px,
            "probe_scale": spec.probe_scale,
            "measurement_domain": "photon_counts" if spec.measurement_domain == "counts" else "normalized_amplitude",
        },
        "model_config": model_config,
        "training_config": {},
        "inference_config": {},
        "ci_statistics": None,
        **(
            {"parity_scale_mode": spec.parity_scale_mode, "parity_fixed_delta": spec.parity_fixed_delta}
            if spec.parity_scale_mode != "off"
            else {}
        ),
    }


__all__ = [
    "BundleError",
    "build_model",
    "build_models",
    "bundle_params",
    "create_torch_model_with_gridsize",
    "load_torch_bundle",
    "load_weights",
    "save_torch_bundle",
    "spec_from_params",
    "spec_metadata",
    "with_params",
]
