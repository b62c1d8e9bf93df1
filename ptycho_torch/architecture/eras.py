"""Which eras of PtychoPINN can have stored a state_dict, and which of them the records beside it speak for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptycho_torch.architecture.weights import Settled, WeightEvidence
from ptycho_torch.eras import ERA_NAMES, ERAS, NEWEST, EraName, config_mark

Eras = tuple[EraName, ...]


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


def era_evidence(
    possible: Eras,
    generator: str,
    model_config: Mapping[str, Any],
    config_source: str,
    params: Mapping[str, Any],
) -> Settled | Eras:
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
    by_params = params_era(params)
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
