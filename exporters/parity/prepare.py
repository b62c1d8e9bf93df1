"""What files are fed and judged by, made of the eager models alone, before any file is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from exporters.graph.family import families
from exporters.options import Progress, silent
from exporters.parity.alone import Alone
from exporters.parity.awake import Reach, wake
from exporters.parity.independent.rows import independent_rows
from exporters.parity.inputs import EDGES, Pool, Source, make_pool
from exporters.parity.metrics import sound_groups
from exporters.parity.reference import Outputs, eager_results
from exporters.parity.rounding import rounded_results
from exporters.parity.rows import ParityRow
from ptycho_torch.models.module import PtychoModel
from ptycho_torch.spec import ModelSpec

ALL_EDGES = 1 + len(EDGES)  # groups that hold every edge
POOL_GROUPS = 8  # at least: the edges are among them


@dataclass(frozen=True)
class Prepared:
    """Inputs with what the eager models give for them; any number of files of these models can be judged by it."""

    models: Mapping[str, PtychoModel]
    """Eager float32 models on the CPU, by graph."""
    spec: ModelSpec
    batches: tuple[int, ...]
    """Each is a slice of the pool; the largest holds every group."""
    pool: Pool
    """Inputs of all graphs."""
    reach: Reach
    """What they see of the network."""
    references: Mapping[str, Outputs]
    """Eager float64's outputs for the whole pool, by graph."""
    eagers32: Mapping[str, Outputs]
    """Eager float32's."""
    rounded: Mapping[str, Outputs]
    """The worst of several runs of it, see `rounded_results`: what budgets are made of."""
    independent: tuple[ParityRow, ...]
    """Rows that hold the reference against the independent evaluation."""
    layers: Mapping[str, Alone]
    """What each layer does by itself, by graph; graphs of equal weights have the same."""


def prepare(
    models: Mapping[str, PtychoModel],
    spec: ModelSpec,
    batches: tuple[int, ...],
    source: Source | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Return inputs that reach the whole network, and the references for them.

    Args:
        models: eager float32 models on the CPU, by graph; they stay as they are.
        spec: what they are.
        batches: from `telling_batches`.
        source: the bundle's scale, and a scan whose patterns are used in place of simulated ones.
        progress: called with a short text before each step.

    Raises `ScanError` for a scan that cannot be used.
    """
    pool = make_pool(spec, max(batches[-2], POOL_GROUPS), source)
    progress("inputs that reach the whole network")
    ordinary = len(pool)
    reach = Reach()
    if models:
        pool, reach = wake(models.get("diffraction_to_obj") or next(iter(models.values())), pool)
    progress("float64 references")
    references = eager_results(models, models, pool, torch.float64)
    eagers32 = eager_results(models, models, pool, torch.float32)
    rounded = rounded_results(models, pool, references, eagers32)
    # Of groups that were looked for, those that float32 cannot compute prove nothing.
    sound = [sound_groups(rounded[graph], references[graph]) for graph in references]
    kept = np.flatnonzero(np.all(sound, 0) | (np.arange(len(pool)) < ordinary)) if sound else np.arange(len(pool))
    if len(kept) < len(pool):
        pool = pool.take(kept)
        references, eagers32, rounded = (
            {graph: {name: value[kept] for name, value in outputs.items()} for graph, outputs in results.items()}
            for results in (references, eagers32, rounded)
        )
    # The largest batch holds every group, the first ones a second time.
    batches = (*batches[:-1], max(batches[-1], len(pool) + 1))
    progress("independent evaluation")
    independent = tuple(independent_rows(models, pool, references))
    layers: dict[str, Alone] = {}
    for family in families(models, models):
        layers |= dict.fromkeys(family, Alone(models[family[0]], pool))
    return Prepared(models, spec, batches, pool, reach, references, eagers32, rounded, independent, layers)


def telling_batches(batches: Iterable[int], stored: Iterable[int] = ()) -> tuple[int, ...]:
    """Return batch sizes, sorted, with what a proof cannot do without; the last is larger than any that is known.

    One size alone would hide a batch that was baked into a file, and sizes below 5 do not reach all edges of the inputs: then
    1 and 5 are added. A file that is wrong only where a batch is larger than those that are said to be tried is met by one more.

    Args:
        batches: sizes that were asked for.
        stored: sizes that `exports.json` says were tried.
    """
    sizes = set(batches)
    if not sizes or min(sizes) < 1:
        raise ValueError(f"batch sizes {sorted(sizes)}; expected at least one, each 1 or more")
    if max(sizes) < ALL_EDGES:
        sizes.add(ALL_EDGES)
    if len(sizes) == 1:
        sizes.add(1)
    largest = max(sizes)
    return (*sorted(sizes), max(2 * largest + 1, POOL_GROUPS + 1, *(size + 1 for size in stored)))
