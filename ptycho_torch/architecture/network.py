"""The fields of the spec that decide the network: generator, sizes, channels, activations."""

from __future__ import annotations

from typing import Any

from ptycho_torch.architecture.evidence import Evidence, Part, settle, whole
from ptycho_torch.architecture.weights import Settled
from ptycho_torch.eras import ERAS, SPECTRAL_GENERATORS
from ptycho_torch.errors import (
    BundleError,
    ConfigurationError,
    EvidenceConflictError,
    MissingParamsError,
    UnsupportedArchitectureError,
    WeightMismatchError,
)
from ptycho_torch.spec import ModelSpec

# Names that stand in configurations of main, and that no public code builds.
UNBUILDABLE = ("hybrid", "stable_hybrid", "hybrid_resnet", "uno", "spectral_resnet", "hybrid_resnet_fno")
BUILDABLE = ("cnn", "unet", *SPECTRAL_GENERATORS)
_LATENT_BRANCH = "latent_experimental"
_LATENT_NAMES = ("ccnf", "patterson", "overlap", "polar", "latent", "neural_field", "canvas")
_LATENT_FIELDS = ("object_representation", "overlap_encoding", "ccnf_decoder_type")


def refusals_of_names(evidence: Evidence) -> list[BundleError]:
    """Return why a network cannot be built, by the name that the configuration gives it or by keys beside the model."""
    refusals: list[BundleError] = []
    named = str(evidence.model_config.get("architecture") or "")
    if named and named not in BUILDABLE:
        refusals.append(UnsupportedArchitectureError(_unbuildable(evidence, named)))
    elif named == "cnn" and any(name in evidence.model_config for name in _LATENT_FIELDS):
        refusals.append(
            UnsupportedArchitectureError(
                f"{evidence.label}: a CNN of PtychoPINN's branch {_LATENT_BRANCH}, whose heads are not known; "
                f"of that branch only the plain unet is built here"
            )
        )
    foreign = evidence.weights.foreign_keys()
    if foreign:
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        refusals.append(
            WeightMismatchError(
                f"{evidence.label}: the state_dict has unexpected keys beside the model's: {', '.join(foreign[:5])}{more}; "
                "--ignore-extra (ignore_extra=True) leaves them out"
            )
        )
    return refusals


def _unbuildable(evidence: Evidence, named: str) -> str:
    start = f"{evidence.label}: its {evidence.config_source} names the architecture {named!r}, "
    known = f"; buildable are {', '.join(sorted(BUILDABLE))}"
    if any(part in named for part in _LATENT_NAMES) or any(name in evidence.model_config for name in _LATENT_FIELDS):
        return f"{start}of PtychoPINN's branch {_LATENT_BRANCH}, which is not built here{known}"
    return f"{start}for which no code exists in PtychoPINN's public history{known}"


def require_params(evidence: Evidence) -> None:
    """Raise `MissingParamsError` where the sizes that nothing else gives are absent."""
    missing = [key for key in ("N", "gridsize") if evidence.params.get(key) is None]
    if evidence.is_bundle and missing:
        raise MissingParamsError(
            f"{evidence.label}: params.dill: missing required fields: {', '.join(missing)}. Cannot reconstruct model "
            "architecture; save the bundle again from PtychoPINN with its configuration applied"
        )
    if not evidence.is_bundle and not evidence.data_config and not evidence.override and missing:
        raise MissingParamsError(
            f"{evidence.label}: the checkpoint has no hyper_parameters and lacks {', '.join(missing)}. "
            "Cannot reconstruct model architecture; give them with --params FILE.json or --architecture FILE.json"
        )


def generator(evidence: Evidence) -> Part:
    """Settle which network it is; raises `UnsupportedArchitectureError` for keys of none that is known."""
    weights = evidence.weights
    name = weights.generator()
    if name is None or weights.has(r"(?:.*\.)?head_(?:real|imag)\."):
        named = evidence.params.get("architecture") or evidence.model_config.get("architecture")
        polar = f"; head_real and head_imag are of PtychoPINN's branch {_LATENT_BRANCH}" if name is not None else ""
        raise UnsupportedArchitectureError(
            f"{evidence.label}: the weights belong to none of the networks that can be built"
            f"{f' (params name {named!r})' if named else ''}{polar}; first keys: {', '.join(weights.first_keys())}"
        )
    named = None if name == "unet" else evidence.config("architecture")
    return settle(evidence, "generator", Settled(name, "weights", "names of the state_dict"), named)


def sizes(evidence: Evidence) -> Part:
    """Settle N and gridsize; raises `ConfigurationError` for sizes that PtychoPINN does not have."""
    size = settle(evidence, "N", evidence.weights.size(), evidence.data("N", whole), evidence.param("N", whole))
    grid = settle(evidence, "gridsize", evidence.data("grid_size", _first), evidence.param("gridsize", whole))
    part = size + grid
    try:
        ModelSpec(era="A", generator="cnn", N=part["N"], gridsize=part["gridsize"])
    except ConfigurationError as error:
        raise ConfigurationError(f"{evidence.label}: {error}") from error
    return part + _params_of_another_size(evidence, part["N"])


def _params_of_another_size(evidence: Evidence, size: int) -> Part:
    """Refuse params whose N is another than the checkpoint's or the metadata's, where the weights do not say it."""
    stated = evidence.param("N", whole)
    if (
        evidence.weights.size() is None
        and stated is not None
        and evidence.data("N") is not None
        and stated.value != size
    ):
        return Part(
            refusals=(
                EvidenceConflictError(
                    f"{evidence.label}: params say N = {stated.value}, the {evidence.config_source} says {size}; "
                    "they do not belong together"
                ),
            )
        )
    return Part()


def supervised(evidence: Evidence, generator: str) -> Part:
    """Settle whether the model was trained on known objects, without physics."""
    stated = evidence.config("mode", lambda mode: mode == "Supervised")
    if evidence.weights.has_physics:
        return settle(evidence, "supervised", Settled(False, "weights", "forward_model keys are there"), stated)
    if generator not in ("cnn", "unet"):
        # Every release that has spectral generators stores its physics, so its absence speaks.
        return settle(evidence, "supervised", Settled(True, "weights", "no forward_model keys"), stated)
    stated = stated or evidence.param("model_type", lambda kind: kind == "supervised")
    return settle(evidence, "supervised", stated, Settled(False, "assumed"))


def channels(evidence: Evidence, generator: str, gridsize: int) -> Part:
    """Settle `object_big`, from the channels that the network takes and gives."""
    count = gridsize**2
    weights = evidence.weights
    layout, refusals = _object_big_config(evidence)
    stated = layout or evidence.param("object.big", bool)
    number = weights.input_channels()
    if generator in ("cnn", "unet"):
        if number not in (1, count):
            refusals.append(
                EvidenceConflictError(
                    f"{evidence.label}: the first convolution takes {number} channels, gridsize {gridsize} means {count}; "
                    "params and weights do not belong together"
                )
            )
        if count > 1:
            shape = Settled(number == count, "weights", "channels of the first convolution")
            # PtychoPINN's params carry object.big as configured; only the trained configuration can contradict shapes.
            return settle(evidence, "object_big", shape, layout) + Part(refusals=tuple(refusals))
    else:
        if number % count:
            refusals.append(
                EvidenceConflictError(
                    f"{evidence.label}: the lifter takes {number} channels, not a multiple of gridsize² = {count}"
                )
            )
        output = weights.output_channels()
        if output != count:
            refusals.append(
                EvidenceConflictError(
                    f"{evidence.label}: the weights give {output} channels, gridsize {gridsize} means {count}; "
                    "params and weights do not belong together"
                )
            )
    return settle(evidence, "object_big", stated, Settled(True, "assumed")) + Part(refusals=tuple(refusals))


def _object_big_config(evidence: Evidence) -> tuple[Settled | None, list[BundleError]]:
    layout, canvas = evidence.model_config.get("object_layout"), evidence.model_config.get("training_canvas")
    if layout is None and canvas is None:
        return evidence.config("object_big", bool), []
    if (layout, canvas) == ("grouped_patches", "relative_overlap"):
        return Settled(True, evidence.config_source, "object_layout"), []
    if (layout, canvas) == ("single_patch", "independent"):
        return Settled(False, evidence.config_source, "object_layout"), []
    refusal = EvidenceConflictError(
        f"{evidence.label}: object_layout {layout!r} with training_canvas {canvas!r} is no layout PtychoPINN has"
    )
    return None, [refusal]


def convolutional(evidence: Evidence, era: Settled, generator: str, supervised: bool) -> Part:
    """Settle the CNN or UNet."""
    weights, row = evidence.weights, ERAS[era.value]
    config, param = evidence.config, evidence.param

    def one(name: str, *candidates: Settled | None) -> Part:
        return settle(evidence, name, *candidates)

    activation = config("amp_activation", _activation) or param("amp_activation", _activation)
    probe_big = config("probe_big", bool) or param("probe.big", bool)
    scale = weights.filters_scale()
    decoder, kernel = weights.decoder_attention()
    configured = _configured_attention(evidence, "decoder")
    if weights.shared_decoder and decoder == "none":
        # Not every shared decoder stores the attention it was configured with.
        configured = None
    part = (
        one("n_filters_scale", scale, config("n_filters_scale", whole), param("n_filters_scale", whole))
        + one("amp_activation", activation, Settled("silu", "assumed"))
        + one("probe_big", probe_big, Settled(True, "assumed"))
        + one("shared_decoder", Settled(weights.shared_decoder, "weights"), config("use_shared_decoder", bool))
        + one("amp_channels", weights.amp_channels())
        + one("c_outer", weights.outer_channels())
        + settle(evidence, "border_mask", Settled(row.border_mask, era.source, "era"), contradictable=False)
        + one("batch_norm", Settled(weights.batch_norm, "weights"), config("batch_norm", bool))
        + one(
            "encoder_attention",
            Settled(weights.encoder_attention(), "weights"),
            _configured_attention(evidence, "encoder"),
        )
        + one("bottleneck_cbam", Settled(weights.bottleneck_cbam, "weights"), config("cbam_bottleneck", bool))
        + one("decoder_attention", Settled(decoder, "weights"), configured)
    )
    if decoder == "spatial":
        part += one("decoder_spatial_kernel", Settled(kernel, "weights"), config("decoder_spatial_kernel", whole))
    if row.probe_big_unsure and part.fields["probe_big"].source == "params":
        part += Part(
            notices=(
                "the 2025-11 training workflow may have had probe.big off whatever params say; taken as params say",
            )
        )
    if generator == "unet":
        part += one("unet_heads", *_unet_heads(evidence))
    return part + one("output_mode", *_convolutional_mode(evidence, era.value, generator, supervised))


def _unet_heads(evidence: Evidence) -> tuple[Settled, ...]:
    if evidence.model_config.get("architecture") == "unet":
        return (Settled("tanh", evidence.config_source, f"architecture = unet, as branch {_LATENT_BRANCH} writes"),)
    return (Settled("bounded", evidence.config_source if evidence.model_config else "assumed"),)


def _convolutional_mode(evidence: Evidence, era: str, generator: str, supervised: bool) -> tuple[Settled | None, ...]:
    row = ERAS[era]
    if generator == "unet":
        return (Settled("real_imag", "weights", "era"),)
    if row.physics == ("rectangular",):
        return (Settled("real_imag", "assumed", "rectangular physics is trained with no other"),)
    if row.real_imag_cnn and not supervised:
        return (
            evidence.extra("generator_output"),
            evidence.config("cnn_output_mode"),
            Settled("amp_phase", "assumed"),
        )
    return (Settled("amp_phase", "weights", "era"),)


def _configured_attention(evidence: Evidence, place: str) -> Settled | None:
    """Return the attention that the configuration switches on in the encoder or the decoder."""
    # The first that is on wins.
    kinds = ("cbam", "eca") if place == "encoder" else ("eca", "spatial", "cbam")
    if not any(f"{kind}_{place}" in evidence.model_config for kind in kinds):
        return None
    on = [kind for kind in kinds if evidence.model_config.get(f"{kind}_{place}")]
    return Settled(on[0] if on else "none", evidence.config_source, f"…_{place}")


def spectral(evidence: Evidence, generator: str, gridsize: int) -> Part:
    """Settle a spectral generator."""
    weights = evidence.weights
    if generator == "neuralop_uno":
        return settle(evidence, "output_mode", Settled("real_imag", "weights", "the only one it has"))
    part = Part()
    for name, value in weights.spectral_sizes(generator).items():
        part += settle(evidence, name, Settled(value, "weights"), evidence.config(name, whole))
    inputs = Settled(weights.input_channels() // gridsize**2, "weights")
    part += settle(evidence, "learned_input_channels", inputs, evidence.config("learned_input_channels", whole))
    transform = evidence.config("fno_input_transform")
    part += settle(evidence, "input_transform", transform, Settled("none", "assumed"))
    mode = evidence.extra("generator_output") or evidence.config("generator_output_mode")
    if weights.has_amp_phase_heads:
        return part + settle(evidence, "output_mode", Settled("amp_phase", "weights", "output_amp"), mode)
    if mode is not None and mode.value == "amp_phase":
        part += Part(
            refusals=(
                EvidenceConflictError(
                    f"{evidence.label}: the {mode.source} says output mode 'amp_phase', the weights have no output_amp"
                ),
            )
        )
    return part + settle(
        evidence, "output_mode", mode, Settled("real_imag", "assumed", "real_imag or amp_phase_logits")
    )


def _first(value: Any) -> int:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or pair[0] != pair[1]:
        raise ConfigurationError(f"grid_size is {value!r}; expected two equal whole numbers")
    return whole(pair[0])


def _activation(name: Any) -> str:
    return "sigmoid" if name == "sigmoid" else "silu"
