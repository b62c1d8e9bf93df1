"""Arrays for a graph's inputs: checked against it, cut into parts of its groups and put together again."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.errors import ReconstructionError

Feed = Mapping[str, np.ndarray]
Shapes = tuple[tuple[int, ...], ...]  # of the inputs, in the graph's order
DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class InputInfo(Protocol):
    """An input of a graph, as onnxruntime describes it."""

    name: str
    shape: list[Any]
    """Sizes; the name of a dynamic axis, or None for one without a name."""
    type: str


def warmup_feed(inputs: Mapping[str, InputInfo], batch: int, modes: int = 1) -> dict[str, np.ndarray]:
    """Return numbers of the right shapes for a graph's inputs."""
    feed = {}
    for name, info in inputs.items():
        sizes = [
            {contract.BATCH_AXIS: batch, contract.MODES_AXIS: modes}.get(d, 1) if isinstance(d, str) else d
            for d in info.shape
        ]
        feed[name] = np.zeros(sizes, np.int64) if "int64" in info.type else np.full(sizes, 0.5, np.float32)
    return feed


def checked(inputs: Mapping[str, InputInfo], feed: Feed) -> tuple[dict[str, np.ndarray], int]:
    """Return (arrays for the inputs alone, contiguous; how many groups they have).

    Raises `ReconstructionError` for what the graph does not take: a missing input, another dtype or shape, no groups, or more of
    them in one input than in another.
    """
    missing = [name for name in inputs if name not in feed]
    if missing:
        raise ReconstructionError(f"the feed lacks {', '.join(missing)}; the graph takes {', '.join(inputs)}")
    arrays = {name: np.asarray(feed[name]) for name in inputs}
    for name, info in inputs.items():
        value = arrays[name]
        fits = value.ndim == len(info.shape) and all(
            not isinstance(axis, int) or axis == size for axis, size in zip(info.shape, value.shape, strict=True)
        )
        if not fits or info.type not in DTYPES or value.dtype != DTYPES[info.type]:
            raise ReconstructionError(
                f"{name} is {value.dtype} of shape {value.shape}; the graph takes {info.type} of {tuple(info.shape)}"
            )
    counts = {name: len(arrays[name]) for name in _per_group(inputs)}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise ReconstructionError(f"groups by input: {counts}; expected as many in each, and one at least")
    return {name: np.ascontiguousarray(value) for name, value in arrays.items()}, next(iter(counts.values()), 1)


def shapes_of(inputs: Mapping[str, InputInfo], feed: Feed) -> Shapes:
    """Return the shapes of a feed in the order of a graph's inputs."""
    return tuple(np.shape(feed[name]) for name in inputs)


def split(inputs: Mapping[str, InputInfo], feed: Feed, groups: int, parts: int) -> list[dict[str, np.ndarray]]:
    """Return a feed's groups in parts whose sizes differ by one at most, in order."""
    edges = np.linspace(0, groups, parts + 1).round().astype(int)
    return [cut(inputs, feed, int(start), int(stop)) for start, stop in itertools.pairwise(edges)]


def cut(
    inputs: Mapping[str, InputInfo], feed: Feed, start: int, stop: int, size: int | None = None
) -> dict[str, np.ndarray]:
    """Return some of a feed's groups, the last one repeated up to `size` of them."""
    own = _per_group(inputs)
    return {k: _padded(v[start:stop], size or stop - start) if k in own else v for k, v in feed.items()}


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the outputs of consecutive parts as those of the whole."""
    return parts[0] if len(parts) == 1 else {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _per_group(inputs: Mapping[str, InputInfo]) -> list[str]:
    return [name for name, info in inputs.items() if info.shape[:1] == [contract.BATCH_AXIS]]


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    if len(values) == size:
        return values
    return np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])
