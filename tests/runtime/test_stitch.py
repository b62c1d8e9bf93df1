"""Patches go where they belong: against a direct evaluation, and against the object they were cut from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_runtime.stitch import Stitcher, cubic_taps, probe_weights, window

N = 64
Field = Callable[[np.ndarray, np.ndarray], np.ndarray]


def smooth_object() -> Field:
    """Return a function that gives an object's value anywhere: a few waves much longer than a pixel."""
    random = np.random.default_rng(1)
    waves = [(random.uniform(-0.12, 0.12, 2), random.uniform(0.05, 0.2), random.uniform(0, 6)) for _ in range(6)]

    def at(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        amplitude = 1.0 + sum(a * np.cos(k[0] * y + k[1] * x + p) for k, a, p in waves[:3])
        phase = sum(a * np.sin(k[0] * y + k[1] * x + p) for k, a, p in waves[3:])
        return amplitude * np.exp(1j * phase)

    return at


def cut(at: Field, x: float, y: float) -> np.ndarray:
    """Return the patch of an object around (x, y): its pixel [N//2, N//2] lies there."""
    rows, columns = np.arange(N) - N // 2 + y, np.arange(N) - N // 2 + x
    return at(rows[:, None], columns[None, :])


def scan_positions(count: int = 150) -> np.ndarray:
    return np.random.default_rng(2).uniform(40, 140, (count, 2))


@pytest.mark.parametrize("weights", ["window", "probe"])
def test_patches_cut_from_an_object_give_it_back(weights: str) -> None:
    at, positions = smooth_object(), scan_positions()
    axis = np.arange(N) - N / 2
    probe = np.exp(-(axis[:, None] ** 2 + axis**2) / 200)[None]
    stitcher = Stitcher(positions, N, probe_weights(probe) if weights == "probe" else None)
    for start in range(0, len(positions), 16):
        chosen = positions[start : start + 16]
        stitcher.add(np.stack([cut(at, x, y) for x, y in chosen]), chosen)
    canvas = stitcher.result()
    rows = np.arange(canvas.object.shape[0]) + canvas.y0_px
    columns = np.arange(canvas.object.shape[1]) + canvas.x0_px
    truth = at(rows[:, None], columns[None, :])
    assert canvas.covered.mean() > 0.8
    assert np.abs(canvas.object - truth)[canvas.covered].max() <= 1e-4


def test_equals_a_direct_float64_evaluation() -> None:
    random = np.random.default_rng(3)
    positions = random.uniform(20, 40, (5, 2))
    patches = random.normal(size=(5, N, N)) + 1j * random.normal(size=(5, N, N))
    crop = 20
    stitcher = Stitcher(positions, N, None, crop)
    stitcher.add(patches, positions)
    canvas = stitcher.result()
    weights = window(N)[N // 2 - 10 : N // 2 + 10, N // 2 - 10 : N // 2 + 10]
    weights = weights / weights.max()

    def kernel(d: float) -> float:  # Keys' cubic convolution, a = −1/2
        d = abs(d)
        return 1.5 * d**3 - 2.5 * d**2 + 1 if d < 1 else -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0

    covered = np.argwhere(canvas.covered)
    for row, column in covered[:: len(covered) // 12]:
        total, weight = 0j, 0.0
        for patch, (x, y) in zip(patches, positions, strict=True):
            i, j = row + canvas.y0_px - np.floor(y) + crop // 2, column + canvas.x0_px - np.floor(x) + crop // 2
            if 0 <= i < crop and 0 <= j < crop:
                at_row, at_column = row + canvas.y0_px - y + N // 2, column + canvas.x0_px - x + N // 2
                value = sum(
                    kernel(at_row - r) * kernel(at_column - c) * patch[r, c]
                    for r in range(int(at_row) - 2, int(at_row) + 4)
                    for c in range(int(at_column) - 2, int(at_column) + 4)
                )
                total += weights[int(i), int(j)] * value
                weight += weights[int(i), int(j)]
        assert weight > 0
        assert canvas.object[row, column] == pytest.approx(total / weight, rel=1e-6)


def test_order_and_batches_do_not_matter() -> None:
    at, positions = smooth_object(), scan_positions(20)
    patches = np.stack([cut(at, x, y) for x, y in positions])
    first, second = Stitcher(positions, N), Stitcher(positions, N)
    first.add(patches, positions)
    for i in reversed(range(20)):
        second.add(patches[i : i + 1], positions[i : i + 1])
    assert np.allclose(first.result().object, second.result().object, atol=1e-6)


def test_what_was_not_measured_is_zero() -> None:
    stitcher = Stitcher(np.array([[0.0, 0.0], [100.0, 100.0]]), N)
    stitcher.add(np.ones((1, N, N), complex), np.array([[0.0, 0.0]]))
    canvas = stitcher.result()
    assert not canvas.object[~canvas.covered].any()
    assert np.allclose(canvas.object[canvas.covered], 1.0)


@given(st.floats(0, 1))
@settings(deadline=None)
def test_interpolation_is_exact_for_parabolas(t: float) -> None:
    taps = cubic_taps(np.array([t]))[0]
    samples = np.array([-1.0, 0.0, 1.0, 2.0])
    for power in (0, 1, 2):
        assert taps @ samples**power == pytest.approx(t**power, abs=1e-12)
