"""Patches go where they belong: against a direct evaluation, and against the object they were cut from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_runtime import ReconstructionError
from ptycho_runtime.image.stitch import Stitcher, cubic_taps, default_crop_px, probe_weights, window

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


def stitched(patches: np.ndarray, positions: np.ndarray, N: int, crop_px: int | None = None) -> np.ndarray:
    stitcher = Stitcher(positions, N, np.random.default_rng(7).random((N, N)), crop_px)
    stitcher.add(patches, positions)
    return stitcher.result().object


def noise(count: int, side: int) -> np.ndarray:
    real, imag = np.random.default_rng(4).normal(size=(2, count, side, side)).astype(np.float32)
    return real + 1j * imag


@pytest.mark.parametrize("N", [16, 24, 64, 128])
def test_middles_of_patches_give_the_very_same_object(N: int) -> None:
    patches, positions = noise(37, N), np.random.default_rng(5).uniform(0, 40, (37, 2))
    whole = stitched(patches, positions, N)
    central = slice(N // 4, N // 4 + N // 2)
    assert np.array_equal(stitched(patches[:, central, central], positions, N), whole)


@pytest.mark.parametrize("S", [9, 10, 15, 20, 23])
def test_largest_crop_that_a_patch_has_room_for(S: int) -> None:
    N = 24
    patches, positions = noise(5, N), np.random.default_rng(6).uniform(0, 9, (5, 2))
    middle = slice(N // 2 - S // 2, N // 2 - S // 2 + S)
    most = S - 3 - S % 2  # two pixels before the crop are read and one after it
    found = stitched(patches[:, middle, middle], positions, N, most)
    assert np.array_equal(found, stitched(patches, positions, N, most))
    message = (
        f"object patches of {S} × {S} pixels have no middle of {most + 1} with 2 pixels around it for interpolation; expected a "
        f"crop of 1 to {most} pixels; give --crop-px {most} or less, or an export with larger patches"
    )
    with pytest.raises(ReconstructionError) as raised:
        stitched(patches[:, middle, middle], positions, N, most + 1)
    assert str(raised.value) == message


@pytest.mark.parametrize("fraction", [0.0, 0.4])
def test_no_pixel_outside_the_margin_is_read(fraction: float) -> None:
    patches, positions, crop = (
        noise(3, N),
        np.array([[5.0, 9.0], [6.0, 2.0], [1.0, 1.0]]) + fraction,
        default_crop_px(N),
    )
    first, last = N // 2 - crop // 2 - 2, N // 2 - crop // 2 + crop
    assert (first, last) == (16, 46), "within the central half, pixels 16 to 47"
    inside = np.zeros((N, N), bool)
    inside[first : last + 1, first : last + 1] = True
    assert np.isfinite(stitched(np.where(inside, patches, np.nan), positions, N)).all()
    inside[last] = False
    assert not np.isfinite(stitched(np.where(inside, patches, np.nan), positions, N)).all()


@pytest.mark.parametrize("crop_px", [-1, 0, 62, 64])
def test_crop_that_no_patch_has_room_for(crop_px: int) -> None:
    with pytest.raises(ReconstructionError, match="expected a crop of 1 to 61 pixels; give --crop-px 61 or less"):
        Stitcher(np.zeros((1, 2)), N, None, crop_px)


def test_patches_larger_than_a_pattern_or_not_square() -> None:
    stitcher = Stitcher(np.zeros((1, 2)), N)
    with pytest.raises(ReconstructionError, match="patches are 65 × 65 pixels; expected at most 64 × 64"):
        stitcher.add(noise(1, 65), np.zeros((1, 2)))
    with pytest.raises(ReconstructionError, match=r"shapes \(1, 64, 60\) and \(1, 64, 60\) .* expected \(n, S, S\)"):
        stitcher.add(noise(1, 64)[..., :60], np.zeros((1, 2)))


def test_batches_do_not_change_a_bit() -> None:
    patches, positions = noise(53, N), scan_positions(53)
    one, many = Stitcher(positions, N), Stitcher(positions, N)
    one.add(patches, positions)
    for start in range(0, 53, 7):
        many.add(patches[start : start + 7], positions[start : start + 7])
    assert np.array_equal(one.result().object, many.result().object)


def test_single_precision_patches_are_as_good_as_double() -> None:
    patches, positions = noise(150, N), scan_positions()
    single, double = stitched(patches, positions, N), stitched(patches.astype(np.complex128), positions, N)
    assert patches.dtype == np.complex64
    assert np.linalg.norm(single - double) <= 3e-7 * np.linalg.norm(double)


@given(st.floats(0, 1))
@settings(deadline=None)
def test_interpolation_is_exact_for_parabolas(t: float) -> None:
    taps = cubic_taps(np.array([t]))[0]
    samples = np.array([-1.0, 0.0, 1.0, 2.0])
    for power in (0, 1, 2):
        assert taps @ samples**power == pytest.approx(t**power, abs=1e-12)
