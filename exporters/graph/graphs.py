"""What is traced: each model as a module of real-valued standard operations with the contract's inputs and outputs.

The eager model stays untouched; a graph is a second, independent expression of the same steps in the same order, and
parity compares the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from exporters.graph.arctangent import atan2
from exporters.graph.centre import keep_centre
from exporters.graph.lowering import lower
from exporters.graph.physics import Pair, RealPhysics
from ptycho_runtime import contract
from ptycho_torch.models.module import PtychoModel, raw_heads
from ptycho_torch.spec import ModelSpec


def graph_io(spec: ModelSpec, graph: str) -> tuple[list[contract.TensorInfo], list[contract.TensorInfo]]:
    """Return the inputs and outputs of a graph, in order, as `exports.json` records them."""
    size, batch = spec.N, contract.BATCH_AXIS
    modes: int | str = 1 if spec.single_probe_mode else contract.MODES_AXIS
    outs = spec.object_channels
    first = spec.amp_channels if spec.generator in ("cnn", "unet") else outs
    patch: list[int | str] = [batch, outs, size, size]
    predicted: list[int | str] = [batch, spec.out_channels, size, size]
    inputs = [
        _info(contract.DIFFRACTION, [batch, spec.in_channels, size, size]),
        _info(contract.INPUT_SCALE, [batch, 1, 1, 1]),
    ]
    if graph == contract.CENTRE:
        middle: list[int | str] = [batch, outs, size // 2, size // 2]
        return inputs, [_info(contract.OBJECT_REAL, middle), _info(contract.OBJECT_IMAG, middle)]
    if graph == "diffraction_to_obj":
        return inputs, [_info(contract.OBJECT_REAL, patch), _info(contract.OBJECT_IMAG, patch)]
    heads = (
        (contract.OBJECT_REAL, contract.OBJECT_IMAG)
        if spec.generator == "unet"
        else (contract.AMPLITUDE, contract.PHASE)
    )
    raw = spec.generator == "unet" or raw_heads(spec)
    outputs = [_info(heads[0], [batch, first if raw else outs, size, size]), _info(heads[1], patch)]
    if spec.supervised:
        return inputs, outputs
    inputs += [
        _info(contract.POSITIONS, [batch, spec.C, 1, 2]),
        _info(contract.PROBE_REAL, [modes, size, size]),
        _info(contract.PROBE_IMAG, [modes, size, size]),
        _info(contract.OUTPUT_SCALE, [batch, 1, 1, 1]),
    ]
    if spec.num_datasets > 1:
        inputs.append(_info(contract.EXPERIMENT_ID, [batch], "int64"))
    return inputs, [_info(contract.PREDICTED, predicted), *outputs]


@dataclass(frozen=True)
class Graph:
    """A graph ready to be traced."""

    name: str
    inputs: tuple[contract.TensorInfo, ...]
    outputs: tuple[contract.TensorInfo, ...]
    module: nn.Module
    """Takes the inputs in their order, float32 on the CPU."""


def make_graph(model: PtychoModel, name: str) -> Graph:
    """Return one of a model's graphs with what goes in and comes out."""
    inputs, outputs = graph_io(model.spec, name)
    return Graph(name, tuple(inputs), tuple(outputs), build_graph(model, name))


def has_centre(spec: ModelSpec) -> bool:
    """Say whether the middle of a model's patches is less work than the whole: generators mix all pixels up to their end."""
    return spec.generator in contract.CENTRE_GENERATORS


def _info(name: str, shape: list[int | str], dtype: str = "float32") -> contract.TensorInfo:
    return {"name": name, "shape": shape, "dtype": dtype}


def build_graph(model: PtychoModel, graph: str) -> nn.Module:
    """Return the real-valued module of a graph, taking its inputs in the order of `graph_io`; built in the model's precision."""
    kinds: dict[str, type[PatchGraph]] = {"diffraction_to_obj": PatchGraph, contract.CENTRE: CentreGraph}
    graph_module = kinds.get(graph, AutoencoderGraph)(model)
    return graph_module.eval().requires_grad_(False)


class PatchGraph(nn.Module):
    """Diffraction to object patches."""

    def __init__(self, model: PtychoModel) -> None:
        """Copy the model's network in its exportable form."""
        super().__init__()
        self.spec = model.spec
        self.network = lower(model.model.autoencoder)
        delta = float(model.log_scale_delta.detach()) if model.spec.parity_scale_mode != "off" else 0.0
        spec = model.spec
        self.input_gain = math.exp(-delta) if spec.parity_scale_mode in ("tied", "fixed", "input") else 1.0
        self.output_gain = math.exp(delta) if spec.parity_scale_mode in ("tied", "fixed", "output") else 1.0

    def heads(self, diffraction: Tensor, input_scale: Tensor) -> Pair:
        """Return the network's two real outputs."""
        spec = self.spec
        if spec.intensity_scale_trainable and spec.intensity_scale != 1.0:
            # The factor stays an input of the graph, so that every export has one signature; 0·factor keeps it connected.
            factor = input_scale * 0.0 + spec.intensity_scale
        elif self.input_gain != 1.0:
            factor = input_scale * self.input_gain
        else:
            factor = input_scale
        first, second = self.network(diffraction * factor)
        return first, second

    def patches(self, first: Tensor, second: Tensor) -> Pair:
        """Return real and imaginary part of the object patches."""
        if self.spec.output_mode != "real_imag":
            return first * torch.cos(second), first * torch.sin(second)
        if self.spec.generator in ("cnn", "unet") and self.spec.amp_channels != self.spec.object_channels:
            return first.expand(-1, self.spec.object_channels, -1, -1), second
        return first, second

    def forward(self, diffraction: Tensor, input_scale_factor: Tensor) -> Pair:
        """Return (object_real, object_imag)."""
        return self.patches(*self.heads(diffraction, input_scale_factor))


class CentreGraph(PatchGraph):
    """Diffraction to the central half of the object patches."""

    def __init__(self, model: PtychoModel) -> None:
        """Copy the model's network in its exportable form, with last stages that compute their middle."""
        super().__init__(model)
        keep_centre(self.network)


class Beside(NamedTuple):
    """What the physics takes beside the patches; None where a model has no physics, or one dataset alone."""

    positions: Tensor | None = None
    probe_real: Tensor | None = None
    probe_imag: Tensor | None = None
    output_scale_factor: Tensor | None = None
    experiment_id: Tensor | None = None


class AutoencoderGraph(PatchGraph):
    """Diffraction to predicted diffraction, through the whole physics, and the object's amplitude and phase."""

    def __init__(self, model: PtychoModel) -> None:
        """Copy the model's network and the constants of its physics."""
        super().__init__(model)
        forward_model = model.model.forward_model
        self.physics = None if forward_model is None else RealPhysics(forward_model, self.output_gain)

    def forward(  # type: ignore[override]  # more inputs than the graph it extends
        self,
        diffraction: Tensor,
        input_scale_factor: Tensor,
        positions: Tensor | None = None,
        probe_real: Tensor | None = None,
        probe_imag: Tensor | None = None,
        output_scale_factor: Tensor | None = None,
        experiment_id: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Return the outputs that `graph_io` lists."""
        beside = Beside(positions, probe_real, probe_imag, output_scale_factor, experiment_id)
        return self.results(self.heads(diffraction, input_scale_factor), beside)

    def results(self, heads: Pair, beside: Beside) -> tuple[Tensor, ...]:
        """Return what the graph gives, of the network's two outputs."""
        if self.physics is None and raw_heads(self.spec):
            return heads
        return self.outputs(heads, self.patches(*heads), beside)

    def outputs(self, heads: Pair, patches: Pair, beside: Beside) -> tuple[Tensor, ...]:
        """Return the outputs that `graph_io` lists, of the network's two outputs and the patches made of them."""
        raw = raw_heads(self.spec)
        if self.physics is None:
            return heads if raw else self.polar(patches)
        positions, probe_real, probe_imag, output_scale, ids = beside
        assert positions is not None
        assert probe_real is not None
        assert probe_imag is not None
        assert output_scale is not None
        predicted = self.physics(patches, positions, (probe_real, probe_imag), output_scale, ids)
        return (predicted, *heads) if raw or self.spec.generator == "unet" else (predicted, *self.polar(patches))

    def polar(self, patches: Pair) -> Pair:
        """Return amplitude and phase (rad) of the object patches."""
        real, imag = patches
        return torch.sqrt(real * real + imag * imag), atan2(imag, real)
