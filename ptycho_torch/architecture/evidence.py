"""Everything that speaks about the architecture of one role's weights, and how its fields are settled from it.

Precedence: names and shapes in the state_dict, then checkpoint or metadata, then params. What `save_torch_bundle` wrote
beside the weights speaks like an override; an override given now speaks before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptycho_torch.architecture.override import Architecture, read_architecture
from ptycho_torch.architecture.weights import Settled, WeightEvidence
from ptycho_torch.bundle import ARCHITECTURE, BundleRecord, Sentinel, StateDict
from ptycho_torch.errors import BundleError, ConfigurationError, EvidenceConflictError, MissingModelsError

Convert = Callable[[Any], Any]


@dataclass(frozen=True)
class Evidence:
    """What speaks about one role's weights."""

    label: str
    weights: WeightEvidence
    is_bundle: bool
    """A bundle has params; a checkpoint has none."""
    config_source: str
    """"checkpoint" or "metadata": where the configurations come from."""
    model_config: Mapping[str, Any]
    data_config: Mapping[str, Any]
    training_config: Mapping[str, Any]
    extras: Mapping[str, Any]
    """What stands beside the configurations."""
    params: Mapping[str, Any]
    override: Mapping[str, Any]
    override_source: Mapping[str, str]
    notices: tuple[str, ...]

    def config(self, key: str, convert: Convert | None = None) -> Settled | None:
        """Return what the model's configuration says."""
        return self._speaking(self.model_config, key, self.config_source, convert)

    def data(self, key: str, convert: Convert | None = None) -> Settled | None:
        """Return what the data's configuration says."""
        return self._speaking(self.data_config, key, self.config_source, convert)

    def extra(self, key: str, convert: Convert | None = None) -> Settled | None:
        """Return what stands beside the configurations."""
        return self._speaking(self.extras, key, self.config_source, convert)

    def param(self, key: str, convert: Convert | None = None) -> Settled | None:
        """Return what params say."""
        return self._speaking(self.params, key, "params", convert)

    def _speaking(self, values: Mapping[str, Any], key: str, source: str, convert: Convert | None) -> Settled | None:
        value = values.get(key)
        if value is None:
            return None
        try:
            return Settled(convert(value) if convert else value, source, key)
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.label}: {key} in the {source}: {error}") from error

    def overridden(self, name: str) -> Settled | None:
        """Return what the override says."""
        return Settled(self.override[name], self.override_source[name]) if name in self.override else None


def role_weights(record: BundleRecord, role: str) -> StateDict:
    """Return a role's weights; where a training run left a sentinel, those of the other role."""
    weights = record.weights[role]
    if isinstance(weights, Sentinel):
        others = [w for w in record.weights.values() if not isinstance(w, Sentinel)]
        if not others:
            raise MissingModelsError(f"{record.path.name}: both roles hold a sentinel; there are no weights in it")
        return others[0]
    return weights


def gather(record: BundleRecord, role: str, architecture: Architecture | None) -> Evidence:
    """Return all that a record, and an override, say about a role's weights."""
    given = read_architecture(architecture)
    override = {**read_architecture(record.architecture), **given}
    is_checkpoint = record.checkpoint is not None
    holder = (record.checkpoint or {}).get("hyper_parameters") or {} if is_checkpoint else record.metadata or {}
    sealed = _dictionary(holder.get("model_spec"))
    model_config = _dictionary(holder.get("model_config")) or _dictionary(sealed.get("model_config"))
    overrides = _dictionary(holder.get("generator_overrides"))
    unknown = sorted(str(key) for key in overrides if key not in model_config)
    notices = list(record.notices)
    if unknown:
        notices.append(
            f"the checkpoint's generator_overrides name {', '.join(unknown)}, which says nothing known; weights decide"
        )
    return Evidence(
        label=record.path.name,
        weights=WeightEvidence(role_weights(record, role)),
        is_bundle=record.kind != "ckpt",
        config_source="checkpoint" if is_checkpoint else "metadata",
        model_config={**model_config, **{k: v for k, v in overrides.items() if k in model_config}},
        data_config=_dictionary(holder.get("data_config")),
        training_config=_dictionary(holder.get("training_config")),
        extras={**sealed, **{k: v for k, v in holder.items() if not isinstance(v, dict)}},
        params=record.params.get(role) or {},
        override=override,
        override_source={name: "override" if name in given else ARCHITECTURE for name in override},
        notices=tuple(notices),
    )


@dataclass(frozen=True)
class Part:
    """Some fields of the spec, settled, and what is to be said of them."""

    fields: Mapping[str, Settled] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    refusals: tuple[BundleError, ...] = ()
    """Why nothing can be built."""
    autoencoder_refusals: tuple[BundleError, ...] = ()
    """Why the physics cannot be built, though the network can."""

    def __getitem__(self, name: str) -> Any:
        """Return a field's value."""
        return self.fields[name].value

    def __add__(self, other: Part) -> Part:
        """Return both; a field of the other replaces one of this."""
        return Part(
            {**self.fields, **other.fields},
            self.notices + other.notices,
            self.refusals + other.refusals,
            self.autoencoder_refusals + other.autoencoder_refusals,
        )


def settle(evidence: Evidence, name: str, *candidates: Settled | None, contradictable: bool = True) -> Part:
    """Return a field as the first candidate that speaks has it; an override speaks before all of them.

    Args:
        evidence: where the override is taken from.
        name: the field of `ModelSpec`.
        candidates: what speaks, the strongest first; the last must speak, unless the override does.
        contradictable: whether an override, checkpoint, metadata or params against the weights is refused.
    """
    speaking = [c for c in (evidence.overridden(name), *candidates) if c is not None]
    weights = next((c for c in speaking if c.source == "weights"), None)
    if weights is None or not contradictable:
        return Part({name: speaking[0]})
    refusals = tuple(
        EvidenceConflictError(
            f"{evidence.label}: the {other.source} say(s) {name} = {other.value!r}, "
            f"the weights say {weights.value!r}{f' ({weights.note})' if weights.note else ''}; "
            f"correct the {other.source} or take the bundle that belongs to it"
        )
        for other in speaking
        if other.source != "assumed" and other.value != weights.value
    )
    return Part({name: weights}, refusals=refusals)


def _dictionary(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def whole(value: Any) -> int:
    """Return a whole number that may be written as a float; raises `ConfigurationError` for anything else."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ConfigurationError(f"{value!r} where a whole number is expected")
    return int(value)


def real(value: Any) -> float:
    """Return a number as a float; raises `ConfigurationError` for anything else."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ConfigurationError(f"{value!r} where a number is expected")
    return float(value)
