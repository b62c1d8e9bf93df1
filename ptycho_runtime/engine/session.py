"""The one contract for running a graph, whatever runs it."""

from __future__ import annotations

from abc import abstractmethod
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.closing import Closing
from ptycho_runtime.engine.batching import Feed, InputInfo, warmup_feed
from ptycho_runtime.engine.options import DEFAULTS, RunOptions
from ptycho_runtime.errors import ReconstructionError


class Session(Protocol):
    """One graph on one engine and device: a context manager, and `close` does what leaving it does.

    Its methods may be called from several threads at a time.
    """

    engine: str
    device: str
    note: str
    """What is to be said of the session in one line, above all why it is not on another device; mostly empty."""
    options: RunOptions
    """How it was opened, with the device and the threads that it truly has."""
    inputs: dict[str, InputInfo]
    outputs: list[str]

    def __enter__(self) -> Self:
        """Return the session."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Return the outputs by name for any number of groups.

        Args:
            feed: arrays by input name, as the graph's inputs are described; others are passed over.

        Raises:
            ReconstructionError: an input is missing, or has another dtype, shape or number of groups than the graph takes; the
                graph cannot be run on what it holds; the session is closed.
            DeviceUnavailableError: the device fails.
        """

    def warmup(self, modes: int = 1) -> None:
        """Run once on numbers, so that the first real patterns do not wait for plans and memory."""

    def facts(self) -> dict[str, Any]:
        """Return what is read back of the engine: versions, device or providers, precision."""

    def close(self) -> None:
        """Give threads, buffers and the engine's memory back; a second time does nothing."""


class TensorInput:
    """An input of a graph, described as onnxruntime does."""

    def __init__(self, info: contract.TensorInfo) -> None:
        """Take what `exports.json` or an ONNX file says of it."""
        kind = {"float32": "float"}.get(info["dtype"], info["dtype"])
        self.name, self.shape, self.type = info["name"], list(info["shape"]), f"tensor({kind})"


class BaseSession(Closing):
    """What all sessions share."""

    engine: str
    device: str
    note: str = ""
    options: RunOptions = DEFAULTS
    inputs: dict[str, InputInfo]
    outputs: list[str]

    @abstractmethod
    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """See `Session.run`."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """See `Session.facts`."""

    def warmup(self, modes: int = 1) -> None:
        """See `Session.warmup`."""
        self.run(warmup_feed(self.inputs, self.options.groups, modes))


def closed(engine: str) -> ReconstructionError:
    """Return what a closed session's `run` raises."""
    return ReconstructionError(f"this {engine} session is closed; open another one")
