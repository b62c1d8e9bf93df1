"""The scan's `input_scale_factor`, as training computed it: one number per scan."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ptycho_runtime import contract


def pattern_energy(patterns: np.ndarray) -> np.ndarray:
    """Return Σ d² of each pattern, (n,) float64, for patterns (n, N, N) of what the network is fed, amplitudes or counts."""
    squares = np.square(np.reshape(patterns, (len(patterns), -1)), dtype=np.float64)
    energy: np.ndarray = squares.sum(1)
    return energy


def scale_of_energy(formula: contract.InputScaleFormula, energy: np.ndarray, N: int) -> float:
    """Return the factor that patterns are multiplied by.

    Args:
        formula: a key of `contract.INPUT_SCALE_FORMULAS`.
        energy: (n,) float64, Σ d² of each pattern, d what the network is fed.
        N: side of a pattern, pixels.

    √(k / mean of the energies), k = (N/2)² or N²; 1 where all are zero. The sum is rounded once, so neither order nor chunks matter.
    """
    total = math.fsum(energy.tolist())
    if total == 0.0:
        return 1.0
    k = float(N) ** 2 if formula == "n_over_rms" else (N / 2.0) ** 2
    return float(np.sqrt(k / (total / len(energy))))


def input_scale_factor(formula: contract.InputScaleFormula, patterns: Iterable[np.ndarray], N: int) -> float:
    """Return the factor for patterns in chunks (n, N, N); see `scale_of_energy`."""
    return scale_of_energy(formula, np.concatenate([np.zeros(0), *map(pattern_energy, patterns)]), N)


def scale_changes(energy: np.ndarray) -> np.ndarray:
    """Return by which share the scan's factor would change without each of the patterns, (n,) float64, from their energies (n,)."""
    n, total = len(energy), math.fsum(energy.tolist())
    if n < 2 or total == 0.0:
        return np.zeros(n)
    rest = np.maximum(total - energy, 0.0)
    with np.errstate(divide="ignore"):
        changes: np.ndarray = np.abs(np.sqrt((total / n) / (rest / (n - 1))) - 1.0)
    return changes
