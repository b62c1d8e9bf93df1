"""What is traced: each model as a module of real-valued standard operations with the contract's inputs and outputs.

The eager model stays untouched; a graph is a second, independent expression of the same steps in the same order, and
parity compares the two. Fourier transforms of the fixed size N are products with constant matrices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from exporters.graph.arctangent import atan2
from exporters.graph.centre import keep_centre
from exporters.graph.lowering import lower
from ptycho_runtime import contract as c
from ptycho_torch.models.module import PtychoModel, raw_heads
from ptycho_torch.models.physics import (
    CENTRAL_MASK_EPS,
    PROBE_WEIGHT_EPS,
    WEIGHT_CUT,
    ForwardModel,
    divides_probe,
)
from ptycho_torch.spec import ModelSpec

Pair = tuple[Tensor, Tensor]  # real and imaginary part


def graph_io(spec: ModelSpec, graph: str) -> tuple[list[c.TensorInfo], list[c.TensorInfo]]:
    """Return the inputs and outputs of a graph, in order, as `exports.json` records them."""
    size, batch = spec.N, c.BATCH_AXIS
    modes: int | str = 1 if spec.single_probe_mode else c.MODES_AXIS
    outs = spec.object_channels
    first = spec.amp_channels if spec.generator in ("cnn", "unet") else outs
    patch: list[int | str] = [batch, outs, size, size]
    predicted: list[int | str] = [batch, spec.out_channels, size, size]
    inputs = [_info(c.DIFFRACTION, [batch, spec.in_channels, size, size]), _info(c.INPUT_SCALE, [batch, 1, 1, 1])]
    if graph == c.CENTRE:
        middle: list[int | str] = [batch, outs, size // 2, size // 2]
        return inputs, [_info(c.OBJECT_REAL, middle), _info(c.OBJECT_IMAG, middle)]
    if graph == "diffraction_to_obj":
        return inputs, [_info(c.OBJECT_REAL, patch), _info(c.OBJECT_IMAG, patch)]
    heads = (c.OBJECT_REAL, c.OBJECT_IMAG) if spec.generator == "unet" else (c.AMPLITUDE, c.PHASE)
    raw = spec.generator == "unet" or raw_heads(spec)
    outputs = [_info(heads[0], [batch, first if raw else outs, size, size]), _info(heads[1], patch)]
    if spec.supervised:
        return inputs, outputs
    inputs += [
        _info(c.POSITIONS, [batch, spec.C, 1, 2]),
        _info(c.PROBE_REAL, [modes, size, size]),
        _info(c.PROBE_IMAG, [modes, size, size]),
        _info(c.OUTPUT_SCALE, [batch, 1, 1, 1]),
    ]
    if spec.num_datasets > 1:
        inputs.append(_info(c.EXPERIMENT_ID, [batch], "int64"))
    return inputs, [_info(c.PREDICTED, predicted), *outputs]


@dataclass(frozen=True)
class Graph:
    """A graph ready to be traced."""

    name: str
    inputs: tuple[c.TensorInfo, ...]
    outputs: tuple[c.TensorInfo, ...]
    module: nn.Module
    """Takes the inputs in their order, float32 on the CPU."""


def make_graph(model: PtychoModel, name: str) -> Graph:
    """Return one of a model's graphs with what goes in and comes out."""
    inputs, outputs = graph_io(model.spec, name)
    return Graph(name, tuple(inputs), tuple(outputs), build_graph(model, name))


def has_centre(spec: ModelSpec) -> bool:
    """Say whether the middle of a model's patches is less work than the whole: generators mix all pixels up to their end."""
    return spec.generator in c.CENTRE_GENERATORS


def _info(name: str, shape: list[int | str], dtype: str = "float32") -> c.TensorInfo:
    return {"name": name, "shape": shape, "dtype": dtype}


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
    return outputs_of_heads(model, model.network_output(feed[c.DIFFRACTION], feed[c.INPUT_SCALE]), graphs, feed)


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
    middle = c.centre(model.spec.N)
    results = {}
    for graph in graphs:
        if graph == "autoencoder":
            results[graph] = _autoencoder_outputs(model, heads, patches, feed)
            continue
        seen = patches[..., middle, middle] if graph == c.CENTRE else patches
        results[graph] = {c.OBJECT_REAL: seen.real, c.OBJECT_IMAG: seen.imag}
    return results


def _autoencoder_outputs(
    model: PtychoModel, heads: Pair, patches: Tensor, feed: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    spec = model.spec
    first, second = heads if raw_heads(spec) or spec.generator == "unet" else (patches.abs(), patches.angle())
    if model.model.forward_model is None:
        return {c.AMPLITUDE: first, c.PHASE: second}
    probe = torch.complex(feed[c.PROBE_REAL], feed[c.PROBE_IMAG])[None, None]
    ids = feed.get(c.EXPERIMENT_ID)
    if ids is None:
        ids = torch.zeros(len(patches), dtype=torch.int64, device=patches.device)
    factor = model.output_factor(feed[c.OUTPUT_SCALE])
    predicted = model.model.forward_model(patches, feed[c.POSITIONS], probe, factor, ids)
    names = [info["name"] for info in graph_io(spec, "autoencoder")[1]]
    return dict(zip(names, (predicted, first, second), strict=True))


def build_graph(model: PtychoModel, graph: str) -> nn.Module:
    """Return the real-valued module of a graph, taking its inputs in the order of `graph_io`; built in the model's precision."""
    kinds: dict[str, type[PatchGraph]] = {"diffraction_to_obj": PatchGraph, c.CENTRE: CentreGraph}
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


class RealPhysics(nn.Module):
    """`ForwardModel` in real arithmetic, with N-point Fourier transforms as matrix products.

    The rows of the Fourier matrices are in shifted order, so that the zero frequency comes out in the centre.
    """

    fourier_cos: Tensor
    fourier_sin: Tensor
    probe_mask: Tensor

    def __init__(self, forward_model: ForwardModel, output_gain: float) -> None:
        """Take the constants and parameters of the eager physics."""
        super().__init__()
        self.spec = forward_model.spec
        self.output_gain = output_gain
        self.translator = forward_model.translator
        spec, like = self.spec, forward_model.translator.box
        shifted = np.fft.fftshift(np.arange(spec.N))
        angle = 2.0 * np.pi * ((shifted[:, None] * np.arange(spec.N)[None, :]) % spec.N) / spec.N
        norm = 1.0 / math.sqrt(spec.N)
        self.register_buffer("fourier_cos", torch.from_numpy(np.cos(angle) * norm).to(like.dtype))
        self.register_buffer("fourier_sin", torch.from_numpy(-np.sin(angle) * norm).to(like.dtype))
        if spec.probe_mask != "none":
            self.register_buffer("probe_mask", forward_model.probe_mask.to(like.dtype))
        for name, values in self.scales(forward_model).items():
            self.register_buffer(name, values)

    def scales(self, forward_model: ForwardModel) -> dict[str, Tensor]:
        """Return the per-dataset scales that act, as they are indexed in the graph."""
        spec = self.spec
        if spec.physics == "rectangular":
            found = {"scale_real": forward_model.rect_scaler.s1, "scale_imag": forward_model.rect_scaler.s2}
        elif spec.intensity_scale_trainable and spec.rules.has_alpha_beta:
            found = {"alpha": forward_model.alpha, "beta": forward_model.beta}
        else:
            return {}
        return {name: value.detach().clone().reshape(-1, 1, 1, 1, 1) for name, value in found.items()}

    def scale(self, name: str, experiment_id: Tensor | None, axes: int) -> Tensor:
        """Return one scale per group, (B or 1, 1, …) with the given number of axes."""
        values: Tensor = getattr(self, name)
        values = values.reshape(-1, *[1] * (axes - 1))
        return values if experiment_id is None else values[experiment_id]

    def forward(
        self, patches: Pair, positions: Tensor, probe: Pair, output_scale: Tensor, experiment_id: Tensor | None
    ) -> Tensor:
        """Return the predicted diffraction, (B, C, N, N)."""
        spec = self.spec
        if spec.probe_scale != 1.0 and divides_probe(spec):
            probe = (probe[0] / spec.probe_scale, probe[1] / spec.probe_scale)
        factor = output_scale
        if spec.intensity_scale_trainable:
            factor = output_scale * 0.0 + spec.intensity_scale
        elif self.output_gain != 1.0:
            factor = output_scale * self.output_gain
        # Without reassembly positions do not act; they stay an input of the graph.
        unmoved = (patches[0] + 0.0 * positions[:, :1, :, :1], patches[1])
        patches = self.overlap(patches, positions, probe) if spec.object_big else unmoved
        real, imag = (part.unsqueeze(2) for part in patches)
        probe_real, probe_imag = (part[None, None] for part in probe)
        if spec.physics == "rectangular":
            return self.intensity(real, imag, probe_real, probe_imag, factor.unsqueeze(2), experiment_id)
        return self.amplitude(real, imag, probe_real, probe_imag, factor, experiment_id)

    def overlap(self, patches: Pair, positions: Tensor, probe: Pair) -> Pair:
        """Return each pattern's view of the group's reassembled object."""
        dtype = patches[0].dtype
        matrix_y, matrix_x = self.translator.matrices(positions, dtype, inverse=False)
        columns = matrix_x.transpose(-1, -2)
        normalise = self.normaliser(matrix_y, matrix_x, columns, probe)
        back_y, back_x = self.translator.matrices(positions, dtype, inverse=True)
        back_columns = back_x.transpose(-1, -2)
        views = []
        for part in patches:
            canvas = normalise(matrix_y @ part @ columns)
            views.append(back_y @ canvas @ back_columns)
        return views[0], views[1]

    def normaliser(self, matrix_y: Tensor, matrix_x: Tensor, columns: Tensor, probe: Pair):  # type: ignore[no-untyped-def]
        """Return the function that adds up moved patches, (B, C, M, M) to (B, 1, M, M), with the era's weights."""
        spec = self.spec
        if spec.patch_weighting == "probe":
            illumination = (probe[0] * probe[0] + probe[1] * probe[1]).sum(0)[None, None]
            weight = matrix_y @ illumination @ columns
        else:
            box = self.translator.box.to(matrix_y.dtype).unsqueeze(-1)
            weight = (matrix_y @ box) * (matrix_x @ box).transpose(-1, -2)
        total = weight.sum(1, keepdim=True)
        if spec.rules.reassembly == "floored":
            covered = (total > WEIGHT_CUT).to(total.dtype)
            floor = torch.clamp_min(total, 1.0)
            return lambda moved: moved.sum(1, keepdim=True) / floor * covered
        if spec.rules.reassembly == "plain":
            return lambda moved: moved.sum(1, keepdim=True) / (total + CENTRAL_MASK_EPS)
        if spec.patch_weighting == "central_mask":
            covered = (total > WEIGHT_CUT).to(total.dtype)
            return lambda moved: (moved * weight).sum(1, keepdim=True) / (total + CENTRAL_MASK_EPS) * covered
        if spec.patch_weighting == "probe":
            covered = (total > WEIGHT_CUT * total.amax((-2, -1), keepdim=True)).to(total.dtype)
        else:
            covered = (total > WEIGHT_CUT).to(total.dtype)
        floor = torch.clamp_min(total, PROBE_WEIGHT_EPS)
        return lambda moved: (moved * weight).sum(1, keepdim=True) / floor * covered

    def far_field(self, real: Tensor, imag: Tensor) -> Pair:
        """Return the orthonormal two-dimensional Fourier transform, zero frequency in the centre."""
        cos, sin = self.fourier_cos, self.fourier_sin
        rows_real = cos @ real - sin @ imag
        rows_imag = cos @ imag + sin @ real
        cos_t, sin_t = cos.transpose(0, 1), sin.transpose(0, 1)
        return rows_real @ cos_t - rows_imag @ sin_t, rows_real @ sin_t + rows_imag @ cos_t

    def amplitude(
        self, real: Tensor, imag: Tensor, probe_real: Tensor, probe_imag: Tensor, factor: Tensor, ids: Tensor | None
    ) -> Tensor:
        """Return the amplitude detector's result; the orthonormal transform already divides |F|² by N²."""
        spec = self.spec
        exit_real = real * probe_real - imag * probe_imag
        exit_imag = real * probe_imag + imag * probe_real
        if spec.probe_mask != "none":
            exit_real, exit_imag = exit_real * self.probe_mask, exit_imag * self.probe_mask
        far_real, far_imag = self.far_field(exit_real, exit_imag)
        far_real, far_imag = far_real.sum(2), far_imag.sum(2)
        diffraction = torch.sqrt(far_real * far_real + far_imag * far_imag) / factor
        if spec.amplitude_physics_gain != 1.0:
            diffraction = diffraction * spec.amplitude_physics_gain
        if spec.intensity_scale_trainable and spec.rules.has_alpha_beta:
            diffraction = self.scale("alpha", ids, 4) * diffraction + self.scale("beta", ids, 4)
        return diffraction

    def intensity(
        self, real: Tensor, imag: Tensor, probe_real: Tensor, probe_imag: Tensor, factor: Tensor, ids: Tensor | None
    ) -> Tensor:
        """Return the rectangular detector's intensity."""
        scaled_real = self.scale("scale_real", ids, 5) * real * factor
        scaled_imag = self.scale("scale_imag", ids, 5) * imag * factor
        exit_real = probe_real * scaled_real - probe_imag * scaled_imag
        exit_imag = probe_imag * scaled_real + probe_real * scaled_imag
        far_real, far_imag = self.far_field(exit_real, exit_imag)
        if self.spec.rules.coherent_modes:
            far_real, far_imag = far_real.sum(2, keepdim=True), far_imag.sum(2, keepdim=True)
        return torch.relu((far_real * far_real + far_imag * far_imag).sum(2))
