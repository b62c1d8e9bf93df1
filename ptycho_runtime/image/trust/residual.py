"""How well its own patch explains each pattern, as the autoencoder predicts it."""

from __future__ import annotations

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.engine.session import Session
from ptycho_runtime.export.bundle import Export


def probe_parts(autoencoder: Session, probe: np.ndarray) -> dict[str, np.ndarray]:
    """Return the probe (modes, N, N) complex as the graph's inputs, with as many modes as it takes."""
    modes = autoencoder.inputs[contract.PROBE_REAL].shape[0]
    used = probe[:modes] if isinstance(modes, int) else probe
    return {
        contract.PROBE_REAL: np.ascontiguousarray(used.real, np.float32),
        contract.PROBE_IMAG: np.ascontiguousarray(used.imag, np.float32),
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
