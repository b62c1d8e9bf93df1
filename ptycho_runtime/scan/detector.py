"""The detector side of a scan: patterns brought to the model's grid around the zero frequency."""

from __future__ import annotations

import numpy as np

from ptycho_runtime.errors import ScanError


def fitted(intensity: np.ndarray, N: int, how: str | None) -> np.ndarray:
    """Return patterns (n, s, s) cropped, padded or binned around the zero frequency to (n, N, N)."""
    size = intensity.shape[-1]
    if how == "crop" and size > N:
        start = size // 2 - N // 2
        return intensity[:, start : start + N, start : start + N]
    if how == "pad" and size < N:
        before = N // 2 - size // 2
        return np.pad(intensity, ((0, 0), (before, N - size - before), (before, N - size - before)))
    if how == "bin" and size > N and size % N == 0:
        k = size // N
        binned: np.ndarray = intensity.reshape(len(intensity), N, k, N, k).sum((2, 4))
        return binned
    raise ScanError(
        f"patterns of {size} × {size} pixels cannot be brought to {N} × {N} by {how}; try --crop, --pad or --bin"
    )
