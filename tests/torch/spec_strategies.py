"""Every `ModelSpec` that the code can build, for hypothesis, and records of bundles that hold no real numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from ptycho_torch.bundle import ROLES, BundleRecord
from ptycho_torch.metadata import spec_metadata
from ptycho_torch.models.module import PtychoModel
from ptycho_torch.spec import ModelSpec

MASK = np.linspace(0.0, 1.0, 64 * 64).reshape(64, 64)
_DTYPES = {torch.float32: np.float32, torch.int64: np.int64, torch.complex64: np.complex64}


@st.composite
def specs(draw: st.DrawFn, eras: tuple[str, ...] = ("A", "A2", "B", "V", "U", "U2", "J0", "J")) -> ModelSpec:
    """Draw a spec whose fields are all such that they act, or are at their defaults."""
    era = draw(st.sampled_from(eras))
    new = era in ("J0", "J")
    networks = {"U": ["unet"], "U2": ["unet"], "V": ["cnn", "unet"]}.get(era, ["cnn"])
    generator = draw(st.sampled_from(["cnn", "cnn", "ffno", "fno", "fno_vanilla", "neuralop_uno"] if new else networks))
    unet = generator == "unet"
    supervised = not unet and era != "V" and draw(st.booleans())
    values: dict[str, Any] = {
        "era": era,
        "generator": generator,
        "N": 128 if generator == "neuralop_uno" else draw(st.sampled_from([64, 128, 256])),
        "gridsize": 1 if generator == "neuralop_uno" else draw(st.integers(1, 3)),
        "supervised": supervised,
        "object_big": draw(st.booleans()),
    }
    channels = values["gridsize"] ** 2 if values["object_big"] else 1
    if generator in ("cnn", "unet"):
        values |= {
            "n_filters_scale": draw(st.sampled_from([1, 2, 4])),
            "amp_activation": "silu" if unet else draw(st.sampled_from(["sigmoid", "silu"])),
            "probe_big": draw(st.booleans()),
            "batch_norm": draw(st.booleans()),
            "border_mask": era == "J",
            "c_outer": draw(st.sampled_from([1, 2, 4, 8])),
            "amp_channels": 1,
        }
        if era == "J" and draw(st.integers(0, 3)) > 0:  # else the legacy override of the channels
            values |= {"c_outer": channels, "amp_channels": channels}
        if (unet or new) and draw(st.booleans()):
            outs = 1 if unet or era == "J0" else channels
            values |= {"shared_decoder": True, "amp_channels": outs}
            if era == "J":
                values["c_outer"] = 2 * outs
        if era != "A":
            values["encoder_attention"] = draw(st.sampled_from(["none", "cbam", "eca"]))
            values["bottleneck_cbam"] = draw(st.booleans())
            values["decoder_attention"] = draw(st.sampled_from(["none", "cbam", "eca", "spatial"]))
            if values["decoder_attention"] == "spatial":
                values["decoder_spatial_kernel"] = draw(st.sampled_from([3, 5, 7]))
        if unet or era == "V":
            values["output_mode"] = "real_imag"
        elif new and not supervised:
            values["output_mode"] = draw(st.sampled_from(["amp_phase", "real_imag"]))
    elif generator == "neuralop_uno":
        values["output_mode"] = "real_imag"
    else:
        values |= {
            "fno_width": draw(st.sampled_from([2, 4])),
            "fno_modes": draw(st.integers(2, 8)),
            "fno_blocks": draw(st.integers(1, 3)),
            "output_mode": draw(st.sampled_from(["amp_phase", "real_imag", "amp_phase_logits"])),
            "input_transform": draw(st.sampled_from(["none", "sqrt", "log1p", "instancenorm"])),
            "learned_input_channels": draw(st.integers(1, 2)),
        }
        if generator != "fno_vanilla":
            values["fno_cnn_blocks"] = draw(st.integers(0, 2))
    if not supervised:
        rectangular = new and values["output_mode"] == "real_imag" and draw(st.booleans())
        weighting = (
            ["central_mask", "probe", "uniform"] if new else ["probe", "uniform"] if era == "V" else ["central_mask"]
        )
        values |= {
            "physics": "rectangular" if unet or era == "V" or rectangular else "amplitude",
            "patch_weighting": "probe" if era in ("U", "U2") else draw(st.sampled_from(weighting)),
            "max_neighbor_distance_px": draw(st.sampled_from([3.0, 5.5])),
            "probe_scale": draw(st.sampled_from([1.0, 4.0, 2.5])),
            "num_datasets": 1 if era == "A" else draw(st.sampled_from([1, 3])),
        }
        if era in ("A", "A2", "U", "U2", "V"):
            values["max_position_jitter_px"] = draw(st.sampled_from([10, 10, 4]))
        if new:
            values["probe_mask"] = draw(st.sampled_from(["none", "disk", "tensor"])) if values["N"] == 64 else "none"
            if values["probe_mask"] == "disk":
                values["probe_mask_sigma_px"] = draw(st.sampled_from([1.0, 0.0, 2.5]))
                values["probe_mask_diameter_px"] = draw(st.sampled_from([None, 40.0]))
        if era == "J":
            values["amplitude_physics_gain"] = draw(st.sampled_from([1.0, 2.5]))
            values["parity_scale_mode"] = draw(st.sampled_from(["off", "tied", "fixed", "input", "output"]))
    if values.get("physics") == "rectangular" and new:
        values["measurement_domain"] = draw(st.sampled_from(["amplitude", "counts"]))
        if values["measurement_domain"] == "counts":  # which PtychoPINN never trains with a gain
            values.pop("amplitude_physics_gain", None)
    if era not in ("A", "U2", "V") and values.get("parity_scale_mode", "off") == "off" and draw(st.integers(0, 4)) == 0:
        values |= {"intensity_scale_trainable": True, "intensity_scale": draw(st.sampled_from([1.0, 31.5]))}
    return ModelSpec(**values)


def shapes_only(spec: ModelSpec) -> dict[str, np.ndarray]:
    """Return a state_dict with a spec's names and shapes and no memory behind it."""
    with torch.device("meta"):
        model = PtychoModel(spec, MASK if spec.probe_mask == "tensor" else None)
    return {k: np.broadcast_to(np.zeros((), _DTYPES[v.dtype]), tuple(v.shape)) for k, v in model.state_dict().items()}


def record(spec: ModelSpec, **values: Any) -> BundleRecord:
    """Return what reading a bundle of this architecture would give; `params` name N and gridsize unless given."""
    weights = shapes_only(spec)
    params = values.pop("params", {"N": spec.N, "gridsize": spec.gridsize})
    return BundleRecord(
        **{
            "path": Path("drawn.zip"),
            "kind": "zip",
            "sha256": "",
            "members_sha256": "",
            "members": (),
            "manifest": {},
            "params": dict.fromkeys(ROLES, params),
            "weights": dict.fromkeys(ROLES, weights),
            **values,
        }
    )


# The fields of an A checkpoint's model_config that say something about the architecture.
def _first_model_config(spec: ModelSpec) -> dict[str, Any]:
    return {
        "mode": "Supervised" if spec.supervised else "Unsupervised",
        "intensity_scale_trainable": spec.intensity_scale_trainable,
        "intensity_scale": spec.intensity_scale,
        "max_position_jitter": spec.max_position_jitter_px,
        "C_model": spec.C,
        "C_forward": spec.C,
        "n_filters_scale": spec.n_filters_scale,
        "amp_activation": spec.amp_activation,
        "batch_norm": spec.batch_norm,
        "probe_mask": None,
        "decoder_last_c_outer_fraction": 0.125,
        "decoder_last_amp_channels": 1,
        "cbam_encoder": spec.encoder_attention == "cbam",
        "eca_encoder": spec.encoder_attention == "eca",
        "cbam_bottleneck": spec.bottleneck_cbam,
        "cbam_decoder": spec.decoder_attention == "cbam",
        "eca_decoder": spec.decoder_attention == "eca",
        "spatial_decoder": spec.decoder_attention == "spatial",
        "decoder_spatial_kernel": spec.decoder_spatial_kernel,
        "object_big": spec.object_big,
        "probe_big": spec.probe_big,
        "edge_pad": 10,
        "offset": 6,
    }


def hyper_parameters(spec: ModelSpec) -> dict[str, Any]:
    """Return what a Lightning checkpoint of the spec's era says of itself, as plain values and numpy arrays."""
    if spec.era in ("J0", "J"):
        mask = MASK if spec.probe_mask == "tensor" else None
        metadata = spec_metadata(spec, None)
        config = metadata["model_config"] | {"probe_mask_tensor": mask, "max_position_jitter": 10}
        told = {key: metadata[key] for key in ("model_config", "data_config")}
        extra = {"parity_scale_mode": spec.parity_scale_mode, "parity_fixed_delta": spec.parity_fixed_delta}
        extra["generator_overrides"] = {}
        return {
            **told,
            "model_config": config,
            "generator_output": spec.output_mode,
            **(extra if spec.era == "J" else {}),
        }
    config = _first_model_config(spec)
    if spec.era != "A":
        config["num_datasets"] = spec.num_datasets
    if spec.era == "B":
        config |= {"architecture": "cnn", "fno_modes": 12, "generator_output_mode": "real_imag"}
    if spec.era in ("U", "U2", "V"):
        config |= {"physics_forward_mode": "rectangular_scaled", "use_shared_decoder": spec.shared_decoder}
    if spec.era == "V":
        config["training_patch_weighting"] = spec.patch_weighting
    data = {
        "N": spec.N,
        "C": spec.C,
        "grid_size": (spec.gridsize, spec.gridsize),
        "max_neighbor_distance": spec.max_neighbor_distance_px,
        "probe_scale": spec.probe_scale,
    }
    told = {"model_config": config, "data_config": data, "training_config": {}, "inference_config": {}}
    return told | ({"generator_output": "amp_phase"} if spec.era == "B" else {})


# Keys of params.dill by which releases are told apart.
RELEASE_KEYS: dict[str, dict[str, Any]] = {
    "A": {}, "A2": {}, "B": {"architecture": "cnn"}, "V": {"architecture": "cnn"}, "U": {"architecture": "cnn"}, "U2": {"architecture": "cnn"},
    "J0": {"architecture": "cnn", "learned_input_channels": 1},
    "J": {"architecture": "cnn", "learned_input_channels": 1, "object_layout": "grouped_patches"},
}  # fmt: skip


def release_params(spec: ModelSpec) -> dict[str, Any]:
    """Return the parameters of a bundle of the spec's era that decide anything, under the legacy names."""
    return {
        "N": spec.N,
        "gridsize": spec.gridsize,
        "n_filters_scale": spec.n_filters_scale,
        "object.big": spec.object_big,
        "probe.big": spec.probe_big,
        "amp_activation": spec.amp_activation,
        "model_type": "supervised" if spec.supervised else "pinn",
        **RELEASE_KEYS[spec.era],
    }
