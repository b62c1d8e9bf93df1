"""The scan's probe: used, or a line says why not."""

from __future__ import annotations

import numpy as np

from ptycho_runtime.scan.detector import Detector
from ptycho_runtime.scan.geometry import ObjectPixel
from ptycho_runtime.scan.layouts.raw import StoredProbe

_SAME_PIXEL = 0.01  # relative
_LEAST_INSIDE = 0.1  # of the light, in the middle that patches are stitched from


def understood_probe(
    stored: StoredProbe, detector: Detector, N: int, recorded: ObjectPixel | None
) -> tuple[np.ndarray | None, str]:
    """Return (the probe on the model's grid (modes, N, N) complex64, what is to be said); None where it cannot be used.

    Args:
        stored: the probe as in the file.
        detector: how patterns come to the model's grid; a probe of the recorded grid goes the same way.
        N: side of the model's grid, pixels.
        recorded: the object's pixel on the recorded grid, where known.
    """
    values = np.asarray(stored.values)
    why = stored.unreadable or _unusable(values, detector, N)
    if not why and stored.pixel_m and recorded and abs(stored.pixel_m / recorded.x_m - 1) > _SAME_PIXEL:
        why = f"its pixel is {stored.pixel_m:.4g} m, the object's {recorded.x_m:.4g} m"
    if why:
        return None, f"the probe is not used: {why}"
    note = ""
    while values.ndim > 3:
        if values.shape[0] > 1:
            note = f"of the probe's {values.shape[0]} coherent modes the first is used"
        values = values[0]
    modes = values.reshape(-1, *values.shape[-2:]).astype(np.complex128)
    return on_grid(modes, detector, N).astype(np.complex64), note


def _unusable(values: np.ndarray, detector: Detector, N: int) -> str:
    """Return why a probe cannot be used, nothing where it can."""
    if values.dtype.kind != "c":
        return f"it holds {values.dtype} numbers of shape {values.shape}; expected complex ones"
    if len(set(values.shape)) == 1 < values.ndim - 1:
        return f"it has shape {values.shape}, of which any axis could count the modes; expected (modes, {N}, {N})"
    if values.ndim < 2:
        return f"it has shape {values.shape}; expected (modes, {N}, {N})"
    side = values.shape[-2:]
    if side != detector.shape or (values.ndim > 4 and set(values.shape[:-4]) != {1}):
        order = ", the modes last?" if values.ndim == 3 and values.shape[:2] == detector.shape else ""
        return (
            f"it has shape {values.shape}{order}, patterns are of {detector.shape[0]} × {detector.shape[1]} pixels; "
            f"expected (modes, {detector.shape[0]}, {detector.shape[1]})"
        )
    if side[0] != side[1]:
        return f"it is of {side[0]} × {side[1]} pixels, not square"
    if not np.isfinite(values).all():
        return "it holds NaN or infinity"
    if not values.any():
        return "it is zero everywhere"
    if not 1e-15 < np.abs(values).max() < 1e15:
        return f"its numbers reach {np.abs(values).max():.3g}, beyond what float32 can square"
    light = (np.abs(values.astype(np.complex128)) ** 2).reshape(-1, *side).sum(0)
    rows, columns = (slice(size // 4, size - size // 4) for size in side)
    if light[rows, columns].sum() < _LEAST_INSIDE * light.sum():
        return "less than a tenth of its light is in its middle, as an FFT leaves a probe at the corner; expected it in the middle"
    return ""


def on_grid(modes: np.ndarray, detector: Detector, N: int) -> np.ndarray:
    """Return modes (m, S, S) of the recorded grid on the model's (m, N, N).

    Cropping or padding patterns changes the size of the object's pixel and keeps the field of view: the probe's spectrum is cut
    or padded. Binning keeps the pixel and narrows the field: the probe's middle is cut out.
    """
    size = modes.shape[-1]
    if size == N:
        return modes
    if detector.fit == "bin":
        return _middle(modes, N)
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(modes, (-2, -1))), (-2, -1))
    field: np.ndarray = (
        np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(_middle(spectrum, N), (-2, -1))), (-2, -1)) * (N / size) ** 2
    )
    return field


def _middle(values: np.ndarray, N: int) -> np.ndarray:
    size = values.shape[-1]
    if size >= N:
        start = size // 2 - N // 2
        return values[:, start : start + N, start : start + N]
    before = N // 2 - size // 2
    return np.pad(values, ((0, 0), *((before, N - size - before),) * 2))
