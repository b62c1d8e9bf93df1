"""Simulated scans with a probe, whose object patches are what a perfect network would give, and faults to put into them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ptycho_runtime.export.record import TrustBaseline
from ptycho_runtime.image.stitch import Stitcher, probe_weights
from ptycho_runtime.image.trust.assess import Evidence, assess
from ptycho_runtime.image.trust.overlap import Placed
from ptycho_runtime.image.trust.values import Trust

N, SIDE, STEP_PX = 32, 14, 5.0


@dataclass(frozen=True)
class Simulated:
    """A scan of SIDE × SIDE patterns."""

    patches: np.ndarray
    """(n, N, N) complex64."""
    amplitudes: np.ndarray
    """(n, N, N) float32, roots of counts."""
    positions_px: np.ndarray
    probe: np.ndarray
    """(N, N) complex64."""

    def __len__(self) -> int:
        """Return the number of patterns."""
        return len(self.patches)


def sample(seed: int, size: int = 128) -> np.ndarray:
    """Return an object (size, size) with structure of many sizes."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    fields = []
    for _ in range(2):
        spectrum = np.fft.fft2(rng.normal(size=(size, size))) / (0.02 + frequency) ** 1.5
        field = np.real(np.fft.ifft2(spectrum))
        fields.append((field - field.mean()) / field.std())
    found: np.ndarray = (0.8 + 0.08 * fields[0]) * np.exp(0.4j * fields[1])
    return found


def simulated(seed: int = 0, counts: float = 2e5, noise: float = 0.02) -> Simulated:
    """Return a scan with `counts` a pattern, and patches that err by `noise` of their size."""
    rng = np.random.default_rng(seed + 100)
    object_ = sample(seed)
    k = np.arange(N) - N // 2
    probe = np.exp(-(k[:, None] ** 2 + k**2) / 60.0) * np.exp(0.02j * (k[:, None] ** 2 + k**2))
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2) * STEP_PX
    positions = np.rint(grid + rng.uniform(-1, 1, grid.shape)) + N // 2 + 4
    whole = positions.astype(int) - N // 2
    exact = np.stack([object_[y : y + N, x : x + N] for x, y in whole])
    intensity = np.abs(np.fft.fftshift(np.fft.fft2(exact * probe), axes=(1, 2))) ** 2
    intensity *= counts / intensity.sum((1, 2)).mean()
    amplitudes = np.sqrt(rng.poisson(intensity)).astype(np.float32)
    errors = rng.normal(0, noise, (2, *exact.shape))
    patches = (exact + errors[0] + 1j * errors[1]).astype(np.complex64)
    return Simulated(patches, amplitudes, positions, probe.astype(np.complex64))


def with_wrong_positions(scan: Simulated, bad: np.ndarray) -> Simulated:
    """Give some patterns the positions of others."""
    positions = scan.positions_px.copy()
    positions[bad] = positions[(bad + len(scan) // 2 + 3) % len(scan)]
    return replace(scan, positions_px=positions)


def with_shifted_patterns(scan: Simulated, bad: np.ndarray, by_px: int = 3) -> Simulated:
    """Shift some patterns; a network's patches then have a phase ramp."""
    amplitudes, patches = scan.amplitudes.copy(), scan.patches.copy()
    amplitudes[bad] = np.roll(amplitudes[bad], by_px, axis=2)
    patches[bad] *= np.exp(2j * np.pi * by_px * (np.arange(N) - N // 2) / N)[None, None]
    return replace(scan, amplitudes=amplitudes, patches=patches)


def evidence_of(scan: Simulated, *, probe: bool = True) -> Evidence:
    """Return a simulated scan as it is after all of its patterns."""
    stitcher = Stitcher(scan.positions_px, N, probe_weights(scan.probe[None]) if probe else None)
    evidence = Evidence(stitcher, scan.positions_px, scan.probe[None] if probe else None, is_counts=False)
    stitcher.keep = lambda first, patches: evidence.keep_patches(np.arange(first, first + len(patches)), patches)
    stitcher.add(scan.patches, scan.positions_px)
    evidence.keep_patterns(np.arange(len(scan)), scan.amplitudes)
    return evidence


def placed(scan: Simulated) -> tuple[Placed, np.ndarray]:
    """Return (patches, canvas sums) of a simulated scan."""
    evidence = evidence_of(scan, probe=False)
    return evidence.in_order().placed(), evidence.stitcher.sums


def assessed(scan: Simulated, *, probe: bool = True, baseline: TrustBaseline | None = None) -> Trust:
    """Return the verdict on a simulated scan."""
    evidence = evidence_of(scan, probe=probe)
    try:
        return assess(evidence, baseline)
    finally:
        evidence.close()
