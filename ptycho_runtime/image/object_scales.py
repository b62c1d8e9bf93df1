"""Two factors that a CI model leaves open: s1 of the object's real part and s2 of its imaginary part, from the measured counts."""

from __future__ import annotations

import math

import numpy as np

from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.export.bundle import Export

_ANGLES = 7200  # at which the best direction of (s1, s2) is looked for before it is refined


class ObjectScales:
    """Fits s1 and s2 so that |F(P·(s1·a + i·s2·b))|² is nearest to the counts of all patterns, in the sense of least squares.

    With a and b the real and imaginary part of a pattern's own patch, the prediction is s1²·X1 + s2²·X2 + s1·s2·X3. Sums of
    products over a pattern's pixels are all that is kept, sixteen numbers each; they are added up in the end and rounded once, so
    that the order of the patterns does not matter.
    """

    def __init__(self, probe: np.ndarray) -> None:
        """Begin without any pattern.

        Args:
            probe: (modes, N, N) complex, as physical as it was for training.
        """
        self._probe = np.asarray(probe, np.complex128)
        self._parts_of: list[np.ndarray] = []
        self._products = np.zeros((4, 4))

    def add(self, real: np.ndarray, imag: np.ndarray, counts: np.ndarray) -> None:
        """Add patterns.

        Args:
            real: (n, N, N) real parts of their full patches.
            imag: (n, N, N) imaginary parts.
            counts: (n, N, N) measured, zero frequency at [N//2, N//2].
        """
        terms = np.zeros((4, *counts.shape))
        terms[3] = counts
        for mode in self._probe:
            of_real = _far_field(real * mode)
            of_imag = _far_field(1j * imag * mode)
            terms[0] += np.abs(of_real) ** 2
            terms[1] += np.abs(of_imag) ** 2
            terms[2] += 2.0 * (of_real * of_imag.conj()).real
        flat = np.ascontiguousarray(terms.reshape(4, len(counts), -1).transpose(1, 0, 2))
        self._parts_of.append(np.matmul(flat, flat.transpose(0, 2, 1)))

    @property
    def products(self) -> np.ndarray:
        """What is kept of each pattern so far, (n, 4, 4) float64."""
        self._parts_of = [np.concatenate([np.zeros((0, 4, 4)), *self._parts_of])]
        return self._parts_of[0]

    def absorb(self, products: np.ndarray) -> None:
        """Add patterns by the `products` of others, (n, 4, 4)."""
        self._parts_of.append(products)

    def fit(self) -> tuple[float, float]:
        """Return (s1, s2), s1 ≥ 0: both with the other sign predict the same.

        Raises:
            ReconstructionError: no factors predict counts at all: patches or probe are zero.
        """
        from scipy.optimize import minimize_scalar

        columns = self.products.reshape(-1, 16).T
        self._products = np.array([math.fsum(column.tolist()) for column in columns]).reshape(4, 4)

        # In polar coordinates the sum of squares is r⁴·A − 2·r²·B + Σ I², whose least value over r is Σ I² − B²/A.
        angles = np.linspace(-np.pi / 2, np.pi / 2, _ANGLES, endpoint=False)
        gains = np.array([self._gain(angle) for angle in angles])
        best, step = float(angles[np.argmax(gains)]), np.pi / _ANGLES
        found = minimize_scalar(
            lambda angle: -self._gain(angle),
            bounds=(best - step, best + step),
            method="bounded",
            options={"xatol": 1e-10},
        )
        angle = float(found.x)
        quartic, quadratic = self._parts(angle)
        if not (quadratic > 0 and quartic > 0):
            raise ReconstructionError(
                "the object's two scales cannot be fitted: patches and probe predict no counts; give --no-object-scales"
            )
        size = float(np.sqrt(quadratic / quartic))
        s1, s2 = size * float(np.cos(angle)), size * float(np.sin(angle))
        return (s1, s2) if s1 >= 0 else (-s1, -s2)

    def _parts(self, angle: float) -> tuple[float, float]:
        direction = np.array([np.cos(angle) ** 2, np.sin(angle) ** 2, np.cos(angle) * np.sin(angle)])
        return float(direction @ self._products[:3, :3] @ direction), float(direction @ self._products[:3, 3])

    def _gain(self, angle: float) -> float:
        quartic, quadratic = self._parts(angle)
        return max(quadratic, 0.0) ** 2 / max(quartic, 1e-300)


def scales_left_open(export: Export, probe: np.ndarray | None) -> tuple[ObjectScales | None, str]:
    """Return (what fits the object's two factors where the model leaves them open, as one of counts does; else why it cannot be done).

    Args:
        export: the model.
        probe: the scan's, (modes, N, N) complex; None where it has none.
    """
    if export.domain != "counts":
        return None, ""
    why = ""
    if export.record is not None and export.record.spec.get("probe_mask", "none") != "none":
        why = "the model masks its probe"
    elif probe is None:
        why = "the scan has no probe"
    elif probe.shape[-2:] != (export.N, export.N):
        why = f"the probe is of {probe.shape[-2]} × {probe.shape[-1]} pixels, the model's patterns of {export.N} × {export.N}"
    if why or probe is None:
        return None, f"the factors of the object's real and imaginary part are left as the model gives them: {why}"
    return ObjectScales(probe), ""


def _far_field(waves: np.ndarray) -> np.ndarray:
    """Return the diffracted waves (n, N, N) of waves behind the sample, zero frequency at [N//2, N//2]."""
    found: np.ndarray = np.fft.fftshift(np.fft.fft2(waves, norm="ortho"), axes=(-2, -1))
    return found
