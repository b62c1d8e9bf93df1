"""A bundle's eager models, rebuilt for an export or its verification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exporters.graph.graphs import has_centre
from ptycho_runtime import contract
from ptycho_torch import params as params_module
from ptycho_torch.architecture import Architecture, Detection, detect
from ptycho_torch.build import build_models, bundle_params
from ptycho_torch.bundle import BundleRecord
from ptycho_torch.errors import EvidenceConflictError
from ptycho_torch.models.module import PtychoModel
from ptycho_torch.spec import ModelSpec


@dataclass(frozen=True)
class Loaded:
    """The eager models by graph, with what they are."""

    bundle: BundleRecord
    spec: ModelSpec
    models: Mapping[str, PtychoModel]
    """By graph; where the middle of the patches is a graph too, its model is the one of the whole."""
    params: Mapping[str, Any]
    notices: tuple[str, ...]
    left_out: Mapping[str, str]
    """Graphs that cannot be made, with the reason."""


def load_for_export(bundle: BundleRecord, architecture: Architecture | None) -> Loaded:
    """Rebuild the models that can be exported, and apply the bundle's parameters to `params.cfg`.

    Where the physics is undecided but the network is not, only the object graphs are loaded, and a notice says why.

    Args:
        bundle: from `read_bundle`.
        architecture: fields that settle what it leaves open.

    Raises:
        BundleError: the bundle is refused.
    """
    detections: dict[str, Detection] = {role: detect(bundle, role, architecture) for role in contract.GRAPHS}
    spec, other = (detections[role].spec for role in contract.GRAPHS)
    if spec != other:
        differing = [name for name, value in spec.to_json().items() if other.to_json()[name] != value]
        raise EvidenceConflictError(
            f"{bundle.path.name}: its two models are of different architectures ({', '.join(differing)}); "
            "a bundle holds one architecture under both names"
        )
    notices = list(dict.fromkeys(notice for detection in detections.values() for notice in detection.notices))
    left_out: dict[str, str] = {}
    refusal = next((d.autoencoder_refusal for d in detections.values() if d.autoencoder_refusal), None)
    if refusal is not None:
        left_out[contract.AUTOENCODER] = str(refusal)
        notices.append(f"autoencoder is not exported: {refusal}")
    values = bundle_params(bundle, detections[contract.DIFFRACTION_TO_OBJ])
    params_module.update_legacy_dict(params_module.cfg, values)
    models = build_models(bundle, {role: found for role, found in detections.items() if role not in left_out})
    if has_centre(spec):
        models[contract.CENTRE] = models[contract.DIFFRACTION_TO_OBJ]
    return Loaded(bundle, spec, models, values, tuple(notices), left_out)
