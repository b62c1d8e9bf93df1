"""Every `ModelSpec` that the code can build, for hypothesis, and records of bundles that hold no real numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from ptycho_torch.bundle import ROLES, BundleRecord
from ptycho_torch.models.module import PtychoModel
from ptycho_torch.spec import ModelSpec

MASK = np.linspace(0.0, 1.0, 64 * 64).reshape(64, 64)
_DTYPES = {torch.float32: np.float32, torch.int64: np.int64, torch.complex64: np.complex64}


@st.composite
def specs(draw: st.DrawFn, eras: tuple[str, ...] = ("A", "A2", "B", "V", "U", "U2", "J0", "J")) -> ModelSpec:
    """Draw a spec whose fields are all such that they act, or are at their defaults."""
    era = draw(st.sampled_from(eras))
    new = era in ("J0", "J")
    unet = era in ("U", "U2")
    generator = (
        "unet" if unet else draw(st.sampled_from(["cnn", "cnn", "ffno", "fno", "fno_vanilla"] if new else ["cnn"]))
    )
    supervised = not unet and era != "V" and draw(st.booleans())
    values: dict[str, Any] = {
        "era": era,
        "generator": generator,
        "N": draw(st.sampled_from([64, 128, 256])),
        "gridsize": draw(st.integers(1, 3)),
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
            "c_outer": channels if era == "J" else draw(st.sampled_from([1, 2, 4, 8])),
            "amp_channels": channels if era == "J" else 1,
        }
        if era != "A":
            values["encoder_attention"] = draw(st.sampled_from(["none", "cbam", "eca"]))
            values["bottleneck_cbam"] = draw(st.booleans())
            values["decoder_attention"] = draw(st.sampled_from(["none", "cbam", "eca", "spatial"]))
            if values["decoder_attention"] == "spatial":
                values["decoder_spatial_kernel"] = draw(st.sampled_from([3, 5, 7]))
        if unet:
            values["output_mode"] = "real_imag"
        elif new and not supervised:
            values["output_mode"] = draw(st.sampled_from(["amp_phase", "real_imag"]))
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
        weighting = (
            ["central_mask", "probe", "uniform"] if new else ["probe", "uniform"] if era == "V" else ["central_mask"]
        )
        values |= {
            "physics": "rectangular"
            if unet or era == "V"
            else draw(st.sampled_from(["amplitude", "rectangular"] if new else ["amplitude"])),
            "patch_weighting": "probe" if unet else draw(st.sampled_from(weighting)),
            "max_neighbor_distance_px": draw(st.sampled_from([3.0, 5.5])),
            "probe_scale": draw(st.sampled_from([1.0, 4.0, 2.5])),
            "num_datasets": 1 if era == "A" else draw(st.sampled_from([1, 3])),
        }
        if new:
            values["probe_mask"] = draw(st.sampled_from(["none", "disk", "tensor"])) if values["N"] == 64 else "none"
            values["measurement_domain"] = draw(st.sampled_from(["amplitude", "counts"]))
        if era == "J":
            values["amplitude_physics_gain"] = draw(st.sampled_from([1.0, 2.5]))
            values["parity_scale_mode"] = draw(st.sampled_from(["off", "tied", "fixed", "input", "output"]))
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
