"""The fields of the spec that decide the physics around the network, the scaling, and what the data are."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptycho_torch.architecture.evidence import Evidence, Part, real, settle, whole
from ptycho_torch.architecture.weights import Settled
from ptycho_torch.bundle import ARCHITECTURE
from ptycho_torch.eras import ERAS, NEWEST, Era
from ptycho_torch.errors import (
    AmbiguousArchitectureError,
    BundleError,
    ConfigurationError,
    EvidenceConflictError,
    UnsupportedArchitectureError,
)

# What data_config says of the data, as a pair (scale_contract_version, measurement_domain).
_COUNTS_PAIR = ("ci_intensity_v2", "count_intensity")
_AMPLITUDE_PAIR = ("legacy_v1", "normalized_amplitude")


def physics(evidence: Evidence, era: Settled, network: Part) -> Part:
    """Settle detector model, reassembly, probe and datasets.

    Args:
        evidence: what speaks.
        era: as it was settled.
        network: the network's fields, as they were settled.
    """
    row = ERAS[era.value]
    config, data = evidence.config, evidence.data

    def one(name: str, *candidates: Settled | None) -> Part:
        return settle(evidence, name, *candidates)

    gain = Settled(1.0, "assumed" if era.value == NEWEST else "weights")
    datasets = config("num_datasets", whole) if row.physics_keys else None
    part = (
        _detector(evidence, row)
        + _weighting(evidence, row, era)
        + one("max_neighbor_distance_px", data("max_neighbor_distance", real), Settled(3.0, "assumed"))
        + one("probe_scale", data("probe_scale", real), Settled(row.probe_scale, "assumed"))
        + one("amplitude_physics_gain", config("amplitude_physics_gain", real), gain)
        + one("num_datasets", Settled(evidence.weights.datasets(), "weights"), datasets)
    )
    if row.canvas_jitter:
        part += one("max_position_jitter_px", config("max_position_jitter", whole), Settled(10, "assumed"))
    if part["physics"] == "rectangular" and network["output_mode"] != "real_imag":
        part += Part(
            autoencoder_refusals=(
                UnsupportedArchitectureError(
                    f"{evidence.label}: rectangular physics with output mode {network['output_mode']!r}; PtychoPINN "
                    "refuses it without real_imag, so the autoencoder is none that was trained"
                ),
            )
        )
    return part


def _detector(evidence: Evidence, row: Era) -> Part:
    mode = evidence.config("physics_forward_mode", lambda v: "rectangular" if v == "rectangular_scaled" else v)
    if row.physics == ("rectangular",):
        return settle(evidence, "physics", Settled("rectangular", "weights", "rect_scaler alone"), mode)
    if len(row.physics) > 1:
        return settle(evidence, "physics", mode, Settled(row.physics[0], "assumed"))
    return settle(evidence, "physics", Settled(row.physics[0], "weights", "era"))


def _weighting(evidence: Evidence, row: Era, era: Settled) -> Part:
    if len(row.weighting) == 1:
        return settle(evidence, "patch_weighting", Settled(row.weighting[0], era.source, "era"))
    stated = evidence.config("training_patch_weighting") or evidence.param("training_patch_weighting")
    return settle(evidence, "patch_weighting", stated, Settled(row.weighting[0], "assumed"))


def probe_mask(evidence: Evidence, era: str, size: int) -> tuple[Part, np.ndarray | None]:
    """Settle the mask on the probe; returns the mask itself, (N, N) or (modes, N, N), where it is stored as numbers."""
    row, config = ERAS[era], evidence.model_config
    stored = config.get("probe_mask_tensor")
    stored = stored if isinstance(stored, np.ndarray) else config.get("probe_mask")
    if isinstance(stored, np.ndarray):
        mask = stored.reshape(stored.shape[-2:]) if 0 < stored.size <= size**2 else stored
        part = settle(evidence, "probe_mask", Settled("tensor", evidence.config_source, f"shape {stored.shape}"))
        if stored.dtype.kind not in "biuf" or stored.ndim < 2 or stored.shape[-2:] != (size, size) or mask.ndim > 3:
            refusal = UnsupportedArchitectureError(
                f"{evidence.label}: its probe mask is {stored.dtype.name} of shape {stored.shape}; expected real numbers, "
                f"({size}, {size}) or (modes, {size}, {size}), so the autoencoder cannot be rebuilt"
            )
            return part + Part(autoencoder_refusals=(refusal,)), _open_mask(size)
        return part, np.maximum(mask, 0) if row.disk_probe_mask else mask
    if stored is True and row.disk_probe_mask:
        part = (
            settle(evidence, "probe_mask", Settled("disk", evidence.config_source))
            + settle(
                evidence,
                "probe_mask_sigma_px",
                evidence.config("probe_mask_sigma", real),
                Settled(1.0, "assumed"),
            )
            + settle(
                evidence,
                "probe_mask_diameter_px",
                evidence.config("probe_mask_diameter", real),
                Settled(None, evidence.config_source),
            )
        )
        return part, None
    part = settle(
        evidence, "probe_mask", Settled("none", evidence.config_source if evidence.model_config else "assumed")
    )
    if part["probe_mask"] != "tensor":
        return part, None
    absent = ConfigurationError(
        f"{evidence.label}: probe_mask is 'tensor' but the mask itself is in neither checkpoint nor metadata, "
        "so the autoencoder cannot be rebuilt"
    )
    return part + Part(autoencoder_refusals=(absent,)), _open_mask(size)


def _open_mask(size: int) -> np.ndarray:
    return np.ones((size, size), np.float32)


def domain(evidence: Evidence, era: str, physics: str) -> Part:
    """Settle whether the model takes amplitudes or photon counts.

    Counts are active under rectangular physics alone, and only with both halves of the pair. The pair is the default of
    every data_config since 7cd80bd, so that amplitude models carry it too; there it means nothing.
    """
    stated = (evidence.data_config.get("scale_contract_version"), evidence.data_config.get("measurement_domain"))
    named = stated[1]
    if named is None:
        unsaid = Settled("amplitude", "weights" if ERAS[era].metadata == "none" else "assumed")
        return settle(evidence, "measurement_domain", unsaid)
    if named not in (_COUNTS_PAIR[1], _AMPLITUDE_PAIR[1]):
        raise ConfigurationError(
            f"{evidence.label}: measurement_domain is {named!r}; known are {_AMPLITUDE_PAIR[1]!r} and {_COUNTS_PAIR[1]!r}"
        )
    source = evidence.config_source
    if physics != "rectangular":
        part = settle(evidence, "measurement_domain", Settled("amplitude", source, f"physics {physics}"))
        if named != _COUNTS_PAIR[1]:
            return part
        if part["measurement_domain"] != "amplitude":
            return part
        return part + Part(
            notices=(
                f"its data_config says {named}, the default of PtychoPINN's training command, which means photon counts "
                f"only under rectangular physics; this model's physics is {physics}, so it takes amplitudes",
            )
        )
    if stated == _COUNTS_PAIR:
        part = settle(
            evidence, "measurement_domain", Settled("counts", source, "rectangular physics with the pair of counts")
        )
        against = _against_counts(evidence)
        if not against or evidence.overridden("measurement_domain") is not None:
            return part
        return part + Part(
            refusals=(
                EvidenceConflictError(
                    f"{evidence.label}: the configuration says counts under rectangular physics, but also "
                    f"{' and '.join(against)}, which PtychoPINN never trains counts with; settle it with --architecture "
                    'FILE.json holding {"measurement_domain": "counts"} or "amplitude"'
                ),
            )
        )
    part = settle(evidence, "measurement_domain", Settled("amplitude", source, "rectangular physics"))
    if stated == _AMPLITUDE_PAIR or evidence.overridden("measurement_domain") is not None:
        return part
    return part + Part(
        refusals=(
            EvidenceConflictError(
                f"{evidence.label}: data_config says scale_contract_version {stated[0]!r} with measurement_domain {named!r}, "
                f"a pair that PtychoPINN refuses under rectangular physics; settle it with --architecture FILE.json holding "
                '{"measurement_domain": "counts"} or "amplitude"'
            ),
        )
    )


def _against_counts(evidence: Evidence) -> list[str]:
    """Return what the configurations say that does not go with a model that takes photon counts."""
    needed = {
        "mode": (evidence.model_config, "Unsupervised"),
        "torch_loss_mode": (evidence.training_config, "poisson"),
        "amplitude_physics_gain": (evidence.model_config, 1.0),
    }
    return [
        f"{name} = {values[name]!r} (needed: {wanted!r})"
        for name, (values, wanted) in needed.items()
        if values.get(name) is not None and values[name] != wanted
    ]


def parity_delta(evidence: Evidence) -> Part:
    """Settle what the learnt or fixed `log_scale_delta` acts on."""
    stated = evidence.extra("parity_scale_mode")
    mode = None if stated is None else stated.value
    refusals: list[BundleError] = []
    if evidence.weights.has_parity_delta:
        if stated is None and "parity_scale_mode" not in evidence.override:
            raise AmbiguousArchitectureError(
                f"{evidence.label}: has log_scale_delta but nothing says its mode; settle it with --architecture FILE.json "
                'holding {"parity_scale_mode": "tied"} or "fixed", "input", "output"'
            )
        if (evidence.override.get("parity_scale_mode") or mode) == "off":
            refusals.append(
                EvidenceConflictError(f"{evidence.label}: has log_scale_delta although parity_scale_mode is 'off'")
            )
        return settle(evidence, "parity_scale_mode", stated) + Part(refusals=tuple(refusals))
    if mode not in (None, "off", "fixed"):
        refusals.append(
            EvidenceConflictError(
                f"{evidence.label}: parity_scale_mode is {mode!r} but the weights have no log_scale_delta"
            )
        )
        return settle(evidence, "parity_scale_mode", Settled("off", "weights"), contradictable=False) + Part(
            refusals=tuple(refusals)
        )
    part = settle(evidence, "parity_scale_mode", stated, Settled("off", "weights"))
    if mode == "fixed":
        delta = Settled(real(evidence.extras.get("parity_fixed_delta") or 0.0), evidence.config_source)
        part += settle(evidence, "parity_fixed_delta", delta)
    return part


def scaling(evidence: Evidence, era: Settled, *, supervised: bool, parity_mode: str) -> Part:
    """Settle what multiplies the input and divides the output: the caller's factors, or the model's own scale."""
    row = ERAS[era.value]
    trainable = evidence.config("intensity_scale_trainable", bool) or Settled(
        False, "assumed", "training leaves it off"
    )
    refusals: list[BundleError] = []
    if trainable.value and row.own_scale == "ignored":
        trainable = Settled(False, era.source, f"{era.value} never replaces the scale factors")
    elif trainable.value and row.own_scale == "unknown" and "intensity_scale_trainable" not in evidence.override:
        refusals.append(
            AmbiguousArchitectureError(
                f"{evidence.label}: intensity_scale_trainable is on, and whether era {era.value} then replaces the scale "
                'factors is not known; settle it with --architecture FILE.json holding {"intensity_scale_trainable": true} '
                "or false"
            )
        )
    scale = evidence.config("intensity_scale", real) or Settled(1.0, "assumed")
    stated = evidence.params.get("intensity_scale")
    reload_differs = (
        evidence.is_bundle
        and not evidence.model_config
        and not supervised
        and row.reload_copies_scale
        and bool(evidence.params.get("intensity_scale.trainable"))
        and _is_number(stated)
    )
    unsaid = Settled("as-trained", "assumed" if reload_differs else "weights")
    part = settle(evidence, "scaling", unsaid, contradictable=False)
    notices: list[str] = []
    if part["scaling"] == "as-reloaded":
        # Saved from a module rebuilt that way.
        stored = evidence.override_source.get("scaling") == ARCHITECTURE
        if not reload_differs and not stored:
            refusals.append(
                EvidenceConflictError(
                    f"{evidence.label}: scaling 'as-reloaded' was asked for, but PtychoPINN's reload of this bundle "
                    "computes the same as training"
                )
            )
        elif not stored:
            trainable, scale = Settled(True, "params"), Settled(real(stated), "params")
    elif reload_differs:
        what = (
            f"it multiplies by intensity_scale {real(stated):g} and ignores the scale factors"
            if real(stated) != 1.0
            else "object patches agree, but at intensity_scale 1 it ignores output_scale_factor and applies alpha and beta"
        )
        notices.append(
            f"PtychoPINN's own reload of this bundle computes something else than the trained module ({what}); "
            'exported as trained, {"scaling": "as-reloaded"} gives the other'
        )
    part += settle(evidence, "intensity_scale_trainable", trainable) + settle(evidence, "intensity_scale", scale)
    if part["intensity_scale_trainable"] and parity_mode != "off":
        refusals.append(
            UnsupportedArchitectureError(
                f"{evidence.label}: both a trained intensity scale and log_scale_delta; how PtychoPINN combines them is "
                "not known"
            )
        )
    return part + Part(notices=tuple(notices), refusals=tuple(refusals))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
