"""A scan made with known s1 and s2 gives them back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from simulated import N, Simulated, simulated

from ptycho_runtime import ReconstructionError
from ptycho_runtime.export.bundle import Export
from ptycho_runtime.image.object_scales import ObjectScales, scales_left_open


@pytest.fixture(scope="module")
def scan() -> Simulated:
    return simulated(noise=0.0)


def predicted(patches: np.ndarray, probe: np.ndarray) -> np.ndarray:
    waves = patches[:, None] * probe
    return (np.abs(np.fft.fftshift(np.fft.fft2(waves, norm="ortho"), axes=(-2, -1))) ** 2).sum(1)


@pytest.mark.parametrize(("s1", "s2"), [(1.0, 1.0), (37.5, 37.5), (2.0, 0.7), (0.3, 1.9), (5.0, -2.0)])
@pytest.mark.parametrize("modes", [1, 2])
def test_known_scales_come_back(s1: float, s2: float, modes: int, scan: Simulated) -> None:
    probe = np.stack([scan.probe, 0.4 * np.roll(scan.probe, 3, axis=1)])[:modes]
    real, imag = scan.patches.real.astype(np.float64), scan.patches.imag.astype(np.float64)
    counts = predicted(s1 * real + 1j * s2 * imag, probe)
    scales = ObjectScales(probe)
    for part in np.array_split(np.arange(len(scan)), 5):
        scales.add(real[part], imag[part], counts[part])
    assert scales.fit() == pytest.approx((s1, s2), rel=1e-4)


def test_shot_noise_moves_them_little(scan: Simulated) -> None:
    real, imag = scan.patches.real.astype(np.float64), scan.patches.imag.astype(np.float64)
    counts = np.random.default_rng(1).poisson(predicted(40 * real + 30j * imag, scan.probe[None])).astype(float)
    scales = ObjectScales(scan.probe[None])
    scales.add(real, imag, counts)
    assert scales.fit() == pytest.approx((40, 30), rel=1e-3)


def test_patches_of_zeros_are_refused(scan: Simulated) -> None:
    scales = ObjectScales(scan.probe[None])
    nothing = np.zeros((2, N, N))
    scales.add(nothing, nothing, np.ones((2, N, N)))
    with pytest.raises(ReconstructionError, match="--no-object-scales"):
        scales.fit()


@pytest.mark.parametrize(
    ("change", "probe", "why"),
    [
        ({"domain": "amplitude"}, None, ""),
        ({}, None, "the scan has no probe"),
        ({}, np.ones((1, 8, 8), np.complex64), "the probe is of 8 × 8 pixels, the model's patterns of 32 × 32"),
        ({"spec": {"probe_mask": "central"}}, np.ones((1, N, N), np.complex64), "the model masks its probe"),
    ],
)
def test_why_they_are_not_fitted_is_said(change: dict[str, Any], probe: np.ndarray | None, why: str) -> None:
    record: Any = SimpleNamespace(spec=change.get("spec", {}))
    export = Export(
        Path("e"), {}, N, 1, change.get("domain", "counts"), "half_n_over_rms", None, "J", -1.0, record=record
    )
    scales, said = scales_left_open(export, probe)
    assert scales is None
    assert said == (
        f"the factors of the object's real and imaginary part are left as the model gives them: {why}" if why else ""
    )
