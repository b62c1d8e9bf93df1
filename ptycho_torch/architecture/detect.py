"""Which architecture a bundle implies: evidence in, one `ModelSpec` out, or a refusal that says what is undecided.

Precedence: names and shapes in the state_dict, then checkpoint or metadata, then params. Where none speaks, the
convention PtychoPINN itself applies is taken and reported as *assumed*.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.architecture.eras import config_eras, differ_in_physics_alone, era_evidence, possible_eras
from ptycho_torch.architecture.weights import Settled, WeightEvidence
from ptycho_torch.bundle import ARCHITECTURE, BundleRecord, Sentinel, StateDict
from ptycho_torch.eras import ERAS
from ptycho_torch.errors import (
    AmbiguousArchitectureError,
    BundleError,
    ConfigurationError,
    EvidenceConflictError,
    MissingModelsError,
    MissingParamsError,
    UnsupportedArchitectureError,
    WeightMismatchError,
)
from ptycho_torch.spec import ModelSpec

UNBUILDABLE = ("hybrid", "stable_hybrid", "hybrid_resnet", "uno", "spectral_resnet", "hybrid_resnet_fno")
Architecture = ModelSpec | Mapping[str, Any] | str | Path


@dataclass
class Detection:
    """The architecture of one role's weights, and how each field was decided."""

    spec: ModelSpec
    evidence: dict[str, Settled]
    notices: list[str] = field(default_factory=list)
    probe_mask: np.ndarray | None = None
    autoencoder_refusal: BundleError | None = None  # the physics is undecided; diffraction_to_obj is not

    @property
    def assumed(self) -> list[str]:
        """Names of the fields that nothing in the bundle settled."""
        return [name for name, settled in self.evidence.items() if settled.source == "assumed"]


def read_architecture(architecture: Architecture | None) -> dict[str, Any]:
    """Return an override as a dictionary of `ModelSpec` fields; a path names a JSON file."""
    if architecture is None:
        return {}
    if isinstance(architecture, ModelSpec):
        return architecture.to_json()
    if isinstance(architecture, Mapping):
        values = dict(architecture)
    else:
        try:
            values = json.loads(Path(architecture).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{architecture}: cannot be read ({error.strerror})") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{architecture}: is no JSON ({error})") from error
        if not isinstance(values, dict):
            raise ConfigurationError(f"{architecture}: holds {type(values).__name__}; expected an object of fields")
    unknown = sorted(set(values) - set(ModelSpec.__dataclass_fields__))
    if unknown:
        raise ConfigurationError(f"unknown architecture field(s): {', '.join(unknown)}")
    return values


def detect(
    record: BundleRecord, role: str = "diffraction_to_obj", architecture: Architecture | None = None
) -> Detection:
    """Return the architecture that a role's weights imply.

    Args:
        record: what `read_bundle` returned.
        role: `diffraction_to_obj` or `autoencoder`; a sentinel stands for the other role's weights.
        architecture: fields that settle what the bundle leaves open.

    Raises:
        AmbiguousArchitectureError: more than one architecture remains; lists them and the override to give.
        EvidenceConflictError: two pieces of evidence contradict each other.
        MissingParamsError: fields without which nothing can be rebuilt are absent.
        UnsupportedArchitectureError: a generator nobody can build.
    """
    return _Detector(record, role, read_architecture(architecture)).run()


def role_weights(record: BundleRecord, role: str) -> StateDict:
    """Return a role's weights; where a training run left a sentinel, those of the other role."""
    weights = record.weights[role]
    if isinstance(weights, Sentinel):
        others = [w for w in record.weights.values() if not isinstance(w, Sentinel)]
        if not others:
            raise MissingModelsError(f"{record.path.name}: both roles hold a sentinel; there are no weights in it")
        return others[0]
    return weights


class _Detector:
    def __init__(self, record: BundleRecord, role: str, override: dict[str, Any]) -> None:
        self.label = record.path.name
        # What `save_torch_bundle` wrote speaks like an override; an override given now speaks before it.
        stored = read_architecture(record.architecture)
        self.override = {**stored, **override}
        self.override_source = {name: "override" if name in override else ARCHITECTURE for name in self.override}
        self.weights = WeightEvidence(role_weights(record, role))
        self.params = record.params.get(role) or {}
        self.is_bundle = record.kind != "ckpt"
        hyper = (record.checkpoint or {}).get("hyper_parameters") or {}
        self.config_source = "checkpoint" if record.checkpoint is not None else "metadata"
        holder = hyper if record.checkpoint is not None else (record.metadata or {})
        sealed = holder.get("model_spec") if isinstance(holder.get("model_spec"), dict) else {}
        self.model_config = _dictionary(holder.get("model_config")) or _dictionary((sealed or {}).get("model_config"))
        overrides = _dictionary(holder.get("generator_overrides"))
        self.model_config = {**self.model_config, **{k: v for k, v in overrides.items() if k in self.model_config}}
        self.data_config = _dictionary(holder.get("data_config"))
        self.training_extras = {**(sealed or {}), **{k: v for k, v in holder.items() if not isinstance(v, dict)}}
        self.found: dict[str, Settled] = {}
        unknown = sorted(str(key) for key in overrides if key not in self.model_config)
        self.notices: list[str] = list(record.notices) + (
            [
                f"the checkpoint's generator_overrides name {', '.join(unknown)}, which says nothing known; weights decide"
            ]
            if unknown
            else []
        )
        self.refusal: BundleError | None = None
        self.probe_mask: np.ndarray | None = None

    # -- settling one field ----------------------------------------------------------------------------------------

    def settle(self, name: str, *candidates: Settled | None, contradictable: bool = True) -> Any:
        """Take the first candidate that speaks; an override or metadata against the weights is refused."""
        speaking = [c for c in candidates if c is not None]
        if name in self.override:
            speaking.insert(0, Settled(self.override[name], self.override_source[name]))
        weights = next((c for c in speaking if c.source == "weights"), None)
        if weights is not None and contradictable:
            for other in speaking:
                if other.source != "assumed" and other.value != weights.value:
                    raise EvidenceConflictError(
                        f"{self.label}: the {other.source} say(s) {name} = {other.value!r}, "
                        f"the weights say {weights.value!r}{f' ({weights.note})' if weights.note else ''}; "
                        f"correct the {other.source} or take the bundle that belongs to it"
                    )
            speaking.sort(key=lambda c: c.source != "weights")
        self.found[name] = speaking[0]
        return speaking[0].value

    def config(self, key: str, convert: Any = None) -> Settled | None:
        value = self.model_config.get(key)
        return None if value is None else Settled(convert(value) if convert else value, self.config_source, key)

    def data(self, key: str, convert: Any = None) -> Settled | None:
        value = self.data_config.get(key)
        return None if value is None else Settled(convert(value) if convert else value, self.config_source, key)

    def param(self, key: str, convert: Any = None) -> Settled | None:
        value = self.params.get(key)
        return None if value is None else Settled(convert(value) if convert else value, "params", key)

    def extra(self, key: str) -> Settled | None:
        value = self.training_extras.get(key)
        return None if value is None else Settled(value, self.config_source, key)

    # -- the whole -------------------------------------------------------------------------------------------------

    def run(self) -> Detection:
        weights = self.weights
        self.refuse_unbuildable()
        self.require_params()
        generator = self.settle("generator", self.generator_evidence(), self.generator_config())
        size = self.settle("N", weights.size(), self.data("N", _whole), self.param("N", _whole))
        gridsize = self.settle("gridsize", self.data("grid_size", _first), self.param("gridsize", _whole))
        _check_range(self.label, size, gridsize)
        supervised = self.supervised(generator)
        era = self.era(generator, supervised)
        self.channels(generator, gridsize)
        if generator in ("cnn", "unet"):
            self.convolutional(era, generator, supervised)
        else:
            self.spectral(generator, gridsize)
        if supervised:
            self.settle("num_datasets", Settled(1, "weights"))
        else:
            self.physics(era, generator)
        new = ERAS[era].metadata != "none"
        domain = self.data("measurement_domain", _domain)
        self.settle("measurement_domain", domain, Settled("amplitude", "assumed" if new else "weights"))
        self.parity_delta()
        self.scaling(era, supervised)
        unsettled = [name for name in self.override if name not in self.found]
        for name in unsettled:
            self.found[name] = Settled(self.override[name], self.override_source[name])
        spec = ModelSpec(**{name: settled.value for name, settled in self.found.items()})
        return Detection(spec, self.found, self.notices, self.probe_mask, self.refusal)

    def refuse_unbuildable(self) -> None:
        named = str(self.model_config.get("architecture") or "")
        if named in UNBUILDABLE or (named and named not in _KNOWN_GENERATORS):
            raise UnsupportedArchitectureError(
                f"{self.label}: its {self.config_source} names the architecture {named!r}, for which no code exists in "
                f"PtychoPINN's public history; buildable are {', '.join(sorted(_KNOWN_GENERATORS))}"
            )

    def require_params(self) -> None:
        needed = ("N", "gridsize")
        missing = [key for key in needed if self.params.get(key) is None]
        if self.is_bundle and missing:
            raise MissingParamsError(
                f"{self.label}: params.dill lacks {', '.join(missing)}. Cannot reconstruct model architecture; "
                "save the bundle again from PtychoPINN with its configuration applied"
            )
        if not self.is_bundle and not self.data_config and not self.override and missing:
            raise MissingParamsError(
                f"{self.label}: the checkpoint has no hyper_parameters and lacks {', '.join(missing)}. "
                "Cannot reconstruct model architecture; give them with --params FILE.json or --architecture FILE.json"
            )

    def generator_evidence(self) -> Settled:
        name = self.weights.generator()
        if name is None:
            named = self.params.get("architecture") or self.model_config.get("architecture")
            raise UnsupportedArchitectureError(
                f"{self.label}: the weights belong to none of the networks that can be built"
                f"{f' (params name {named!r})' if named else ''}; first keys: {', '.join(self.weights.first_keys())}"
            )
        return Settled(name, "weights", "names of the state_dict")

    def generator_config(self) -> Settled | None:
        named = self.model_config.get("architecture")
        if named is None or self.weights.generator() == "unet":
            return None
        return Settled(named, self.config_source, "architecture")

    def supervised(self, generator: str) -> bool:
        said = self.config("mode", lambda mode: mode == "Supervised")
        if self.weights.has_physics:
            return bool(self.settle("supervised", Settled(False, "weights", "forward_model keys are there"), said))
        if generator not in ("cnn", "unet"):
            # Every release that has spectral generators stores its physics, so its absence speaks.
            return bool(self.settle("supervised", Settled(True, "weights", "no forward_model keys"), said))
        said = said or self.param("model_type", lambda kind: kind == "supervised")
        return bool(self.settle("supervised", said, Settled(False, "assumed")))

    def era(self, generator: str, supervised: bool) -> str:
        possible = possible_eras(self.weights, generator, supervised)
        if not possible:
            held = ", ".join(sorted(self.weights.physics_keys)) or "nothing"
            raise WeightMismatchError(
                f"{self.label}: a {generator} network beside a forward_model that holds {held}, which no era of "
                "PtychoPINN stores; the state_dict is incomplete or of another program"
            )
        if "era" in self.override and self.override["era"] not in possible:
            raise EvidenceConflictError(
                f"{self.label}: the {self.override_source['era']} says era = {self.override['era']!r}, "
                f"the weights allow only {', '.join(possible)}"
            )
        recorded = config_eras(self.model_config)
        if not set(possible) & set(recorded):
            raise EvidenceConflictError(
                f"{self.label}: the {self.config_source}'s model_config has the fields of era {' or '.join(recorded)}, "
                f"the weights the keys of era {' or '.join(possible)}; take the {self.config_source} that belongs to them"
            )
        if "era" in self.override:
            return str(self.settle("era"))
        found = era_evidence(possible, generator, self.model_config, self.config_source, self.params)
        if isinstance(found, Settled):
            if generator == "unet":
                self.unet_era()
            return str(self.settle("era", found, contradictable=found.source == "weights"))
        if differ_in_physics_alone(found):
            # The network is the same in both; only the physics of the autoencoder differs.
            self.refusal = self.ambiguous(found)
            return str(
                self.settle(
                    "era",
                    Settled(found[-1], "assumed", f"{' or '.join(found)}: the network is the same, the physics is not"),
                )
            )
        raise self.ambiguous(found)

    def unet_era(self) -> None:
        """Say what taking a UNet as U2 leaves open; refuse what the eras then compute differently."""
        self.notices.append(
            "the UNet eras U and U2 differ only in how several probe modes add; taken as U2 with one probe mode"
        )
        trainable = self.config("intensity_scale_trainable", bool)
        if trainable is not None and trainable.value and "intensity_scale_trainable" not in self.override:
            # U replaces the scale factors by the model's own scale, U2 does not.
            refusal = self.ambiguous(("U", "U2"))
            if self.model_config.get("intensity_scale", 1.0) != 1.0:
                raise refusal
            self.refusal = refusal
        elif "training_patch_weighting" in self.model_config:
            # U and U2 have no choice of weights; the branch that has one moves patches the other way.
            self.refusal = self.ambiguous(("U2", "V"))

    def ambiguous(self, eras: tuple[str, ...]) -> AmbiguousArchitectureError:
        choices = " or ".join(f'{{"era": "{era}"}}' for era in eras)
        return AmbiguousArchitectureError(
            f"{self.label}: the evidence fits the eras {', '.join(eras)}, which compute different things; "
            f"settle it with --architecture FILE.json (or architecture=) holding {choices}"
        )

    def channels(self, generator: str, gridsize: int) -> None:
        count = gridsize**2
        said = self.object_big_config() or self.param("object.big", bool)
        fallback = Settled(True, "assumed")
        if generator in ("cnn", "unet"):
            found = self.weights.input_channels()
            if found not in (1, count):
                raise EvidenceConflictError(
                    f"{self.label}: the first convolution takes {found} channels, gridsize {gridsize} means {count}; "
                    "params and weights do not belong together"
                )
            if count > 1:
                shape = Settled(found == count, "weights", "channels of the first convolution")
                # PtychoPINN's params carry object.big as configured; only the trained configuration can contradict shapes.
                self.settle("object_big", shape, self.object_big_config())
                return
        else:
            found = self.weights.input_channels()
            if found % count:
                raise EvidenceConflictError(
                    f"{self.label}: the lifter takes {found} channels, not a multiple of gridsize² = {count}"
                )
            output = self.weights.output_channels()
            if output != count:
                raise EvidenceConflictError(
                    f"{self.label}: the weights give {output} channels, gridsize {gridsize} means {count}; params and weights do not belong together"
                )
        self.settle("object_big", said, fallback)

    def object_big_config(self) -> Settled | None:
        layout, canvas = self.model_config.get("object_layout"), self.model_config.get("training_canvas")
        if layout is None and canvas is None:
            return self.config("object_big", bool)
        if (layout, canvas) == ("grouped_patches", "relative_overlap"):
            return Settled(True, self.config_source, "object_layout")
        if (layout, canvas) == ("single_patch", "independent"):
            return Settled(False, self.config_source, "object_layout")
        raise EvidenceConflictError(
            f"{self.label}: object_layout {layout!r} with training_canvas {canvas!r} is no layout PtychoPINN has"
        )

    def configured_attention(self, place: str) -> Settled | None:
        """Return the attention that the configuration switches on in the encoder or the decoder."""
        kinds = ("cbam", "eca") if place == "encoder" else ("eca", "spatial", "cbam")  # the first that is on wins
        if not any(f"{kind}_{place}" in self.model_config for kind in kinds):
            return None
        on = [kind for kind in kinds if self.model_config.get(f"{kind}_{place}")]
        return Settled(on[0] if on else "none", self.config_source, f"…_{place}")

    def convolutional(self, era: str, generator: str, supervised: bool) -> None:
        weights, settle = self.weights, self.settle
        settle(
            "n_filters_scale",
            weights.filters_scale(),
            self.config("n_filters_scale", _whole),
            self.param("n_filters_scale", _whole),
        )
        activation = self.config("amp_activation", _activation) or self.param("amp_activation", _activation)
        settle("amp_activation", activation, Settled("silu", "assumed"))
        settle("probe_big", self.config("probe_big", bool) or self.param("probe.big", bool), Settled(True, "assumed"))
        if era == "A" and self.found["probe_big"].source == "params":
            self.notices.append(
                "the 2025-11 training workflow may have had probe.big off whatever params say; taken as params say"
            )
        settle("shared_decoder", Settled(weights.shared_decoder, "weights"), self.config("use_shared_decoder", bool))
        settle("amp_channels", weights.amp_channels())
        settle("c_outer", weights.outer_channels())
        settle("border_mask", Settled(ERAS[era].border_mask, self.found["era"].source, "era"), contradictable=False)
        settle("batch_norm", Settled(weights.batch_norm, "weights"), self.config("batch_norm", bool))
        settle(
            "encoder_attention", Settled(weights.encoder_attention(), "weights"), self.configured_attention("encoder")
        )
        settle("bottleneck_cbam", Settled(weights.bottleneck_cbam, "weights"), self.config("cbam_bottleneck", bool))
        kind, kernel = weights.decoder_attention()
        told = self.configured_attention("decoder")
        if weights.shared_decoder and kind == "none":
            told = None  # not every shared decoder stores the attention it was configured with
        settle("decoder_attention", Settled(kind, "weights"), told)
        if kind == "spatial":
            settle("decoder_spatial_kernel", Settled(kernel, "weights"), self.config("decoder_spatial_kernel", _whole))
        if generator == "unet":
            settle("output_mode", Settled("real_imag", "weights", "era"))
        elif era == "V":
            settle("output_mode", Settled("real_imag", "assumed", "rectangular physics is trained with no other"))
        elif ERAS[era].real_imag_cnn and not supervised:
            settle(
                "output_mode",
                self.extra("generator_output"),
                self.config("cnn_output_mode"),
                Settled("amp_phase", "assumed"),
            )
        else:
            settle("output_mode", Settled("amp_phase", "weights", "era"))

    def spectral(self, generator: str, gridsize: int) -> None:
        weights = self.weights
        if generator == "neuralop_uno":
            self.settle("output_mode", Settled("real_imag", "weights", "the only one it has"))
            return
        for name, value in weights.spectral_sizes(generator).items():
            self.settle(name, Settled(value, "weights"), self.config(name, _whole))
        self.settle(
            "learned_input_channels",
            Settled(weights.input_channels() // gridsize**2, "weights"),
            self.config("learned_input_channels", _whole),
        )
        self.settle("input_transform", self.config("fno_input_transform"), Settled("none", "assumed"))
        mode = self.extra("generator_output") or self.config("generator_output_mode")
        if weights.has_amp_phase_heads:
            self.settle("output_mode", Settled("amp_phase", "weights", "output_amp"), mode)
            return
        if mode is not None and mode.value == "amp_phase":
            raise EvidenceConflictError(
                f"{self.label}: the {mode.source} says output mode 'amp_phase', the weights have no output_amp"
            )
        self.settle("output_mode", mode, Settled("real_imag", "assumed", "real_imag or amp_phase_logits"))

    def physics(self, era: str, generator: str) -> None:
        settle = self.settle
        if generator == "unet":
            settle("single_probe_mode", Settled("era" not in self.override, "assumed"))
        row = ERAS[era]
        mode = self.config("physics_forward_mode", lambda v: "rectangular" if v == "rectangular_scaled" else v)
        if row.physics == ("rectangular",):
            settle("physics", Settled("rectangular", "weights", "rect_scaler alone"), mode)
        elif len(row.physics) > 1:
            settle("physics", mode, Settled(row.physics[0], "assumed"))
        else:
            settle("physics", Settled(row.physics[0], "weights", "era"))
        weighting = self.config("training_patch_weighting") or self.param("training_patch_weighting")
        if len(row.weighting) > 1:
            settle("patch_weighting", weighting, Settled(row.weighting[0], "assumed"))
        else:
            settle("patch_weighting", Settled(row.weighting[0], self.found["era"].source, "era"))
        settle("max_neighbor_distance_px", self.data("max_neighbor_distance", float), Settled(3.0, "assumed"))
        settle("probe_scale", self.data("probe_scale", float), Settled(row.probe_scale, "assumed"))
        self.settle_probe_mask(era)
        settle(
            "amplitude_physics_gain",
            self.config("amplitude_physics_gain", float),
            Settled(1.0, "assumed" if era == "J" else "weights"),
        )
        settle(
            "num_datasets",
            Settled(self.weights.datasets(), "weights"),
            self.config("num_datasets", _whole) if era != "A" else None,
        )
        if row.canvas_jitter:
            settle("max_position_jitter_px", self.config("max_position_jitter", _whole), Settled(10, "assumed"))
        if self.found["physics"].value == "rectangular" and self.found["output_mode"].value != "real_imag":
            self.refusal = UnsupportedArchitectureError(
                f"{self.label}: rectangular physics with output mode {self.found['output_mode'].value!r}; PtychoPINN "
                "refuses it without real_imag, so the autoencoder is none that was trained"
            )

    def settle_probe_mask(self, era: str) -> None:
        told = self.model_config.get("probe_mask_tensor")
        told = told if isinstance(told, np.ndarray) else self.model_config.get("probe_mask")
        if isinstance(told, np.ndarray):
            size = self.found["N"].value
            self.probe_mask = told.reshape(told.shape[-2:]) if 0 < told.size <= size**2 else told
            self.settle("probe_mask", Settled("tensor", self.config_source, f"shape {told.shape}"))
            if (
                told.dtype.kind not in "biuf"
                or told.ndim < 2
                or told.shape[-2:] != (size, size)
                or self.probe_mask.ndim > 3
            ):
                self.refusal = UnsupportedArchitectureError(
                    f"{self.label}: its probe mask is {told.dtype.name} of shape {told.shape}; expected real numbers, "
                    f"({size}, {size}) or (modes, {size}, {size}), so the autoencoder cannot be rebuilt"
                )
                self.probe_mask = np.ones((size, size), np.float32)
        elif told is True and ERAS[era].disk_probe_mask:
            self.settle("probe_mask", Settled("disk", self.config_source))
            sigma, diameter = (
                self.model_config.get("probe_mask_sigma", 1.0),
                self.model_config.get("probe_mask_diameter"),
            )
            if sigma != 1.0 or diameter is not None:
                self.refusal = UnsupportedArchitectureError(
                    f"{self.label}: a probe mask of sigma {sigma} and diameter {diameter}; only the default one (1.0, none) is known, "
                    "so the autoencoder cannot be rebuilt"
                )
        else:
            self.settle("probe_mask", Settled("none", self.config_source if self.model_config else "assumed"))
            if self.found["probe_mask"].value == "tensor":
                self.refusal = ConfigurationError(
                    f"{self.label}: probe_mask is 'tensor' but the mask itself is in neither checkpoint nor metadata, "
                    "so the autoencoder cannot be rebuilt"
                )
                size = self.found["N"].value
                self.probe_mask = np.ones((size, size), np.float32)

    def parity_delta(self) -> None:
        told = self.extra("parity_scale_mode")
        mode = None if told is None else told.value
        if self.weights.has_parity_delta:
            if told is None and "parity_scale_mode" not in self.override:
                raise AmbiguousArchitectureError(
                    f"{self.label}: has log_scale_delta but nothing says its mode; settle it with --architecture FILE.json "
                    'holding {"parity_scale_mode": "tied"} or "fixed", "input", "output"'
                )
            if (self.override.get("parity_scale_mode") or mode) == "off":
                raise EvidenceConflictError(f"{self.label}: has log_scale_delta although parity_scale_mode is 'off'")
            self.settle("parity_scale_mode", told)
        elif mode not in (None, "off", "fixed"):
            raise EvidenceConflictError(
                f"{self.label}: parity_scale_mode is {mode!r} but the weights have no log_scale_delta"
            )
        else:
            self.settle("parity_scale_mode", told, Settled("off", "weights"))
            if mode == "fixed":
                self.settle(
                    "parity_fixed_delta",
                    Settled(float(self.training_extras.get("parity_fixed_delta") or 0.0), self.config_source),
                )

    def scaling(self, era: str, supervised: bool) -> None:
        trainable = self.config("intensity_scale_trainable", bool) or Settled(
            False, "assumed", "training leaves it off"
        )
        if trainable.value and ERAS[era].own_scale == "ignored":
            trainable = Settled(False, self.found["era"].source, f"{era} never replaces the scale factors")
        elif trainable.value and ERAS[era].own_scale == "unknown" and "intensity_scale_trainable" not in self.override:
            raise AmbiguousArchitectureError(
                f"{self.label}: intensity_scale_trainable is on, and whether era V then replaces the scale factors is not "
                'known; settle it with --architecture FILE.json holding {"intensity_scale_trainable": true} or false'
            )
        scale = self.config("intensity_scale", float) or Settled(1.0, "assumed")
        told = self.params.get("intensity_scale")
        reload_differs = (
            self.is_bundle
            and not self.model_config
            and not supervised
            and ERAS[era].reload_copies_scale
            and bool(self.params.get("intensity_scale.trainable"))
            and isinstance(told, (int, float))
            and told != 1.0
        )
        mode = self.settle(
            "scaling", Settled("as-trained", "assumed" if reload_differs else "weights"), contradictable=False
        )
        if mode == "as-reloaded":
            stored = self.override_source.get("scaling") == ARCHITECTURE  # saved from a module rebuilt that way
            if not reload_differs and not stored:
                raise EvidenceConflictError(
                    f"{self.label}: scaling 'as-reloaded' was asked for, but PtychoPINN's reload of this bundle computes the same as training"
                )
            if not stored:
                trainable, scale = Settled(True, "params"), Settled(float(told or 1.0), "params")
        elif reload_differs:
            self.notices.append(
                f"PtychoPINN's own reload of this bundle computes something else than the trained module (it multiplies by intensity_scale {told:g} "
                'and ignores the scale factors); exported as trained, {"scaling": "as-reloaded"} gives the other'
            )
        if self.settle("intensity_scale_trainable", trainable) and self.found["parity_scale_mode"].value != "off":
            raise UnsupportedArchitectureError(
                f"{self.label}: both a trained intensity scale and log_scale_delta; how PtychoPINN combines them is not known"
            )
        self.settle("intensity_scale", scale)


_KNOWN_GENERATORS = ("cnn", "ffno", "fno", "fno_vanilla", "neuralop_uno")


def _dictionary(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ConfigurationError(f"{value!r} where a whole number is expected")
    return int(value)


def _first(value: Any) -> int:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or pair[0] != pair[1]:
        raise ConfigurationError(f"grid_size is {value!r}; expected two equal whole numbers")
    return _whole(pair[0])


def _activation(name: Any) -> str:
    return "sigmoid" if name == "sigmoid" else "silu"


def _domain(name: Any) -> str:
    if name == "normalized_amplitude":
        return "amplitude"
    if isinstance(name, str) and ("count" in name or "intensity" in name):
        return "counts"
    raise ConfigurationError(f"measurement_domain is {name!r}; known are 'normalized_amplitude' and photon counts")


def _check_range(label: str, size: Any, gridsize: Any) -> None:
    try:
        ModelSpec(era="A", generator="cnn", N=size, gridsize=gridsize)
    except ConfigurationError as error:
        raise ConfigurationError(f"{label}: {error}") from error
