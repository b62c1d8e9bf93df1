"""The scan's `input_scale_factor`, as training computed it: one number per scan."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ptycho_runtime import contract as c


def input_scale_factor(formula: c.InputScaleFormula, patterns: Iterable[np.ndarray], N: int) -> float:
    """Return the factor that patterns are multiplied by.

    Args:
        formula: a key of `contract.INPUT_SCALE_FORMULAS`.
        patterns: chunks (n, N, N) of what the network is fed, amplitudes or counts.
        N: side of a pattern, pixels.

    With d the data, √(k / mean over patterns of Σ d²), k = (N/2)² or N²; 1 where all data are zero.
    """
    total, count = 0.0, 0
    for chunk in patterns:
        total += float(np.einsum("nij,nij->", chunk, chunk, dtype=np.float64))
        count += len(chunk)
    if total == 0.0 or count == 0:
        return 1.0
    k = float(N) ** 2 if formula == "n_over_rms" else (N / 2.0) ** 2
    return float(np.sqrt(k / (total / count)))
