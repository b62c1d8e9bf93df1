"""How well probe × stitched object explains each pattern."""

from __future__ import annotations

import numpy as np

from ptycho_runtime.image.stitch import Canvas
from ptycho_runtime.image.trust.evidence import Kept
from ptycho_runtime.threads import shared

_AT_ONCE = 16  # patterns: what is made of them stays in a core's own cache
_COVERED = 0.97  # of the probe's power that must fall on what the object covers; the rest is guessed
_ROOT_NOISE = 0.25  # variance of the root of a Poisson number that is not small


def stitched_residuals(
    known: Kept, probe: np.ndarray, canvas: Canvas, which: np.ndarray, threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Compare patterns with |F(probe · object)|, each up to one factor.

    Args:
        known: amplitudes, peaks and positions of the patterns.
        probe: (modes, N, N) complex.
        canvas: the object; outside of what it covers its mean stands in.
        which: (n,) bool: patterns to compare.
        threads: that compare.

    Returns:
        (residual, log gain): (n,) float64 each, NaN where there is no pattern, or where its probe reaches beyond the object. What
        shot noise leaves in patterns that are roots of counts is taken off the residual's square.
    """
    from scipy import fft

    amplitudes, peaks = known.amplitudes, known.peaks
    count, side = len(peaks), probe.shape[-1]
    residual, gain = np.full(count, np.nan), np.full(count, np.nan)
    object_, covered = canvas.object, canvas.covered
    mean = object_[covered].sum()
    fill = np.complex64(np.median(np.abs(object_[covered])) * mean / max(abs(mean), 1e-30))
    wide = np.pad(np.where(covered, object_, fill), side, constant_values=fill)
    corners = np.rint(known.positions_px - [canvas.x0_px, canvas.y0_px]).astype(int) + side - side // 2
    corners = np.clip(corners, 0, np.array(wide.shape[::-1]) - side)
    modes = np.asarray(probe, np.complex64)
    light = (np.abs(modes) ** 2).sum(0)
    light /= max(float(light.sum()), 1e-30)
    all_light = light.sum()
    filled = np.pad(covered, side)

    def power_on_object(x: int, y: int) -> float:
        inside = filled[y : y + side, x : x + side]
        return float(all_light if inside.all() else light[inside].sum())

    def compare(numbers: np.ndarray) -> None:
        measured = np.fft.ifftshift(amplitudes.get(numbers), axes=(1, 2)).astype(np.float32)
        measured *= peaks[numbers, None, None].astype(np.float32)
        places = corners[numbers].tolist()
        parts = np.stack([wide[y : y + side, x : x + side] for x, y in places])
        intensity = np.zeros(measured.shape, np.float32)
        for mode in modes:
            wave = fft.fft2(parts * mode, overwrite_x=True)
            # Real and imaginary parts lie side by side in memory.
            squares = wave.view(np.float32)
            squares *= squares
            intensity += squares[..., ::2] + squares[..., 1::2]
        predicted = np.sqrt(intensity)
        product = np.einsum("nij,nij->n", measured, predicted, dtype=np.float64)
        power = np.einsum("nij,nij->n", predicted, predicted, dtype=np.float64)
        energy = np.einsum("nij,nij->n", measured, measured, dtype=np.float64)
        factor = product / np.maximum(power, 1e-300)
        intensity *= (factor**2)[:, None, None].astype(np.float32)
        noise = np.minimum(intensity, _ROOT_NOISE, out=intensity).sum((1, 2)) / np.maximum(energy, 1e-300)
        unexplained = 1.0 - product**2 / np.maximum(power * energy, 1e-300)
        judged = np.array([power_on_object(x, y) for x, y in places]) >= _COVERED
        residual[numbers] = np.where(judged, np.sqrt(np.clip(unexplained - noise, 0.0, 1.0)), np.nan)
        gain[numbers] = np.where(judged, np.log(np.maximum(factor, 1e-300)), np.nan)

    there = np.flatnonzero(which & (amplitudes.copies > 0))
    for _ in shared(compare, (there[at : at + _AT_ONCE] for at in range(0, len(there), _AT_ONCE)), threads):
        pass
    return residual, gain
