"""Fourier ring correlation: equal images agree in every ring, and a cut of the spectrum is where it says."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import N, placed, sample, simulated

from ptycho_runtime import ReconstructionError
from ptycho_runtime.image.frc import half_scans, ring_correlation


def test_equal_images_are_as_fine_as_pixels() -> None:
    image = sample(3)
    found = ring_correlation(image, image)
    assert found.correlation == pytest.approx(np.ones(64))
    assert found.resolution_px(found.one_bit) == 1.0


def test_resolution_is_where_the_images_part() -> None:
    """Two images equal up to ring 20 of 128, and noise beyond: the half-period is 128 / (2·21)."""
    rng = np.random.default_rng(0)
    frequency = np.fft.fftfreq(128) * 128
    inside = np.hypot(frequency[:, None], frequency) <= 20

    def image() -> np.ndarray:
        noise = np.fft.fft2(rng.normal(size=(128, 128)) + 1j * rng.normal(size=(128, 128)))
        return np.fft.ifft2(np.where(inside, common, noise))

    common = np.fft.fft2(rng.normal(size=(128, 128)) + 1j * rng.normal(size=(128, 128)))
    found = ring_correlation(image(), image())
    for threshold in (found.one_bit, found.half_bit):
        assert 128 / (2 * 23) <= found.resolution_px(threshold) <= 128 / (2 * 19)


def test_thresholds_are_those_of_one_bit_and_half_a_bit() -> None:
    """For many pixels a ring, correlations of 1/3 and 0.1716 (signal to noise of 0.5 and 0.2071)."""
    found = ring_correlation(sample(1, 512), sample(2, 512))
    assert found.one_bit[-1] == pytest.approx(1 / 3, abs=0.05)
    assert found.half_bit[-1] == pytest.approx(0.2071 / 1.2071, abs=0.05)
    assert (found.half_bit[1:] < found.one_bit[1:]).all()


def test_more_noise_is_less_resolution() -> None:
    figures = []
    for noise in (0.01, 1.0):
        scan, sums = placed(simulated(noise=noise))
        found = half_scans(scan, sums)
        figures.append(found.resolution_px(found.half_bit))
    assert 1.0 <= figures[0] < figures[1] < N


def test_half_scans_that_share_nothing_are_refused() -> None:
    scan = simulated()
    scan.positions_px[::2] += 500
    with pytest.raises(ReconstructionError, match="--frc"):
        half_scans(*placed(scan))
