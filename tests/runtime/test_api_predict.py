"""What `predict` is given is patterns and their scale, or refused."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import ptycho_runtime
from ptycho_runtime import ReconstructionError, demo


@pytest.fixture(scope="module")
def model() -> Iterator[ptycho_runtime.Reconstructor]:
    with ptycho_runtime.open(demo.MODEL, "cpu") as model:
        yield model


@pytest.mark.parametrize(
    ("diffraction", "match"),
    [
        (np.ones((2, 64, 64), bool), "holds bool of shape"),
        (np.ones((2, 64, 64), complex), "holds complex128 of shape"),
        (np.array([None]), "holds object of shape"),
        (np.ones((0, 64, 64)), r"shape \(0, 64, 64\); expected real numbers of one pattern or more"),
        (np.full((1, 64, 64), 1e200), "non-finite"),
    ],
)
def test_what_are_no_patterns(model: ptycho_runtime.Reconstructor, diffraction: np.ndarray, match: str) -> None:
    with np.errstate(over="ignore"), pytest.raises(ReconstructionError, match=match):
        model.predict(diffraction)


@pytest.mark.parametrize("factor", [0.0, -1.0, np.nan, np.inf, [0.1, 0.2, 0.3]])
def test_what_is_no_scale(model: ptycho_runtime.Reconstructor, factor: object) -> None:
    with pytest.raises(ReconstructionError, match=r"input_scale_factor is .* for each of 2 groups"):
        model.predict(np.ones((2, 64, 64)), np.asarray(factor))


@pytest.mark.parametrize("kind", ["float16", ">f8", "uint16", "int64"])
def test_numbers_of_every_kind_are_the_same_patterns(model: ptycho_runtime.Reconstructor, kind: str) -> None:
    patterns = np.random.default_rng(1).integers(0, 30, (2, 64, 64))
    assert np.array_equal(model.predict(patterns.astype(kind), 0.1), model.predict(patterns.astype(np.float32), 0.1))
