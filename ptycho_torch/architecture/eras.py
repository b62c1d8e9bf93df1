"""Which eras of PtychoPINN can have stored a state_dict, and which of them the records beside it speak for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptycho_torch.architecture.evidence import Evidence, Part, settle
from ptycho_torch.architecture.weights import Settled, WeightEvidence
from ptycho_torch.eras import ERA_NAMES, ERAS, NEWEST, EraName, config_mark
from ptycho_torch.errors import AmbiguousArchitectureError, EvidenceConflictError, WeightMismatchError

Eras = tuple[EraName, ...]
_INCOHERENT_MARK = "amplitude_variance_"  # fields of a loss that came with incoherent probe modes


def possible_eras(weights: WeightEvidence, generator: str, supervised: bool) -> Eras:
    """Return the eras whose modules have these keys, whatever the records say; empty where no era has them."""
    keys = weights.physics_keys
    return tuple(
        era.name
        for era in ERAS.values()
        if generator in era.networks and (era.physics_keys == keys or (supervised and era.supervised and not keys))
    )


def config_eras(model_config: Mapping[str, Any]) -> Eras:
    """Return the eras whose `model_config` has these fields; all of them where there is none."""
    if not model_config:
        return ERA_NAMES
    mark = config_mark(model_config)
    return tuple(era.name for era in ERAS.values() if mark in era.config_marks)


def params_era(params: Mapping[str, Any]) -> Settled | None:
    """Return the era whose `params.dill` has these keys: A (A2 has the same), B, J0 or J."""
    if not params:
        return None
    for name in reversed(ERA_NAMES):
        mark = ERAS[name].params_mark
        if mark and mark in params:
            return Settled(name, "params", f"has {mark}")
    return Settled("A", "params", "has no architecture")


def differ_in_physics_alone(eras: Eras) -> bool:
    """Say whether eras build and store the same network, so that only the autoencoder is undecided among them."""
    rows = [ERAS[name] for name in eras]
    return len({(row.networks, row.border_mask, row.physics_keys) for row in rows}) == 1


def era(evidence: Evidence, generator: str, supervised: bool) -> Part:
    """Settle the era.

    Raises:
        WeightMismatchError: keys that no era stores.
        EvidenceConflictError: an override, or a configuration, of an era whose weights these are not.
        AmbiguousArchitectureError: more than one era remains, whose networks differ.
    """
    label = evidence.label
    possible = possible_eras(evidence.weights, generator, supervised)
    if not possible:
        held = ", ".join(sorted(evidence.weights.physics_keys)) or "nothing"
        raise WeightMismatchError(
            f"{label}: a {generator} network beside a forward_model that holds {held}, which no era of "
            "PtychoPINN stores; the state_dict is incomplete or of another program"
        )
    given = evidence.overridden("era")
    if given is not None and given.value not in possible:
        raise EvidenceConflictError(
            f"{label}: the {given.source} says era = {given.value!r}, the weights allow only {', '.join(possible)}"
        )
    recorded = config_eras(evidence.model_config)
    if not set(possible) & set(recorded):
        raise EvidenceConflictError(
            f"{label}: the {evidence.config_source}'s model_config has the fields of era {' or '.join(recorded)}, "
            f"the weights the keys of era {' or '.join(possible)}; take the {evidence.config_source} that belongs to them"
        )
    if given is not None:
        return settle(evidence, "era", contradictable=False) + _probe_modes(evidence, generator, certain=True)
    if generator == "unet":
        return _unet_era(evidence)
    remaining = _remaining(evidence, possible, generator)
    if isinstance(remaining, Settled):
        return settle(evidence, "era", remaining, contradictable=remaining.source == "weights")
    if differ_in_physics_alone(remaining):
        note = f"{' or '.join(remaining)}: the network is the same, the physics is not"
        assumed = settle(evidence, "era", Settled(remaining[-1], "assumed", note))
        return assumed + Part(autoencoder_refusals=(ambiguous(label, *remaining),))
    raise ambiguous(label, *remaining)


def ambiguous(label: str, *eras: str) -> AmbiguousArchitectureError:
    """Return the refusal of weights that fit several eras, with the override that settles it."""
    choices = " or ".join(f'{{"era": "{name}"}}' for name in eras)
    return AmbiguousArchitectureError(
        f"{label}: the evidence fits the eras {', '.join(eras)}, which compute different things; "
        f"settle it with --architecture FILE.json (or architecture=) holding {choices}"
    )


def _remaining(evidence: Evidence, possible: Eras, generator: str) -> Settled | Eras:
    """Return the era of a network without skips and what settles it, or the eras that remain."""
    if len(possible) == 1:
        return Settled(possible[0], "weights", "names of the forward_model keys")
    if evidence.model_config:
        recorded = tuple(name for name in possible if name in config_eras(evidence.model_config))
        if recorded:
            # A and A2 build the same network; where both remain, only a supervised model is left, which has no physics.
            return Settled(recorded[0], evidence.config_source, "fields of model_config")
    by_params = params_era(evidence.params)
    if by_params is not None:
        if differ_in_physics_alone(possible):
            # The params of the first releases are those of the older era that has no mark of its own.
            older = by_params.value == ERA_NAMES[0]
            return Settled(possible[0] if older else possible[-1], "params", by_params.note)
        if by_params.value in possible:
            return by_params
    if generator != "cnn":
        return Settled(NEWEST, "assumed", "J0 and J have the same generators")
    return possible


def _unet_era(evidence: Evidence) -> Part:
    """Settle a UNet's era: main's releases, which differ in how probe modes add, or a branch's."""
    config = evidence.model_config
    if not config:
        raise AmbiguousArchitectureError(
            f"{evidence.label}: a UNet without checkpoint or metadata can be of main (eras U and U2, equal for one probe "
            "mode), of the varpro branch (V, other physics) or of branch latent_experimental (U2 with plain tanh heads), "
            'which compute different things; settle it with --architecture FILE.json (or architecture=) holding {"era": '
            '"U2"} or {"era": "U"}, {"era": "V"}, or {"era": "U2", "unet_heads": "tanh"}'
        )
    if any(name.startswith(_INCOHERENT_MARK) for name in config):
        settled = settle(evidence, "era", Settled("U2", evidence.config_source, f"{_INCOHERENT_MARK}… in model_config"))
        return settled + _probe_modes(evidence, "unet", certain=True)
    part = settle(evidence, "era", Settled("U2", "assumed", "U or U2: equal for one probe mode")) + Part(
        notices=("the UNet eras U and U2 differ only in how several probe modes add; taken as U2 with one probe mode",)
    )
    trainable = evidence.config("intensity_scale_trainable", bool)
    if trainable is not None and trainable.value and "intensity_scale_trainable" not in evidence.override:
        # U replaces the scale factors by the model's own scale, U2 does not.
        refusal = ambiguous(evidence.label, "U", "U2")
        if config.get("intensity_scale", 1.0) != 1.0:
            raise refusal
        part += Part(autoencoder_refusals=(refusal,))
    if "training_patch_weighting" in config:
        # U and U2 have no choice of weights; the branch that has one moves patches the other way.
        part += Part(autoencoder_refusals=(ambiguous(evidence.label, "U2", "V"),))
    return part + _probe_modes(evidence, "unet", certain=False)


def _probe_modes(evidence: Evidence, generator: str, *, certain: bool) -> Part:
    """Say whether the era is known for sure: if not, a UNet is exported with the one probe mode that all eras agree on."""
    if generator != "unet":
        return Part()
    return settle(evidence, "single_probe_mode", Settled(not certain, "assumed"))
