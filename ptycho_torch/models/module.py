"""The whole module whose state_dict a bundle holds: scaler, network, physics, under the names users reach into."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ptycho_torch.metadata import CONFIGS, Configurations, configurations
from ptycho_torch.models.physics import ForwardModel
from ptycho_torch.models.registry import build_network
from ptycho_torch.spec import ModelSpec


class Scaler:
    """The caller's scale factors, or the model's own scale in place of both."""

    def __init__(self, spec: ModelSpec) -> None:
        """Take the scale from `spec`."""
        self.intensity_scale = spec.intensity_scale
        self.intensity_scale_trainable = spec.intensity_scale_trainable

    def input_factor(self, input_scale_factor: Tensor) -> Tensor:
        """Return what patterns are multiplied by, (B, 1, 1, 1); a scale of 1 leaves it to the caller."""
        if self.intensity_scale_trainable and self.intensity_scale != 1.0:
            return torch.full_like(input_scale_factor, self.intensity_scale)
        return input_scale_factor

    def output_factor(self, output_scale_factor: Tensor) -> Tensor:
        """Return what predictions are divided by, (B, 1, 1, 1); a scale of 1 replaces the caller's, too."""
        if self.intensity_scale_trainable:
            return torch.full_like(output_scale_factor, self.intensity_scale)
        return output_scale_factor


class Networks(nn.Module):
    """The children stored under `model.`: `autoencoder`, its second name `generator`, and `forward_model`."""

    def __init__(self, spec: ModelSpec, probe_mask: np.ndarray | None) -> None:
        """Build for `spec`; supervised models have no `forward_model`."""
        super().__init__()
        self.scaler = Scaler(spec)
        self.autoencoder = build_network(spec)
        if spec.generator not in ("cnn", "unet"):
            self.generator = self.autoencoder
        self.forward_model = None if spec.supervised else ForwardModel(spec, probe_mask)


class PtychoModel(nn.Module):
    """A PtychoPINN model: diffraction patterns to object patches, and on to the diffraction they predict."""

    def __init__(
        self, spec: ModelSpec, probe_mask: np.ndarray | None = None, configs: Configurations | None = None
    ) -> None:
        """Build for `spec`; `probe_mask` as in `ForwardModel`; `configs` are what a bundle stores, by default the era's own."""
        super().__init__()
        self.spec = spec
        configs = configurations(spec, probe_mask) if configs is None else configs
        self.data_config = SimpleNamespace(**configs.data_config)
        self.model_config = SimpleNamespace(**configs.model_config)
        self.training_config = SimpleNamespace(**configs.training_config)
        self.inference_config = SimpleNamespace(**configs.inference_config)
        self.ci_statistics = configs.ci_statistics
        self.generator_overrides = configs.generator_overrides
        self.torch_loss_mode = configs.training_config.get("torch_loss_mode", "poisson")
        self._template = configs.template
        self.model = Networks(spec, probe_mask)
        if spec.parity_scale_mode != "off":
            self.log_scale_delta = nn.Parameter(torch.tensor(spec.parity_fixed_delta))

    @property
    def hparams(self) -> dict[str, Any]:
        """The configurations by name, as Lightning keeps them."""
        return {name: dict(vars(getattr(self, name))) for name in CONFIGS}

    def get_ci_statistics(self) -> Any:
        """Return the statistics that training on photon counts froze, or None."""
        return self.ci_statistics

    def configurations(self) -> Configurations:
        """Return the configurations as they stand, for a bundle's metadata."""
        return Configurations(
            **self.hparams,
            ci_statistics=self.ci_statistics,
            generator_overrides=self.generator_overrides,
            template=self._template,
        )

    def network_output(self, x: Tensor, input_scale_factor: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's two real outputs, (B, C or 1, N, N), for amplitudes `x` (B, C, N, N)."""
        first, second = self.model.autoencoder(self.network_input(x, input_scale_factor))
        return first, second

    def network_input(self, x: Tensor, input_scale_factor: Tensor) -> Tensor:
        """Return what the network is fed, (B, C, N, N), for amplitudes `x` of the same shape."""
        return x * self.input_factor(input_scale_factor)

    def input_factor(self, input_scale_factor: Tensor) -> Tensor:
        """Return what the patterns are multiplied by, (B, 1, 1, 1)."""
        spec = self.spec
        if spec.parity_scale_mode in ("tied", "fixed", "input"):
            return input_scale_factor * torch.exp(-self.log_scale_delta)
        return self.model.scaler.input_factor(input_scale_factor)

    def output_factor(self, output_scale_factor: Tensor) -> Tensor:
        """Return what the predicted amplitude is divided by (rectangular: the exit wave multiplied by), (B, 1, 1, 1)."""
        spec = self.spec
        if spec.parity_scale_mode in ("tied", "fixed", "output"):
            return output_scale_factor * torch.exp(self.log_scale_delta)
        return self.model.scaler.output_factor(output_scale_factor)

    def patches(self, first: Tensor, second: Tensor) -> Tensor:
        """Return object patches, (B, C, N, N) complex, from the network's two outputs."""
        if self.spec.output_mode == "real_imag":
            return torch.complex(first.expand_as(second).contiguous(), second)
        return torch.complex(first * torch.cos(second), first * torch.sin(second))

    def forward_predict(self, x: Tensor, positions: Tensor, probe: Tensor, input_scale_factor: Tensor) -> Tensor:
        """Return object patches, (B, C, N, N) complex; positions and probe are accepted and ignored, as in PtychoPINN."""
        return self.patches(*self.network_output(x, input_scale_factor))

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        probe: Tensor,
        input_scale_factor: Tensor,
        output_scale_factor: Tensor,
        experiment_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor] | Tensor:
        """Return (predicted diffraction, amplitude, phase); a supervised model returns its object patches.

        Args:
            x: (B, C, N, N) diffraction amplitudes.
            positions: (B, C, 1, 2) (x, y) offsets from the group's centre, px.
            probe: broadcastable to (B, C, P, N, N) complex.
            input_scale_factor: (B, 1, 1, 1).
            output_scale_factor: (B, 1, 1, 1).
            experiment_ids: (B,) int64 dataset of each group; zeros by default.
        """
        first, second = self.network_output(x, input_scale_factor)
        patches = self.patches(first, second)
        if self.model.forward_model is None:
            return patches
        ids = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device) if experiment_ids is None else experiment_ids
        predicted = self.model.forward_model(patches, positions, probe, self.output_factor(output_scale_factor), ids)
        if self.spec.generator == "unet" or raw_heads(self.spec):
            return predicted, first, second
        return predicted, patches.abs(), patches.angle()


def raw_heads(spec: ModelSpec) -> bool:
    """Say whether the second and third outputs are the network's own amplitude and phase heads (amplitude may be negative)."""
    return spec.generator == "cnn" and spec.output_mode == "amp_phase"
