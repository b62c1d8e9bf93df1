"""What rounding does to a network's outputs: eager float32, drawn several times.

Where a network answers steeply, an error is that of a few pixels, and how much one run errs there is luck: another that is as right
may err five times as much. Each further run is fed the same patterns with every pixel moved by one unit in its last place, up or
down, which draws every rounding behind it anew.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from exporters.parity.inputs import Pool
from exporters.parity.metrics import DRAWS, Signal, group_errors
from exporters.parity.reference import Outputs, eager_results
from ptycho_runtime import contract
from ptycho_runtime.metrics import difference, phase_weight
from ptycho_torch.models.module import PtychoModel


def rounded_results(
    models: Mapping[str, PtychoModel],
    pool: Pool,
    references: Mapping[str, Outputs],
    first: Mapping[str, Outputs] | None = None,
) -> dict[str, Outputs]:
    """Return eager float32's outputs on the CPU as budgets are made of them: of each group the draw that errs most.

    Its largest error is the largest of all draws.

    Args:
        models: by graph, float32 on the CPU; they stay as they are.
        pool: inputs of all of them.
        references: eager float64's outputs for the pool, by graph: those that are run.
        first: eager float32's, where they are there already.
    """
    draws = [first or eager_results(models, references, pool, torch.float32)]
    draws += [eager_results(models, references, nudged(pool, number), torch.float32) for number in range(DRAWS - 1)]
    return {
        graph: {name: farthest(name, [draw[graph][name] for draw in draws], reference) for name in reference}
        for graph, reference in references.items()
    }


def nudged(pool: Pool, number: int) -> Pool:
    """Return a pool with every pixel that is not zero moved by one unit in its last place, up or down, another way for each number."""
    random = np.random.default_rng([number, len(pool)])
    patterns = pool.feed[contract.DIFFRACTION]
    ends = np.where(random.random(patterns.shape) < 0.5, np.float32(0.0), np.float32(np.inf))
    moved = np.where(patterns == 0.0, patterns, np.nextafter(patterns, ends))
    return Pool({**pool.feed, contract.DIFFRACTION: moved.astype(np.float32)}, pool.kinds, pool.origin, pool.positions)


def farthest(name: str, draws: list[np.ndarray], reference: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return of each group the draw that is farthest from the reference, with the largest single error of all draws in its place.

    Args:
        name: of the output.
        draws: (groups, …) each.
        reference: all outputs of the graph in float64.
    """
    signal, weight = Signal.of(name, reference), phase_weight(name, reference)
    groups = np.arange(len(reference[name]))
    lengths, largest, places = [], [], []
    for draw in draws:
        lengths.append(group_errors(name, draw, reference, signal).rel_l2)
        deltas = np.abs(difference(name, draw, reference[name], weight)).reshape(len(groups), -1)
        deltas[~np.isfinite(deltas)] = np.inf
        places.append(deltas.argmax(1))
        largest.append(deltas[groups, places[-1]])
    flat = [draw.reshape(len(groups), -1) for draw in draws]
    chosen, farthest_of = np.argmax(lengths, 0), np.argmax(largest, 0)
    worst = np.stack([flat[of][group] for group, of in enumerate(chosen)])
    for group, of in enumerate(farthest_of):
        place = places[of][group]
        worst[group, place] = flat[of][group, place]
    return worst.reshape(reference[name].shape)
