"""A network as a function of the spec, a dictionary of weights under PtychoPINN's own key names, and the input."""

from __future__ import annotations

from exporters.parity.independent.convolutional import convolutional
from exporters.parity.independent.layers import Array, Weights
from exporters.parity.independent.spectral import spectral
from exporters.parity.independent.uno import uno
from ptycho_torch.spec import ModelSpec


def network(spec: ModelSpec, weights: Weights, x: Array) -> tuple[Array, Array]:
    """Return the network's two outputs for `x` (B, in_channels, N, N)."""
    if spec.generator in ("cnn", "unet"):
        return convolutional(spec, weights, x)
    if spec.generator == "neuralop_uno":
        y = uno(weights, x)
        return y[:, :1], y[:, 1:]
    return spectral(spec, weights, x)
