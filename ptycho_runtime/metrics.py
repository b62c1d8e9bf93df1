"""How far a result is from its float64 reference: one rule for the host that exports and the host that runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ptycho_runtime import contract

_FAINT = 0.01  # of the largest amplitude
# Times what a float32 runtime on the CPU may err. A GPU adds up a product term after term, where a CPU keeps many partial sums:
# PyTorch itself, on an H100, erred up to 4.4 times what it errs on the CPU in a group of patterns, and onnxruntime 4.8 times.
ON_GPU = 2.0


def phase_weight(name: str, reference: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return what errors of an output are weighted by, broadcastable to it; None where all its values count alike.

    A phase counts where there is amplitude: it is weighted by amplitude over the largest of its group. Where an object
    vanishes its phase is noise.
    """
    if name != contract.PHASE or contract.AMPLITUDE not in reference:
        return None
    size = np.abs(reference[contract.AMPLITUDE].astype(np.float64))
    largest = size.max(axis=tuple(range(1, size.ndim)), keepdims=True, initial=0.0)
    weight: np.ndarray = size / np.where(largest > 0.0, largest, 1.0)
    return weight


def difference(name: str, result: np.ndarray, reference: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Return result − reference in float64; an angle that comes out on the other side of ±π differs by little, not by a turn.

    Args:
        name: of the output.
        result: what was found.
        reference: what is right.
        weight: of each value, from `phase_weight`.
    """
    delta: np.ndarray = result.astype(np.float64) - reference
    if name == contract.PHASE:
        # Only heads that give an angle can differ by a turn there; a raw head that did elsewhere would be 2π off and is left so.
        near_cut = np.abs(np.abs(reference) - np.pi) < 1e-3
        if weight is not None:
            # Rounding carries an angle farther the less amplitude there is.
            near_cut = near_cut | (np.broadcast_to(weight, delta.shape) < _FAINT)
        delta = np.where(near_cut, np.angle(np.exp(1j * delta)), delta)
    return delta if weight is None else delta * weight


def errors(
    name: str, result: np.ndarray, reference: np.ndarray, weight: np.ndarray | None = None
) -> tuple[float, float]:
    """Return (largest absolute, relative L2) error of one output against its float64 reference; `weight` as in `difference`."""
    delta = difference(name, result, reference, weight)
    norm = float(np.linalg.norm(reference))
    absolute = float(np.abs(delta).max(initial=0.0))
    length = float(np.linalg.norm(delta))
    return absolute, length / norm if norm > 0.0 else (0.0 if length == 0.0 else float("inf"))


def field_errors(outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return what a scientist asks of an object: amplitude error, and phase error weighted by amplitude.

    `amplitude_rel` is ‖|o|−|o_ref|‖ / ‖|o_ref|‖; `phase_rad` the amplitude-weighted root mean square of the wrapped phase
    difference, for outputs that hold the object as real and imaginary part or as amplitude and phase.
    """
    got, ref = object_field(outputs), object_field(reference)
    if got is None or ref is None:
        return {}
    weight = np.abs(ref) ** 2
    total = float(weight.sum())
    if total == 0.0:
        return {"amplitude_rel": float(np.abs(got).max(initial=0.0)), "phase_rad": 0.0}
    wrapped = np.angle(got * np.conj(ref))
    return {
        "amplitude_rel": float(np.linalg.norm(np.abs(got) - np.abs(ref)) / np.sqrt(total)),
        "phase_rad": float(np.sqrt((weight * wrapped**2).sum() / total)),
    }


def object_field(outputs: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return the object patches, (batch, C, N, N) complex128; None where the outputs hold none."""
    field: np.ndarray | None = None
    if contract.OBJECT_REAL in outputs:
        field = outputs[contract.OBJECT_REAL].astype(np.float64) + 1j * outputs[contract.OBJECT_IMAG]
    elif contract.AMPLITUDE in outputs:
        field = outputs[contract.AMPLITUDE].astype(np.float64) * np.exp(1j * outputs[contract.PHASE].astype(np.float64))
    return field
