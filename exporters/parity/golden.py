"""`golden.npz`: a few inputs with float64 reference outputs, so that a host without PyTorch can check itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from exporters.graph.graphs import graph_io
from exporters.parity.inputs import Pool, Source, make_pool
from exporters.parity.metrics import allowed_over_all, budget
from exporters.parity.reference import eager_results
from exporters.parity.rounding import rounded_results
from ptycho_runtime import contract
from ptycho_runtime.errors import DamagedExportError
from ptycho_runtime.export.npz import read_npz
from ptycho_torch.bundle.write import npz_bytes
from ptycho_torch.models.module import PtychoModel
from ptycho_torch.spec import ModelSpec

_MAX_VALUES = 3 * 64 * 64 * 4  # keeps the file small for large patterns and groups
_POOL_GROUPS = 8


def make_golden(models: Mapping[str, PtychoModel], spec: ModelSpec, source: Source | None = None) -> bytes:
    """Return the file's bytes, the same for the same models and tools; names as `contract.GOLDEN_KINDS` says."""
    pool = make_pool(spec, _POOL_GROUPS, source)
    groups = int(np.clip(_MAX_VALUES // (spec.C * spec.N**2), 1, 3))
    keep = [0, *range(5, 5 + groups - 1)]  # a simulated group each; the edges are parity's
    feed = {k: v if k.startswith("probe_") else v[keep] for k, v in pool.feed.items()}
    return _golden(models, spec, Pool(feed, [pool.kinds[i] for i in keep]))


def make_golden_again(models: Mapping[str, PtychoModel], spec: ModelSpec, stored: bytes) -> bytes:
    """Return the file's bytes for the inputs of one that another release made: its inputs were others, the references must hold.

    Raises `DamagedExportError` where the stored file cannot be read or lacks an input.
    """
    arrays = read_npz(stored, contract.GOLDEN_NPZ)
    feed: dict[str, np.ndarray] = {}
    for graph in models:
        for info in graph_io(spec, graph)[0]:
            name = f"{graph}.input.{info['name']}"
            if name not in arrays:
                raise DamagedExportError(f"{contract.GOLDEN_NPZ} lacks {name}; export the bundle again")
            feed.setdefault(info["name"], arrays[name])
    return _golden(models, spec, Pool(feed, ["stored"] * len(feed[contract.DIFFRACTION])))


def _golden(models: Mapping[str, PtychoModel], spec: ModelSpec, chosen: Pool) -> bytes:
    arrays: dict[str, np.ndarray] = {}
    feed = chosen.feed
    references = eager_results(models, models, chosen, torch.float64)
    eagers32 = rounded_results(models, chosen, references)
    for graph, reference in references.items():
        names = [info["name"] for info in graph_io(spec, graph)[0]]
        arrays |= {f"{graph}.input.{name}": feed[name] for name in names}
        for name, value in reference.items():
            allowed = budget(name, eagers32[graph], reference)
            arrays[f"{graph}.reference.{name}"] = value
            arrays[f"{graph}.allowed.{name}"] = np.array(allowed_over_all(name, reference, allowed))
    return npz_bytes(dict(sorted(arrays.items())))
