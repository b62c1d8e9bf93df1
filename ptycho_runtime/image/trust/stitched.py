"""How well probe × stitched object explains each pattern."""

from __future__ import annotations

import numpy as np

from ptycho_runtime.image.stitch import Canvas
from ptycho_runtime.image.trust.overlap import Records

_AT_ONCE = 32  # patterns
_COVERED = 0.97  # of the probe's power that must fall on what the object covers; the rest is guessed
_ROOT_NOISE = 0.25  # variance of the root of a Poisson number that is not small


def stitched_residuals(
    amplitudes: Records,
    peaks: np.ndarray,
    probe: np.ndarray,
    canvas: Canvas,
    positions_px: np.ndarray,
    which: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Compare patterns with |F(probe · object)|, each up to one factor.

    Args:
        amplitudes: (N, N) float16 a pattern, each divided by its largest.
        peaks: (n,) float64, these largest values.
        probe: (modes, N, N) complex.
        canvas: the object; outside of what it covers its mean stands in.
        positions_px: (n, 2) (x, y).
        which: (n,) bool: patterns to compare.

    Returns:
        (residual, log gain): (n,) float64 each, NaN where there is no pattern, or where its probe reaches beyond the object. What
        shot noise leaves in patterns that are roots of counts is taken off the residual's square.
    """
    from scipy import fft

    count, side = len(peaks), probe.shape[-1]
    residual, gain = np.full(count, np.nan), np.full(count, np.nan)
    object_, covered = canvas.object, canvas.covered
    mean = object_[covered].sum()
    fill = np.complex64(np.median(np.abs(object_[covered])) * mean / max(abs(mean), 1e-30))
    wide = np.pad(np.where(covered, object_, fill), side, constant_values=fill)
    corners = np.rint(positions_px - [canvas.x0_px, canvas.y0_px]).astype(int) + side - side // 2
    corners = np.clip(corners, 0, np.array(wide.shape[::-1]) - side)
    modes = np.asarray(probe, np.complex64)
    light = (np.abs(modes) ** 2).sum(0)
    light /= max(float(light.sum()), 1e-30)
    known = np.pad(covered, side)
    there = np.flatnonzero(which & (amplitudes.copies > 0))
    for start in range(0, len(there), _AT_ONCE):
        numbers = there[start : start + _AT_ONCE]
        measured = np.fft.ifftshift(amplitudes.get(numbers).astype(np.float32), axes=(1, 2))
        measured *= peaks[numbers, None, None].astype(np.float32)
        parts = np.stack([wide[y : y + side, x : x + side] for x, y in corners[numbers]])
        intensity = np.zeros(measured.shape, np.float32)
        for mode in modes:
            wave = fft.fft2(parts * mode)
            intensity += wave.real**2 + wave.imag**2
        predicted = np.sqrt(intensity)
        product = np.einsum("nij,nij->n", measured, predicted, dtype=np.float64)
        power = np.einsum("nij,nij->n", predicted, predicted, dtype=np.float64)
        energy = np.einsum("nij,nij->n", measured, measured, dtype=np.float64)
        factor = product / np.maximum(power, 1e-300)
        expected = intensity * (factor**2)[:, None, None].astype(np.float32)
        noise = np.minimum(expected, _ROOT_NOISE).sum((1, 2)) / np.maximum(energy, 1e-300)
        unexplained = 1.0 - product**2 / np.maximum(power * energy, 1e-300)
        on_object = np.array([light[known[y : y + side, x : x + side]].sum() for x, y in corners[numbers]])
        judged = on_object >= _COVERED
        residual[numbers] = np.where(judged, np.sqrt(np.clip(unexplained - noise, 0.0, 1.0)), np.nan)
        gain[numbers] = np.where(judged, np.log(np.maximum(factor, 1e-300)), np.nan)
    return residual, gain
