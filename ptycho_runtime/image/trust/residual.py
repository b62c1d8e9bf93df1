"""How well the object explains each pattern: the trust map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptycho_runtime import contract as c
from ptycho_runtime.engine.session import Session
from ptycho_runtime.export.bundle import Export

_FAR_OFF_MADS = 5.0


@dataclass(frozen=True)
class Quality:
    """A residual for each pattern, and which are far off."""

    residual: np.ndarray  # (n,) float64: 0 explained in full, 1 not at all; NaN where not reached
    limit: float
    flagged: np.ndarray  # (n,) bool

    @classmethod
    def of(cls, residual: np.ndarray) -> Quality:
        """Flag what lies further above the median than five median absolute deviations (scaled as for a normal distribution)."""
        known = residual[np.isfinite(residual)]
        if not len(known):
            return cls(residual, float("nan"), np.zeros(len(residual), bool))
        middle = float(np.median(known))
        limit = middle + _FAR_OFF_MADS * 1.4826 * float(np.median(np.abs(known - middle)))
        return cls(residual, limit, np.nan_to_num(residual, nan=-np.inf) > limit)


def probe_parts(autoencoder: Session, probe: np.ndarray) -> dict[str, np.ndarray]:
    """Return the probe (modes, N, N) complex as the graph's inputs, with as many modes as it takes."""
    modes = autoencoder.inputs[c.PROBE_REAL].shape[0]
    used = probe[:modes] if isinstance(modes, int) else probe
    return {
        c.PROBE_REAL: np.ascontiguousarray(used.real, np.float32),
        c.PROBE_IMAG: np.ascontiguousarray(used.imag, np.float32),
    }


def residuals(measured: np.ndarray, predicted: np.ndarray, export: Export) -> np.ndarray:
    """Return the residual of each pattern, (n,) float64.

    Args:
        measured: (n, N, N) as fed to the graph.
        predicted: (n, N, N) as the autoencoder gives it.
        export: what the graph is.

    The network's amplitude has no absolute scale, so prediction p and measurement d (both amplitudes) are compared up to one
    factor a: min over a of ‖d − a·p‖ / ‖d‖, which is √(1 − ⟨d, p⟩² / (‖d‖²‖p‖²)).
    """
    predicted, measured = predicted.astype(np.float64), measured.astype(np.float64)
    if _predicts_intensity(export):
        predicted = np.sqrt(np.maximum(predicted, 0.0))
    if export.domain == "counts":
        measured = np.sqrt(measured)
    product = np.einsum("nij,nij->n", measured, predicted)
    norms = np.einsum("nij,nij->n", measured, measured) * np.einsum("nij,nij->n", predicted, predicted)
    found: np.ndarray = np.sqrt(np.clip(1.0 - product**2 / np.maximum(norms, 1e-300), 0.0, 1.0))
    return found


def _predicts_intensity(export: Export) -> bool:
    spec = {} if export.record is None else export.record.spec
    return bool(spec.get("physics") == "rectangular")
