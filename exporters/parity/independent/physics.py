"""The physics around the network written a second time, in numpy float64, pattern by pattern, by gathering pixels.

Independent of the module under test: no matrices, no torch, one loop per pattern. Only the sampling positions are float32,
because PtychoPINN's rounding of them decides which pixels a patch covers. What each era does is stated here once more, on purpose:
a reference that read the project's table of eras would repeat its mistakes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ptycho_torch.spec import ModelSpec

F = np.float32


def positions_px(shift: float, size: int) -> np.ndarray:
    """Return where each output pixel samples, (size,) float64 holding float32 values; every step is rounded once."""
    step = F(2.0 / (size - 1))
    half = size // 2
    grid = np.empty(size, F)
    for i in range(size):
        grid[i] = F(-1.0 + float(step) * i) if i < half else F(1.0 - float(step) * (size - 1 - i))
    moved = (grid - F(F(shift) * step)).astype(F)
    return ((moved + F(1.0)).astype(F) * F((size - 1) / 2)).astype(np.float64)


def moved(image: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """Return an image (M, M) whose content moved by dx columns and dy rows: bilinear, zero outside."""
    size = image.shape[0]
    rows, columns = positions_px(dy, size), positions_px(dx, size)
    padded = np.pad(image, 2)

    def along(rows_first: np.ndarray, at: np.ndarray) -> np.ndarray:
        low = np.floor(at).astype(int)
        high_part = at - low
        take = np.clip(low + 2, 0, size + 2)
        inside = (low >= -1) & (low <= size - 1)
        part = (
            rows_first[take] * (1 - high_part)[:, None]
            + rows_first[np.minimum(take + 1, size + 3)] * high_part[:, None]
        )
        return np.asarray(part * inside[:, None])

    by_rows = along(padded, rows)
    return along(by_rows.T, columns).T


def soft_disk(spec: ModelSpec) -> np.ndarray:
    """Return the probe mask that is a disk from scipy's own Gaussian, (N, N)."""
    N, sigma = spec.N, spec.probe_mask_sigma_px
    diameter = N / 2 if spec.probe_mask_diameter_px is None else spec.probe_mask_diameter_px
    y, x = np.mgrid[:N, :N] - (N - 1) / 2
    disk = (2.0 * np.hypot(x, y) < diameter).astype(float)
    if sigma > 0.0:
        disk = ndimage.gaussian_filter(disk, sigma, radius=max(1, int(np.ceil(3 * sigma))), mode="constant")
    return np.asarray(disk / disk.max())


@dataclass(frozen=True)
class Beam:
    """What the physics takes beside the object."""

    positions: np.ndarray  # (B, C, 1, 2) as fed
    probe: np.ndarray  # (P, N, N) complex
    output_scale: np.ndarray  # (B,) what the model applies in the end
    ids: np.ndarray  # (B,) dataset of each group


def predict(
    spec: ModelSpec, patches: np.ndarray, beam: Beam, scalars: Mapping[str, np.ndarray], mask: np.ndarray | None = None
) -> np.ndarray:
    """Return the predicted diffraction, (B, C, N, N), for object patches (B, C, N, N).

    Args:
        spec: what the model is.
        patches: the network's object.
        beam: positions, probe and scales.
        scalars: alpha, beta, s1, s2, (datasets,) each.
        mask: of the probe, (N, N).
    """
    positions, probe, output_scale, ids = beam.positions, beam.probe, beam.output_scale, beam.ids
    newest = spec.era in {"V", "J0", "J"}
    rectangular = spec.physics == "rectangular"
    if not (rectangular and newest):
        probe = probe / spec.probe_scale
    found = np.empty(patches.shape)
    for b, group in enumerate(patches):
        views = overlapped(spec, group, positions[b, :, 0], probe) if spec.object_big else group
        for c, view in enumerate(views):
            if rectangular:
                s1, s2 = scalars["s1"][ids[b]], scalars["s2"][ids[b]]
                waves = output_scale[b] * (s1 * probe * view.real + 1j * s2 * probe * view.imag)
            else:
                waves = view * probe * (1.0 if mask is None else mask)
            far = np.stack([np.fft.fft2(wave) / spec.N for wave in waves])
            coherent = not rectangular or spec.era == "U"
            intensity = np.abs(far.sum(0)) ** 2 if coherent else (np.abs(far) ** 2).sum(0)
            intensity = np.fft.fftshift(intensity)
            if rectangular:
                found[b, c] = np.maximum(intensity, 0.0)
                continue
            amplitude = np.sqrt(intensity) / output_scale[b] * spec.amplitude_physics_gain
            if spec.intensity_scale_trainable and spec.era in {"A2", "B", "J0", "J"}:
                amplitude = scalars["alpha"][ids[b]] * amplitude + scalars["beta"][ids[b]]
            found[b, c] = amplitude
    return found


def overlapped(spec: ModelSpec, group: np.ndarray, shifts: np.ndarray, probe: np.ndarray) -> np.ndarray:
    """Return what each pattern of a group sees of the object that all its patches make together."""
    N = spec.N
    q = int(np.ceil(spec.max_neighbor_distance_px))
    q += q % 2
    M = N + (spec.gridsize - 1) * q + (10 if spec.era in {"A", "A2", "U", "U2", "V"} else 0)
    pad = (M - N) // 2
    sign = -1.0 if spec.era in {"V", "J0", "J"} else 1.0
    box = np.zeros((N, N))
    box[N // 4 : 3 * N // 4, N // 4 : 3 * N // 4] = 1.0
    by_probe = spec.era in {"U", "U2"} or spec.patch_weighting == "probe"
    weight_map = (np.abs(probe) ** 2).sum(0) if by_probe else box
    patches, weights = [], []
    for patch, (dx, dy) in zip(group, shifts, strict=True):
        canvas = np.pad(patch, pad)
        patches.append(moved(canvas.real, sign * dx, sign * dy) + 1j * moved(canvas.imag, sign * dx, sign * dy))
        weights.append(moved(np.pad(weight_map, pad), sign * dx, sign * dy))
    plain, total = np.sum(patches, 0), np.sum(weights, 0)
    weighted = np.sum([p * w for p, w in zip(patches, weights, strict=True)], 0)
    whole: np.ndarray
    if spec.era in {"A", "A2"}:
        whole = np.where(total > 1e-6, plain / np.maximum(total, 1.0), 0.0)
    elif spec.era == "B":
        whole = plain / (total + 0.001)
    elif by_probe:
        whole = np.where(total > 1e-6 * total.max(), weighted / np.maximum(total, 1e-12), 0.0)
    elif spec.patch_weighting == "uniform":
        whole = np.where(total > 1e-6, weighted / np.maximum(total, 1e-12), 0.0)
    else:
        whole = np.where(total > 1e-6, weighted / (total + 0.001), 0.0)
    middle = slice(pad, pad + N)
    views = []
    for dx, dy in shifts:
        real, imag = moved(whole.real, -sign * dx, -sign * dy), moved(whole.imag, -sign * dx, -sign * dy)
        views.append((real + 1j * imag)[middle, middle])
    return np.stack(views)
