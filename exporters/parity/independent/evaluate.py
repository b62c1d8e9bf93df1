"""Outputs of a graph by the independent evaluation: the numpy network, then the numpy physics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporters.parity.independent.network import network
from exporters.parity.independent.physics import Beam, predict, soft_disk
from ptycho_runtime import contract
from ptycho_torch.spec import ModelSpec

NETWORK_PREFIX = "model.autoencoder."
_SCALARS = {
    "alpha": "model.forward_model.alpha",
    "beta": "model.forward_model.beta",
    "s1": "model.forward_model.rect_scaler.s1",
    "s2": "model.forward_model.rect_scaler.s2",
}


def independent_outputs(
    spec: ModelSpec,
    state: Mapping[str, np.ndarray],
    feed: Mapping[str, np.ndarray],
    graphs: list[str],
    probe_mask: np.ndarray | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Return outputs by graph and name, float64.

    Args:
        spec: what the model is.
        state: its weights under PtychoPINN's own key names.
        feed: inputs of all of the graphs by name.
        graphs: of `contract.ALL_GRAPHS`; all have these weights.
        probe_mask: (N, N), where the spec says that the model has one of its own.
    """
    weights = {name.removeprefix(NETWORK_PREFIX): v for name, v in state.items() if name.startswith(NETWORK_PREFIX)}
    delta = float(state["log_scale_delta"]) if spec.parity_scale_mode != "off" else 0.0
    factor = np.asarray(feed[contract.INPUT_SCALE], np.float64)
    if spec.intensity_scale_trainable and spec.intensity_scale != 1.0:
        factor = np.full_like(factor, spec.intensity_scale)
    elif spec.parity_scale_mode in ("tied", "fixed", "input"):
        factor = factor * np.exp(-delta)
    first, second = network(spec, weights, feed[contract.DIFFRACTION].astype(np.float64) * factor)
    patches = first + 1j * second if spec.output_mode == "real_imag" else first * np.exp(1j * second)
    found = {}
    quarter = spec.N // 4
    middle = slice(quarter, quarter + spec.N // 2)
    for graph in graphs:
        if graph == "autoencoder":
            found[graph] = _autoencoder(spec, state, feed, (first, second, patches), (delta, probe_mask))
            continue
        seen = patches[..., middle, middle] if graph == contract.CENTRE else patches
        found[graph] = {contract.OBJECT_REAL: seen.real, contract.OBJECT_IMAG: seen.imag}
    return found


def _autoencoder(
    spec: ModelSpec,
    state: Mapping[str, np.ndarray],
    feed: Mapping[str, np.ndarray],
    network_says: tuple[np.ndarray, np.ndarray, np.ndarray],
    constants: tuple[float, np.ndarray | None],
) -> dict[str, np.ndarray]:
    first, second, patches = network_says
    delta, probe_mask = constants
    if spec.generator == "unet":
        outputs = {contract.OBJECT_REAL: first, contract.OBJECT_IMAG: second}
    elif spec.generator == "cnn" and spec.output_mode == "amp_phase":
        outputs = {contract.AMPLITUDE: first, contract.PHASE: second}
    else:
        outputs = {contract.AMPLITUDE: np.abs(patches), contract.PHASE: np.angle(patches)}
    if spec.supervised:
        return outputs
    scale = np.asarray(feed[contract.OUTPUT_SCALE], np.float64).ravel()
    if spec.intensity_scale_trainable:
        scale = np.full_like(scale, spec.intensity_scale)
    elif spec.parity_scale_mode in ("tied", "fixed", "output"):
        scale = scale * np.exp(delta)
    probe = feed[contract.PROBE_REAL].astype(np.float64) + 1j * feed[contract.PROBE_IMAG]
    ids = feed.get(contract.EXPERIMENT_ID, np.zeros(len(scale), np.int64))
    scalars = {name: state[key].astype(np.float64) for name, key in _SCALARS.items() if key in state}
    mask = soft_disk(spec) if spec.probe_mask == "disk" else probe_mask
    predicted = predict(spec, patches, Beam(feed[contract.POSITIONS], probe, scale, ids), scalars, mask)
    return {contract.PREDICTED: predicted, **outputs}
