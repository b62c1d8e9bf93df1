"""What the untouched eager model gives, under the contract's names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from exporters.graph.graphs import graph_io
from exporters.graph.physics import Pair
from ptycho_runtime import contract
from ptycho_torch.models.module import PtychoModel, raw_heads


def eager_outputs(model: PtychoModel, graph: str, feed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the untouched eager model's results under the contract's names.

    Args:
        model: in float32 or float64.
        graph: one of `contract.ALL_GRAPHS`.
        feed: the graph's inputs by name, in the model's precision.
    """
    return all_eager_outputs(model, [graph], feed)[graph]


def all_eager_outputs(
    model: PtychoModel, graphs: Iterable[str], feed: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """Return the untouched eager model's results for several graphs of the same weights, by graph: its network runs once.

    Args:
        model: in float32 or float64.
        graphs: of `contract.ALL_GRAPHS`.
        feed: inputs of all of them by name, in the model's precision.
    """
    return outputs_of_heads(
        model, model.network_output(feed[contract.DIFFRACTION], feed[contract.INPUT_SCALE]), graphs, feed
    )


def outputs_of_heads(
    model: PtychoModel, heads: Pair, graphs: Iterable[str], feed: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """Return what the untouched eager model makes of its network's two outputs, by graph.

    Args:
        model: in float32 or float64.
        heads: (B, channels, N, N) each, in the model's precision.
        graphs: of `contract.ALL_GRAPHS`.
        feed: inputs of all of them by name.
    """
    patches = model.patches(*heads)
    middle = contract.centre(model.spec.N)
    results = {}
    for graph in graphs:
        if graph == "autoencoder":
            results[graph] = _autoencoder_outputs(model, heads, patches, feed)
            continue
        seen = patches[..., middle, middle] if graph == contract.CENTRE else patches
        results[graph] = {contract.OBJECT_REAL: seen.real, contract.OBJECT_IMAG: seen.imag}
    return results


def _autoencoder_outputs(
    model: PtychoModel, heads: Pair, patches: Tensor, feed: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    spec = model.spec
    first, second = heads if raw_heads(spec) or spec.generator == "unet" else (patches.abs(), patches.angle())
    if model.model.forward_model is None:
        return {contract.AMPLITUDE: first, contract.PHASE: second}
    probe = torch.complex(feed[contract.PROBE_REAL], feed[contract.PROBE_IMAG])[None, None]
    ids = feed.get(contract.EXPERIMENT_ID)
    if ids is None:
        ids = torch.zeros(len(patches), dtype=torch.int64, device=patches.device)
    factor = model.output_factor(feed[contract.OUTPUT_SCALE])
    predicted = model.model.forward_model(patches, feed[contract.POSITIONS], probe, factor, ids)
    names = [info["name"] for info in graph_io(spec, "autoencoder")[1]]
    return dict(zip(names, (predicted, first, second), strict=True))
