"""What a file hands its network: patterns times their factor, judged number by number.

A pixel that is floored, capped or set to zero is nothing beside the largest of its pattern, and no pattern holds pixels of every
size. Here they are of eighteen orders of magnitude, and each counts by its own size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import nn

from exporters.parity.inputs import Pool
from exporters.parity.metrics import ALONE, budget, figures
from ptycho_runtime import contract
from ptycho_torch.models.module import PtychoModel

_TIMES = (1e-3, 1e3)  # the factor of each group, over the pool's first
_LARGEST = 9.0  # exponent of ten of the largest pixel, and minus that of the smallest
_EMPTY = 0.2  # of all pixels


@dataclass(frozen=True)
class Entry:
    """Inputs whose pixels are of every size, and what the eager model makes of them before its network."""

    feed: dict[str, np.ndarray]
    """Inputs of all graphs, a group for each of two factors."""
    reference: np.ndarray
    """(groups, channels, N, N) float64."""
    eager32: np.ndarray
    """The same in float32."""
    first: tuple[np.ndarray, np.ndarray]
    """What the network's first layer is fed, in both: another thing where the network begins with a root or a logarithm."""

    @classmethod
    def of(cls, model: PtychoModel, pool: Pool) -> Self:
        """Return what is tried on a model; other inputs than patterns and their factor are those of the pool's first groups."""
        random = np.random.default_rng(9)
        feed = pool.slice(0, len(_TIMES))
        shape = feed[contract.DIFFRACTION].shape
        sizes = 10.0 ** random.uniform(-_LARGEST, _LARGEST, shape) * (random.random(shape) >= _EMPTY)
        factors = feed[contract.INPUT_SCALE][:1] * np.array(_TIMES).reshape(-1, 1, 1, 1)
        feed |= {contract.DIFFRACTION: sizes.astype(np.float32), contract.INPUT_SCALE: factors.astype(np.float32)}
        tensors = [torch.from_numpy(feed[name]) for name in (contract.DIFFRACTION, contract.INPUT_SCALE)]
        wanted, wanted_first = _entering(copy.deepcopy(model).double(), [tensor.double() for tensor in tensors])
        eager, eager_first = _entering(copy.deepcopy(model), tensors)
        return cls(feed, wanted, eager, (wanted_first, eager_first))

    def errors(self, value: np.ndarray) -> dict[str, float] | None:
        """Return the figures of what a file hands its network; None where it has another form.

        Args:
            value: (groups, channels, N, N) float32.
        """
        return _errors(value, self.reference, self.eager32)

    def errors_at_first_layer(self, value: np.ndarray) -> dict[str, float] | None:
        """Return the figures of what a file hands its network's first layer, as `errors` does."""
        return _errors(value, *self.first)


def _entering(model: PtychoModel, tensors: Sequence[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Return what a model hands its network, and what that hands its first layer; the former twice where the latter has another form."""
    fed: list[np.ndarray] = []

    def note(_module: nn.Module, inputs: tuple[object, ...]) -> None:
        if not fed and isinstance(inputs[0], torch.Tensor):
            fed.append(inputs[0].numpy())

    for module in model.model.autoencoder.modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(note)
    with torch.no_grad():
        entering = model.network_input(*tensors).numpy()
        model.network_output(*tensors)
    return entering, fed[0] if fed and fed[0].shape == entering.shape else entering


def _errors(value: np.ndarray, reference: np.ndarray, eager32: np.ndarray) -> dict[str, float] | None:
    if value.shape != reference.shape:
        return None
    even = {ALONE: np.ones_like(reference)}
    allowed = budget(ALONE, {ALONE: _over(eager32, reference)}, even)
    return None if allowed.objection else figures(ALONE, _over(value, reference), even, allowed)


def _over(value: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return each number over its reference; where that is 0, 1 for 0 and 2 for any other."""
    empty = reference == 0.0
    over: np.ndarray = np.where(empty, 1.0 + (value != 0.0), value / np.where(empty, 1.0, reference))
    return over
