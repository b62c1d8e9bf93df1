"""Groups use every pattern and are the same every time; the scale is training's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_runtime import ScanError
from ptycho_runtime.scan.grouping import group_neighbours, group_offsets
from ptycho_runtime.scan.scale import input_scale_factor


@given(st.integers(4, 60), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_every_pattern_opens_a_group_of_distinct_nearest_neighbours(n: int, seed: int) -> None:
    positions = np.random.default_rng(seed).uniform(0, 50, (n, 2))
    groups = group_neighbours(positions, 4)
    assert np.array_equal(groups[:, 0], np.arange(n))
    assert all(len(set(group)) == 4 for group in groups.tolist())
    distance = np.linalg.norm(positions[:, None] - positions, axis=-1)
    for i, group in enumerate(groups):
        assert sorted(distance[i, group]) == pytest.approx(sorted(distance[i])[:4])


def test_ties_are_settled_by_index() -> None:
    y, x = np.mgrid[:4, :4]
    positions = np.stack([x.ravel(), y.ravel()], -1).astype(float)
    assert group_neighbours(positions, 4)[5].tolist() == [5, 1, 4, 6]


def test_one_pattern_a_group_is_itself() -> None:
    assert group_neighbours(np.zeros((3, 2)), 1).tolist() == [[0], [1], [2]]


def test_repeated_positions_still_start_with_the_pattern_itself() -> None:
    assert group_neighbours(np.zeros((6, 2)), 4)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_too_few_patterns() -> None:
    with pytest.raises(ScanError, match="has 3 usable patterns; a group of this model needs 4"):
        group_neighbours(np.zeros((3, 2)), 4)


def test_offsets_are_from_the_groups_mean() -> None:
    positions = np.array([[0.0, 0.0], [4.0, 2.0]])
    assert group_offsets(positions, np.array([[0, 1]]))[0, :, 0].tolist() == [[-2.0, -1.0], [2.0, 1.0]]


@pytest.mark.parametrize(("formula", "k"), [("half_n_over_rms", 32.0**2), ("n_over_rms", 64.0**2)])
def test_scale_is_from_the_mean_energy_of_a_pattern(formula: str, k: float) -> None:
    data = np.random.default_rng(0).random((10, 64, 64)).astype(np.float32)
    expected = np.sqrt(k / np.mean((data.astype(float) ** 2).sum((1, 2))))
    assert input_scale_factor(formula, [data[:3], data[3:]], 64) == pytest.approx(expected, rel=1e-6)  # type: ignore[arg-type]


def test_scale_does_not_depend_on_chunks_or_order() -> None:
    data = np.random.default_rng(0).gamma(0.1, 100.0, (50, 16, 16)).astype(np.float32)
    chunked = input_scale_factor("n_over_rms", [data[i : i + 7] for i in range(0, 50, 7)], 16)
    assert chunked == input_scale_factor("n_over_rms", [data[::-1]], 16)


def test_scale_of_no_light_is_one() -> None:
    assert input_scale_factor("half_n_over_rms", [np.zeros((2, 64, 64))], 64) == 1.0
