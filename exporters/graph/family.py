"""Graphs of one network: their network is traced once, and each takes its own outputs.

`diffraction_to_obj` and `autoencoder` usually hold the same weights, and the middle of the patches always those of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from exporters.graph.centre import add_centre
from exporters.graph.graphs import AutoencoderGraph, Beside, Graph, make_graph
from exporters.graph.physics import Pair
from ptycho_runtime import contract
from ptycho_torch.models.module import PtychoModel


@dataclass(frozen=True)
class Family:
    """Graphs of equal weights, ready to be traced as one."""

    graphs: tuple[Graph, ...]
    module: nn.Module
    """Takes the inputs of the graph that has the most, and returns the outputs of all graphs one after the other."""

    @property
    def inputs(self) -> tuple[contract.TensorInfo, ...]:
        """Inputs of the module; those of each graph are among them."""
        return max((graph.inputs for graph in self.graphs), key=len)


def make_family(models: Mapping[str, PtychoModel], names: Iterable[str]) -> Family:
    """Return graphs of equal weights in a module that runs their network once.

    Args:
        models: by graph, float32 on the CPU.
        names: graphs whose models have equal weights, as `families` returns them.
    """
    graphs = tuple(make_graph(models[name], name) for name in names)
    if len(graphs) == 1:
        return Family(graphs, graphs[0].module)
    module = FamilyGraph(models[graphs[0].name], [graph.name for graph in graphs])
    return Family(graphs, module.eval().requires_grad_(False))


class FamilyGraph(AutoencoderGraph):
    """Diffraction to the outputs of several graphs."""

    def __init__(self, model: PtychoModel, names: list[str]) -> None:
        """Copy the model's network, with last stages that compute their middle too where that is a graph."""
        super().__init__(model)
        self.names = names
        if contract.CENTRE in names:
            add_centre(self.network)

    def results(self, heads: tuple[Any, Any], beside: Beside) -> tuple[Tensor, ...]:
        """Return the outputs of each graph, in the order of the names."""
        whole: Pair = heads
        middle: Pair = heads
        if contract.CENTRE in self.names:
            first, second = heads
            whole, middle = (first.whole, second.whole), (first.middle, second.middle)
        patches = self.patches(*whole)
        results: list[Tensor] = []
        for name in self.names:
            if name == contract.AUTOENCODER:
                results += self.outputs(whole, patches, beside)
            else:
                results += self.patches(*middle) if name == contract.CENTRE else patches
        return tuple(results)


def families(models: Mapping[str, PtychoModel], graphs: Iterable[str]) -> list[list[str]]:
    """Return graphs that have equal models together; the first of each is the one whose model is run."""
    families: list[list[str]] = []
    for graph in sorted(graphs, key=lambda graph: graph != contract.AUTOENCODER):
        for family in families:
            if _equal(models[family[0]], models[graph]):
                family.append(graph)
                break
        else:
            families.append([graph])
    return families


def _equal(first: PtychoModel, second: PtychoModel) -> bool:
    if first is second:
        return True
    a, b = first.state_dict(), second.state_dict()
    return first.spec == second.spec and a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
