"""Which eras of PtychoPINN can have stored a state_dict, and which of them the records beside it speak for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptycho_torch.architecture.weights import Settled, WeightEvidence

_ALPHA_BETA = {"alpha", "beta"}
_RECTANGULAR = {"rect_scaler.s1", "rect_scaler.s2"}
_FIELDS_OF_J = ("use_legacy_decoder_channel_override", "rect_s1s2_init", "object_layout")


def possible_eras(weights: WeightEvidence, generator: str, supervised: bool) -> tuple[str, ...]:
    """Return the eras whose modules have these keys, whatever the records say; empty where no era has them."""
    keys = weights.physics_keys
    if generator == "unet":
        return ("U", "U2", "V") if keys == _RECTANGULAR else ()
    if generator != "cnn":
        return ("J0", "J") if keys == _ALPHA_BETA | _RECTANGULAR or (supervised and not keys) else ()
    if keys == _RECTANGULAR:
        return ("V",)
    if keys == _ALPHA_BETA:
        return "A2", "B"
    if keys == _ALPHA_BETA | _RECTANGULAR:
        return "J0", "J"
    if keys:
        return ()
    return ("A", "A2", "B", "J0", "J") if supervised else ("A",)


def config_eras(model_config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the eras whose `model_config` has these fields; all of them where there is none."""
    if any(key in model_config for key in _FIELDS_OF_J):
        return ("J",)
    # The fields of the UNet releases between B and J0 are not all known, so only the newest rule them out.
    if "learned_input_channels" in model_config:
        return "J0", "U2", "V"
    if "architecture" in model_config:
        return "B", "U2", "V"
    if model_config:
        return "A", "A2", "U", "U2", "V"
    return "A", "A2", "B", "V", "U", "U2", "J0", "J"


def params_era(params: Mapping[str, Any]) -> Settled | None:
    """Return the era whose `params.dill` has these keys: A (A2 has the same), B, J0 or J."""
    if not params:
        return None
    for key, era in (("object_layout", "J"), ("learned_input_channels", "J0"), ("architecture", "B")):
        if key in params:
            return Settled(era, "params", f"has {key}")
    return Settled("A", "params", "has no architecture")


def era_evidence(
    possible: tuple[str, ...],
    generator: str,
    model_config: Mapping[str, Any],
    config_source: str,
    params: Mapping[str, Any],
) -> Settled | tuple[str, ...]:
    """Return the era and what settles it, or the eras that remain.

    Args:
        possible: what `possible_eras` gave, not empty.
        generator: the network's name.
        model_config: the checkpoint's or the metadata's; empty where there is none.
        config_source: which of the two it is.
        params: the bundle's; empty where there are none.
    """
    if generator == "unet":
        # Every UNet with one probe mode that PtychoPINN's main branch trained computes what U2 does.
        return Settled("U2", "assumed", "U or U2: equal for one probe mode")
    if len(possible) == 1:
        return Settled(possible[0], "weights", "names of the forward_model keys")
    remaining = tuple(era for era in possible if era in config_eras(model_config)) if model_config else ()
    if remaining:
        # A and A2 build the same network; where both remain, only a supervised model is left, which has no physics.
        return Settled(remaining[0], config_source, "fields of model_config")
    told = params_era(params)
    if told is not None:
        if told.value in possible and possible != ("A2", "B"):
            return told
        if possible == ("A2", "B"):
            return Settled("A2" if told.value == "A" else "B", "params", told.note)
    if generator != "cnn":
        return Settled("J", "assumed", "J0 and J have the same generators")
    return possible
