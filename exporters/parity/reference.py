"""What the eager models give for a pool of inputs: float64 to compare with, float32 to know what rounding does.

Each model is copied once for each precision, graphs of equal weights share one run of their network, and every chunk of
groups is computed by one thread: the numbers do not depend on how many threads there are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from exporters.graph.eager import all_eager_outputs
from exporters.graph.family import families
from exporters.parity.double import DoubleConvolutions
from exporters.parity.inputs import Pool
from ptycho_runtime.engine.hardware import usable_threads
from ptycho_torch.models.module import PtychoModel

Outputs = dict[str, np.ndarray]
CHUNK_GROUPS = 4


def eager_results(
    models: Mapping[str, PtychoModel], graphs: Iterable[str], pool: Pool, dtype: torch.dtype
) -> dict[str, Outputs]:
    """Return eager outputs for a whole pool on the CPU, by graph and name.

    Args:
        models: by graph, float32 on the CPU; they stay as they are.
        graphs: which to run.
        pool: inputs of all of them.
        dtype: float32 or float64.
    """
    found: dict[str, Outputs] = {}
    for family in families(models, graphs):
        model = models[family[0]]
        if dtype == torch.float64:
            model = copy.deepcopy(model).double()
        run = partial(_run, model, family, dtype)
        parts = in_single_threads(
            run, [pool.slice(i, min(i + CHUNK_GROUPS, len(pool))) for i in range(0, len(pool), CHUNK_GROUPS)]
        )
        for graph in family:
            found[graph] = {name: np.concatenate([part[graph][name] for part in parts]) for name in parts[0][graph]}
    return found


def in_single_threads(run: Callable[[Any], Any], tasks: Iterable[Any]) -> list[Any]:
    """Return what `run` gives for each task, in order; tasks share the processor, and each is computed by one thread."""
    with (
        one_thread(),
        ThreadPoolExecutor(usable_threads(), initializer=torch.set_num_threads, initargs=(1,)) as workers,
    ):
        return list(workers.map(run, tasks))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute with one thread in this block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run(
    model: PtychoModel, graphs: list[str], dtype: torch.dtype, feed: Mapping[str, np.ndarray]
) -> dict[str, Outputs]:
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in feed.items()}
    tensors = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
    with torch.no_grad(), DoubleConvolutions():
        results = all_eager_outputs(model, graphs, tensors)
    return {graph: {name: value.numpy() for name, value in outputs.items()} for graph, outputs in results.items()}
