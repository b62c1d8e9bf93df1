"""Arrays for a graph's inputs, cut into parts of its groups and put together again."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from ptycho_runtime import contract as c

Feed = Mapping[str, np.ndarray]
_PER_GROUP = (c.DIFFRACTION, c.INPUT_SCALE, c.POSITIONS, c.OUTPUT_SCALE, c.EXPERIMENT_ID)


class InputInfo(Protocol):
    """An input of a graph, as onnxruntime describes it."""

    name: str
    shape: list[Any]  # sizes; the name of a dynamic axis
    type: str


def warmup_feed(inputs: Mapping[str, InputInfo], batch: int, modes: int = 1) -> dict[str, np.ndarray]:
    """Return numbers of the right shapes for a graph's inputs."""
    feed = {}
    for name, info in inputs.items():
        sizes = [{c.BATCH_AXIS: batch, c.MODES_AXIS: modes}.get(d, 1) if isinstance(d, str) else d for d in info.shape]
        feed[name] = np.zeros(sizes, np.int64) if "int64" in info.type else np.full(sizes, 0.5, np.float32)
    return feed


def split(feed: Feed, parts: int) -> list[dict[str, np.ndarray]]:
    """Return a feed's groups in parts whose sizes differ by one at most, in order."""
    edges = np.linspace(0, len(feed[c.DIFFRACTION]), parts + 1).round().astype(int)
    return [cut(feed, int(start), int(stop)) for start, stop in itertools.pairwise(edges)]


def cut(feed: Feed, start: int, stop: int, size: int | None = None) -> dict[str, np.ndarray]:
    """Return some of a feed's groups, the last one repeated up to `size` of them."""
    return {k: _padded(v[start:stop], size or stop - start) if k in _PER_GROUP else v for k, v in feed.items()}


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the outputs of consecutive parts as those of the whole."""
    return parts[0] if len(parts) == 1 else {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    if len(values) == size:
        return values
    return np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])
