"""`torch_scaling_metadata.pt`: what PtychoPINN's newer eras store beside the weights, with exactly their field sets.

Two schemas are written: `torch-artifact-portable-v2` for new models of the newest era, `ci-entrypoints-v1` for the one
before it. A model that came with metadata is stored with the fields that it came with, value for value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from ptycho_torch.bundle import BundleRecord
from ptycho_torch.spec import ModelSpec

PORTABLE: Final = "torch-artifact-portable-v2"
ENTRYPOINTS: Final = "ci-entrypoints-v1"
_PORTABLE_SPEC: Final = "torch-model-spec-portable-v2"
COUNTS_PAIR: Final = ("ci_intensity_v2", "count_intensity")
AMPLITUDE_PAIR: Final = ("legacy_v1", "normalized_amplitude")
CONFIGS: Final = ("model_config", "data_config", "training_config", "inference_config")

# Fields in PtychoPINN's order with the values that it gives them unasked.
MODEL_CONFIG: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "mode": "Unsupervised",
        "architecture": "cnn",
        "fno_modes": 12,
        "fno_width": 32,
        "fno_blocks": 4,
        "fno_cnn_blocks": 2,
        "learned_input_channels": 1,
        "fno_input_transform": "none",
        "max_hidden_channels": None,
        "resnet_width": None,
        "spectral_bottleneck_blocks": 6,
        "spectral_bottleneck_modes": 12,
        "spectral_bottleneck_share_weights": True,
        "spectral_bottleneck_gate_init": 0.1,
        "spectral_bottleneck_gate_mode": "shared",
        "generator_output_mode": "real_imag",
        "cnn_output_mode": "amp_phase",
        "use_shared_decoder": False,
        "intensity_scale_trainable": False,
        "intensity_scale": 1.0,
        "max_position_jitter": 10,
        "num_datasets": 1,
        "C_model": 1,
        "n_filters_scale": 2,
        "amp_activation": "silu",
        "batch_norm": False,
        "probe_mask": False,
        "probe_mask_tensor": None,
        "probe_mask_sigma": 1.0,
        "probe_mask_diameter": None,
        "edge_pad": 10,
        "decoder_last_c_outer_fraction": 0.125,
        "decoder_last_amp_channels": 1,
        "use_legacy_decoder_channel_override": False,
        "eca_encoder": False,
        "cbam_encoder": True,
        "cbam_bottleneck": False,
        "cbam_decoder": False,
        "eca_decoder": False,
        "spatial_decoder": False,
        "decoder_spatial_kernel": 7,
        "object_big": True,
        "object_layout": "grouped_patches",
        "training_canvas": "relative_overlap",
        "probe_big": True,
        "offset": 6,
        "C_forward": 1,
        "training_patch_weighting": "central_mask",
        "physics_forward_mode": "amplitude",
        "rect_s1s2_trainable": True,
        "rect_s1s2_init": "ones",
        "amplitude_physics_gain": 1.0,
        "pad_object": True,
        "gaussian_smoothing_sigma": 0.0,
        "loss_function": "Poisson",
        "amp_loss": None,
        "phase_loss": None,
        "amp_loss_coeff": 1.0,
        "phase_loss_coeff": 1.0,
    }
)
DATA_CONFIG: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "nphotons": 100000.0,
        "scale_contract_version": "legacy_v1",
        "measurement_domain": "normalized_amplitude",
        "N": 64,
        "C": 1,
        "K": 6,
        "K_quadrant": 30,
        "n_subsample": 7,
        "subsample_seed": None,
        "grid_size": (1, 1),
        "neighbor_function": "Nearest",
        "min_neighbor_distance": 0.0,
        "max_neighbor_distance": 3.0,
        "scan_pattern": "Isotropic",
        "normalize": "Batch",
        "probe_scale": 4.0,
        "probe_normalize": True,
        "data_scaling": "Parseval",
        "phase_subtraction": True,
        "x_bounds": (0.1, 0.9),
        "y_bounds": (0.1, 0.9),
    }
)
TRAINING_CONFIG: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "training_directories": [],
        "nll": True,
        "device": "cuda",
        "strategy": "ddp",
        "n_devices": 1,
        "framework": "Lightning",
        "orchestrator": "Mlflow",
        "learning_rate": 0.001,
        "epochs": 50,
        "batch_size": 16,
        "epochs_fine_tune": 0,
        "fine_tune_gamma": 0.1,
        "scheduler": "Default",
        "lr_warmup_epochs": 0,
        "lr_min_ratio": 0.1,
        "plateau_factor": 0.5,
        "plateau_patience": 2,
        "plateau_min_lr": 5e-05,
        "plateau_threshold": 0.0,
        "num_workers": 4,
        "accum_steps": 1,
        "gradient_clip_val": None,
        "gradient_clip_algorithm": "norm",
        "optimizer": "adam",
        "momentum": 0.9,
        "weight_decay": 0.0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "log_grad_norm": False,
        "grad_norm_log_freq": 1,
        "stage_1_epochs": 0,
        "stage_2_epochs": 0,
        "stage_3_epochs": 0,
        "physics_weight_schedule": "cosine",
        "stage_3_lr_factor": 0.1,
        "torch_loss_mode": "poisson",
        "torch_mae_pred_l2_match_target": False,
        "experiment_name": "Synthetic_Runs",
        "notes": "",
        "model_name": "PtychoPINNv2",
        "output_dir": "training_outputs",
        "train_data_file": None,
        "test_data_file": None,
        "n_groups": None,
    }
)
INFERENCE_CONFIG: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "middle_trim": 32,
        "batch_size": 1000,
        "experiment_number": 0,
        "pad_eval": True,
        "window": 20,
        "patch_weighting": "probe",
        "varpro_scaling": True,
        "log_patch_stats": False,
        "patch_stats_limit": None,
    }
)

_DEFAULTS: Final = dict(zip(CONFIGS, (MODEL_CONFIG, DATA_CONFIG, TRAINING_CONFIG, INFERENCE_CONFIG), strict=True))
# The newest era's additions; metadata of the one before lacks them.
_LAYOUT_FIELDS: Final = frozenset(
    (
        "object_layout",
        "training_canvas",
        "rect_s1s2_init",
        "amplitude_physics_gain",
        "use_legacy_decoder_channel_override",
    )
)


@dataclass
class Configurations:
    """The four configurations of a model, and what else its metadata holds."""

    model_config: dict[str, Any]
    data_config: dict[str, Any]
    training_config: dict[str, Any]
    inference_config: dict[str, Any]
    ci_statistics: Any = None
    generator_overrides: dict[str, Any] = field(default_factory=dict)
    template: Mapping[str, Any] | None = None
    """The metadata that the model came with."""


def configurations(
    spec: ModelSpec, probe_mask: np.ndarray | None = None, record: BundleRecord | None = None
) -> Configurations:
    """Return the configurations of a model: PtychoPINN's defaults, then what the spec says, then what a bundle stores."""
    made = {name: dict(values) for name, values in _DEFAULTS.items()}
    made["model_config"].update(_model_config(spec, probe_mask))
    made["data_config"].update(_data_config(spec))
    if record is None:
        return Configurations(**made)
    holder = record.metadata or {}
    if record.checkpoint is not None:
        holder = record.checkpoint.get("hyper_parameters") or {}
    stored = {**holder, "model_config": _stored_model_config(holder)}
    for name in CONFIGS:
        if isinstance(stored.get(name), dict):
            made[name].update(stored[name])
    if spec.scaling == "as-reloaded":
        made["model_config"].update(_scale(spec))
    statistics = (record.checkpoint or record.metadata or {}).get("ci_statistics")
    overrides = holder.get("generator_overrides")
    return Configurations(
        **made,
        ci_statistics=statistics,
        generator_overrides=dict(overrides) if isinstance(overrides, dict) else {},
        template=record.metadata,
    )


def spec_metadata(spec: ModelSpec, probe_mask: np.ndarray | None = None, *, portable: bool = False) -> dict[str, Any]:
    """Return the metadata of a new model, with arrays where PtychoPINN has tensors.

    Args:
        spec: of an era that has metadata.
        probe_mask: (N, N) or (modes, N, N), where `spec.probe_mask` is "tensor".
        portable: in the newest schema, whose loader takes exactly its own fields; else in the one before.
    """
    return metadata_of(configurations(spec, probe_mask), spec, portable=portable)


def metadata_of(configs: Configurations, spec: ModelSpec, *, portable: bool) -> dict[str, Any]:
    """Return the metadata of a model with these configurations; the fields are those it came with, if it came with any."""
    if configs.template is not None:
        return _like(configs.template, configs)
    values = {
        name: {key: getattr(configs, name).get(key, _DEFAULTS[name][key]) for key in _DEFAULTS[name]}
        for name in CONFIGS
    }
    parity = {"parity_scale_mode": spec.parity_scale_mode, "parity_fixed_delta": spec.parity_fixed_delta}
    if portable:
        model_config = values.pop("model_config")
        del model_config["object_big"]
        sealed = {
            "schema_version": _PORTABLE_SPEC,
            "model_config": model_config,
            **parity,
            "parity_init_scheme": "default",
        }
        head = {"backend": "pytorch", "schema_version": PORTABLE, "model_spec": sealed}
        return {**head, **values, "ci_statistics": configs.ci_statistics}
    if spec.rules.metadata == "without layout":
        values["model_config"] = {k: v for k, v in values["model_config"].items() if k not in _LAYOUT_FIELDS}
    made = {"schema_version": ENTRYPOINTS, **values, "ci_statistics": configs.ci_statistics}
    return {**made, **(parity if spec.parity_scale_mode != "off" else {})}


def _like(template: Mapping[str, Any], configs: Configurations) -> dict[str, Any]:
    """Return metadata with the fields of a template and the values of the configurations."""
    made: dict[str, Any] = {}
    for key, value in template.items():
        if key in CONFIGS and isinstance(value, dict):
            made[key] = {name: getattr(configs, key)[name] for name in value}
        elif key == "model_spec" and isinstance(value, dict) and isinstance(value.get("model_config"), dict):
            made[key] = {**value, "model_config": {name: configs.model_config[name] for name in value["model_config"]}}
        elif key == "ci_statistics":
            made[key] = configs.ci_statistics
        else:
            made[key] = value
    return made


def _stored_model_config(holder: Mapping[str, Any]) -> Any:
    sealed = holder.get("model_spec")
    return holder.get("model_config") or (sealed.get("model_config") if isinstance(sealed, dict) else None)


def _scale(spec: ModelSpec) -> dict[str, Any]:
    return {"intensity_scale_trainable": spec.intensity_scale_trainable, "intensity_scale": spec.intensity_scale}


def _data_config(spec: ModelSpec) -> dict[str, Any]:
    pair = COUNTS_PAIR if spec.measurement_domain == "counts" else AMPLITUDE_PAIR
    return {
        "scale_contract_version": pair[0],
        "measurement_domain": pair[1],
        "N": spec.N,
        "C": spec.C,
        "grid_size": (spec.gridsize, spec.gridsize),
        "max_neighbor_distance": spec.max_neighbor_distance_px,
        "probe_scale": spec.probe_scale,
    }


def _model_config(spec: ModelSpec, probe_mask: np.ndarray | None) -> dict[str, Any]:
    convolutional = spec.generator in ("cnn", "unet")
    head_channels = 2 * spec.amp_channels if spec.shared_decoder else spec.out_channels
    # What the newest era's rule does not give needs the older one, which takes both numbers from the configuration.
    by_older_rule = convolutional and (
        not spec.border_mask or spec.c_outer != head_channels or spec.amp_channels != spec.out_channels
    )
    older_rule = (
        {
            "decoder_last_c_outer_fraction": spec.c_outer / (32 * spec.n_filters_scale),
            "decoder_last_amp_channels": spec.amp_channels,
        }
        if by_older_rule
        else {}
    )
    return {
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
        **_scale(spec),
        "num_datasets": spec.num_datasets,
        "C_model": spec.C,
        "n_filters_scale": spec.n_filters_scale,
        "amp_activation": spec.amp_activation,
        "batch_norm": spec.batch_norm,
        "probe_mask": spec.probe_mask == "disk",
        "probe_mask_tensor": probe_mask,
        "probe_mask_sigma": spec.probe_mask_sigma_px,
        "probe_mask_diameter": spec.probe_mask_diameter_px,
        **older_rule,
        "use_legacy_decoder_channel_override": by_older_rule and spec.border_mask,
        "cbam_bottleneck": spec.bottleneck_cbam,
        **{f"{kind}_encoder": spec.encoder_attention == kind for kind in ("cbam", "eca")},
        **{f"{kind}_decoder": spec.decoder_attention == kind for kind in ("cbam", "eca", "spatial")},
        "decoder_spatial_kernel": spec.decoder_spatial_kernel,
        "object_big": spec.object_big,
        "object_layout": "grouped_patches" if spec.object_big else "single_patch",
        "training_canvas": "relative_overlap" if spec.object_big else "independent",
        "probe_big": spec.probe_big,
        "C_forward": spec.C,
        "training_patch_weighting": spec.patch_weighting,
        "physics_forward_mode": "rectangular_scaled" if spec.physics == "rectangular" else "amplitude",
        "amplitude_physics_gain": spec.amplitude_physics_gain,
    }
