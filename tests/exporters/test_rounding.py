"""What rounding may do is drawn several times: where a few pixels err, one run's luck decides nothing."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters.parity.inputs import make_pool  # noqa: E402
from exporters.parity.metrics import Signal, budget, group_errors  # noqa: E402
from exporters.parity.reference import eager_results  # noqa: E402
from exporters.parity.rounding import farthest, nudged, rounded_results  # noqa: E402
from ptycho_runtime import contract  # noqa: E402
from ptycho_torch.models.module import PtychoModel  # noqa: E402
from ptycho_torch.spec import ModelSpec  # noqa: E402

NAME = contract.OBJECT_REAL


def test_the_worst_draw_stands_for_its_group_with_the_largest_error_of_all() -> None:
    reference = {NAME: np.ones((2, 1, 4, 4))}
    draws = [np.ones((2, 1, 4, 4), np.float32) for _ in range(3)]
    draws[0][0] += 2e-3  # everywhere: the longest error of the first group
    draws[1][0, 0, 1, 2] -= 5e-3  # one pixel: its largest
    draws[2][1, 0, 3, 3] += 1e-3
    worst = farthest(NAME, draws, reference)
    assert np.flatnonzero(worst[0] != draws[0][0]).tolist() == [6]
    assert worst[0, 0, 1, 2] == draws[1][0, 0, 1, 2]
    assert worst[1].tolist() == draws[2][1].tolist()


def test_a_draw_that_is_not_finite_is_the_worst() -> None:
    draws = [np.ones((1, 1, 2, 2), np.float32) for _ in range(2)]
    draws[1][0, 0, 0, 0] = np.nan
    reference = {NAME: np.ones((1, 1, 2, 2))}
    assert budget(NAME, {NAME: farthest(NAME, draws, reference)}, reference).objection


def test_the_draws_are_stored_as_they_were() -> None:
    draws = [np.zeros((1, 1, 2, 2), np.float32), np.full((1, 1, 2, 2), 1.0, np.float32)]
    farthest(NAME, draws, {NAME: np.zeros((1, 1, 2, 2))})
    assert draws[0].max() == 0.0


def test_pixels_move_by_one_unit_and_nothing_else_changes() -> None:
    pool = make_pool(ModelSpec(era="J", generator="cnn", N=64, gridsize=1), 5)
    before, after = pool.feed[contract.DIFFRACTION], nudged(pool, 0).feed[contract.DIFFRACTION]
    steps = before.view(np.int32).astype(np.int64) - after.view(np.int32)
    assert set(np.unique(np.abs(steps[before > 0.0]))) == {1}
    assert not after[before == 0.0].any()
    assert 0.4 < float(np.mean(steps[before > 0.0] > 0)) < 0.6
    assert (nudged(pool, 1).feed[contract.DIFFRACTION] != after).any()
    assert all(nudged(pool, 0).feed[name] is value for name, value in pool.feed.items() if name != contract.DIFFRACTION)


def test_budgets_never_shrink_and_grow_but_little_where_luck_decides_little() -> None:
    torch.manual_seed(0)
    spec = ModelSpec(era="J", generator="ffno", N=64, gridsize=1, fno_width=4, fno_modes=4, fno_blocks=1)
    model, graph = PtychoModel(spec).eval(), "diffraction_to_obj"
    pool = make_pool(spec, 5)
    reference = eager_results({graph: model}, [graph], pool, torch.float64)
    first = eager_results({graph: model}, [graph], pool, torch.float32)
    worst = rounded_results({graph: model}, pool, reference, first)
    for name in reference[graph]:
        signal = Signal.of(name, reference[graph])
        own, drawn = (group_errors(name, found[graph][name], reference[graph], signal) for found in (first, worst))
        assert (drawn.max_abs >= own.max_abs).all()
        assert (drawn.rel_l2 >= own.rel_l2).all()
        assert float(np.median(drawn.rel_l2 / own.rel_l2)) < 2.0
