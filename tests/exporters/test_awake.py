"""The pool reaches what ordinary patterns leave unseen, and says what it does not reach."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters.parity.awake import KIND, MOST_GROUPS, wake  # noqa: E402
from exporters.parity.inputs import make_pool  # noqa: E402
from ptycho_torch.models.module import PtychoModel  # noqa: E402
from ptycho_torch.spec import ModelSpec  # noqa: E402

if TYPE_CHECKING:
    from exporters.parity.awake import Reach
    from exporters.parity.inputs import Pool

LAYER = "encoder.blocks.0.conv1"


def model_with(bias: float) -> PtychoModel:
    """Return a network with one unit that only bright patterns wake, or none."""
    torch.manual_seed(0)
    spec = ModelSpec(era="J", generator="cnn", N=64, gridsize=1, n_filters_scale=1, border_mask=True, c_outer=1)
    model = PtychoModel(spec).eval()
    with torch.no_grad():
        convolution = model.model.autoencoder.get_submodule(LAYER)
        convolution.weight[3] = 0.1
        convolution.bias[3] = bias
    return model


@functools.cache
def woken() -> tuple[PtychoModel, Pool, Pool, Reach]:
    """Return a model whose unit needs bright patterns, a pool without such, and what `wake` makes of both."""
    model = model_with(-60.0)
    pool = make_pool(model.spec, 8)
    return model, pool, *wake(model, pool)


def test_a_unit_that_only_bright_patterns_wake_is_woken() -> None:
    model, pool, wider, reach = woken()
    answer = model.model.autoencoder.get_submodule(LAYER)
    fed = torch.from_numpy(pool.feed["diffraction"] * pool.feed["input_scale_factor"])
    assert answer(fed)[:, 3].max() < 0.0
    added = slice(len(pool), len(wider))
    fed = torch.from_numpy((wider.feed["diffraction"] * wider.feed["input_scale_factor"])[added])
    assert answer(fed)[:, 3].max() > 0.0
    assert wider.kinds[added] == [KIND] * (len(wider) - len(pool))
    assert 1 <= len(wider) - len(pool) <= MOST_GROUPS
    assert all(np.array_equal(wider.slice(0, 8)[name], value) for name, value in pool.feed.items())
    assert reach.unseen < reach.weights


def test_a_unit_that_nothing_can_wake_is_said_to_be_silent() -> None:
    model = model_with(0.0)
    with torch.no_grad():
        convolution = model.model.autoencoder.get_submodule(LAYER)
        convolution.weight[3], convolution.bias[3] = 0.0, -1.0
    _, reach = wake(model, make_pool(model.spec, 8))
    assert reach.silent[LAYER] >= 1
    assert f"in {LAYER}" in reach.words()
    assert reach.unseen >= 9


def test_the_same_model_gives_the_same_pool() -> None:
    model, pool, wider, _ = woken()
    assert wake(model, pool)[0].sha256() == wider.sha256()
