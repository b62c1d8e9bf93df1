"""How far a result is from its float64 reference: one rule for the host that exports and the host that runs."""

from __future__ import annotations

import numpy as np

from ptycho_runtime import contract as c


def difference(name: str, result: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return result − reference in float64; an angle that comes out on the other side of ±π differs by little, not by a turn."""
    delta: np.ndarray = result.astype(np.float64) - reference
    if name == c.PHASE:
        # Only heads that give an angle can differ by a turn there; a raw head that did elsewhere would be 2π off and is left so.
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
