"""Layers as plain functions of (B, channels, n, n) and weights under PtychoPINN's own key names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import expit, ndtr

Array = np.ndarray
Weights = Mapping[str, Array]


def conv(x: Array, w: Array, b: Array | None = None) -> Array:
    """Correlate (B, in, n, n) with (out, in, k, k), zero padding of k//2."""
    k, n = w.shape[2], x.shape[2]
    p = k // 2
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    y = sum(
        np.einsum("oi,bihw->bohw", w[:, :, i, j], padded[:, :, i : i + n, j : j + n], optimize=True)
        for i in range(k)
        for j in range(k)
    )
    return np.asarray(y if b is None else y + b[:, None, None])


def named_conv(x: Array, p: Weights, name: str) -> Array:
    """Apply the convolution stored under `name`."""
    return conv(x, p[name + ".weight"], p.get(name + ".bias"))


def batch_norm(x: Array, p: Weights, name: str) -> Array:
    """Normalise by running statistics where the state_dict has any under `name`."""
    if name + ".weight" not in p:
        return x
    mean, var, w, b = (p[f"{name}.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / np.sqrt(var + 1e-5) * w + b


def relu(x: Array) -> Array:
    """Return max(x, 0)."""
    return np.asarray(np.maximum(x, 0.0))


def silu(x: Array) -> Array:
    """Return x · sigmoid(x)."""
    return x * expit(x)


def gelu(x: Array) -> Array:
    """Return x · Φ(x), Φ the normal distribution."""
    return x * ndtr(x)


def double_size(x: Array) -> Array:
    """Repeat every pixel of (B, c, n, n) to 2 × 2."""
    return np.repeat(np.repeat(x, 2, axis=2), 2, axis=3)


def blocks_2x2(x: Array) -> Array:
    """Return (B, c, n/2, 2, n/2, 2): the image in blocks of 2 × 2."""
    b, c, n, _ = x.shape
    return x.reshape(b, c, n // 2, 2, n // 2, 2)


def conv_pair(x: Array, p: Weights, name: str) -> Array:
    """Apply two convolutions, each with batch norm where it is stored, and ReLU."""
    x = relu(batch_norm(named_conv(x, p, name + ".conv1"), p, name + ".bn1"))
    return relu(batch_norm(named_conv(x, p, name + ".conv2"), p, name + ".bn2"))


def spatial_gate(x: Array, p: Weights, name: str) -> Array:
    """Gate pixels by what a convolution makes of the largest and mean channel."""
    pair = np.stack((x.max(axis=1), x.mean(axis=1)), axis=1)
    return x * expit(conv(pair, p[name + ".compress.weight"]))


def cbam(x: Array, p: Weights, name: str) -> Array:
    """Gate channels, then pixels."""

    def mlp(v: Array) -> Array:
        hidden = relu(v @ p[name + ".ChannelGate.mlp.1.weight"].T + p[name + ".ChannelGate.mlp.1.bias"])
        return hidden @ p[name + ".ChannelGate.mlp.3.weight"].T + p[name + ".ChannelGate.mlp.3.bias"]

    gate = expit(mlp(x.mean(axis=(2, 3))) + mlp(x.max(axis=(2, 3))))
    return spatial_gate(x * gate[:, :, None, None], p, name + ".SpatialGate")


def eca(x: Array, p: Weights, name: str) -> Array:
    """Gate channels by their neighbours in the list of channels."""
    means = np.pad(x.mean(axis=(2, 3)), ((0, 0), (1, 1)))
    kernel = p[name + ".conv.weight"][0, 0]
    gate = expit(kernel[0] * means[:, :-2] + kernel[1] * means[:, 1:-1] + kernel[2] * means[:, 2:])
    return np.asarray(x * gate[:, :, None, None])


def attention(x: Array, p: Weights, name: str) -> Array:
    """Apply whatever attention the state_dict has under `name`."""
    if name + ".ChannelGate.mlp.1.weight" in p:
        return cbam(x, p, name)
    if name + ".conv.weight" in p:
        return eca(x, p, name)
    if name + ".spatial_gate.compress.weight" in p:
        return spatial_gate(x, p, name + ".spatial_gate")
    return x
