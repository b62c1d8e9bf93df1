"""How far a result is from its reference, and how far it may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptycho_runtime import contract as c

FACTOR = 4.0  # a float32 runtime may err this many times as much as eager float32 does
FLOOR_ULPS = 8.0  # of the output's largest magnitude
RULE = f"error ≤ {FACTOR:g} × eager float32's own against float64 (floor {FLOOR_ULPS:g} float32 ulps of the largest magnitude)"


@dataclass(frozen=True)
class Budget:
    """Largest allowed errors of one output."""

    max_abs: float
    rel_l2: float


def difference(name: str, result: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return result − reference in float64; phases are wrapped to (−π, π]."""
    delta: np.ndarray = result.astype(np.float64) - reference
    if name == c.PHASE:
        # Only heads that give an angle can differ by a turn; a raw head that did would be 2π off and is left so.
        wrapped = np.angle(np.exp(1j * delta))
        delta = np.where(np.abs(np.abs(reference) - np.pi) < 1e-3, wrapped, delta)
    return delta


def errors(name: str, result: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Return (largest absolute, relative L2) error of one output against its float64 reference."""
    delta = difference(name, result, reference)
    norm = float(np.linalg.norm(reference))
    absolute = float(np.abs(delta).max(initial=0.0))
    length = float(np.linalg.norm(delta))
    return absolute, length / norm if norm > 0.0 else (0.0 if length == 0.0 else float("inf"))


def budget(name: str, eager32: np.ndarray, reference: np.ndarray, largest_e32: float = 0.0) -> Budget:
    """Return what a float32 runtime may err, from eager float32's own error and the floor.

    Args:
        name: the output's.
        eager32: eager float32's result for the same inputs.
        reference: the float64 result.
        largest_e32: eager float32's largest absolute error over all inputs of the check. The maximum over a few patterns is an
            extreme that luck decides; over all of them it is a property of the network.
    """
    absolute, relative = errors(name, eager32, reference)
    absolute = max(absolute, largest_e32)
    ulp = float(np.spacing(np.float32(np.abs(reference).max(initial=0.0))))
    norm = float(np.linalg.norm(reference))
    floor_relative = FLOOR_ULPS * ulp * np.sqrt(reference.size) / norm if norm > 0.0 else 0.0
    floor_relative = min(floor_relative, FLOOR_ULPS * 2.0**-23)
    return Budget(max(FACTOR * absolute, FLOOR_ULPS * ulp), max(FACTOR * relative, floor_relative))


def field_errors(outputs: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> dict[str, float]:
    """Return what a scientist asks of an object: amplitude error, and phase error weighted by amplitude.

    `amplitude_rel` is ‖|o|−|o_ref|‖ / ‖|o_ref|‖; `phase_rad` the amplitude-weighted root mean square of the wrapped phase
    difference, for outputs that hold the object as real and imaginary part or as amplitude and phase.
    """
    if c.OBJECT_REAL in reference:
        got = outputs[c.OBJECT_REAL].astype(np.float64) + 1j * outputs[c.OBJECT_IMAG]
        ref = reference[c.OBJECT_REAL] + 1j * reference[c.OBJECT_IMAG]
    elif c.AMPLITUDE in reference:
        got = outputs[c.AMPLITUDE].astype(np.float64) * np.exp(1j * outputs[c.PHASE].astype(np.float64))
        ref = reference[c.AMPLITUDE] * np.exp(1j * reference[c.PHASE])
    else:
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
