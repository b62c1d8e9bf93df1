"""What a file hands its network: patterns times their factor, judged number by number.

A pixel that is floored, capped or set to zero is nothing beside the largest of its pattern, and no pattern holds pixels of every
size. Here they are of eighteen orders of magnitude, and each counts by its own size.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

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
        with torch.no_grad():
            wanted = copy.deepcopy(model).double().network_input(*(tensor.double() for tensor in tensors))
            eager = model.network_input(*tensors)
        return cls(feed, wanted.numpy(), eager.numpy())

    def errors(self, value: np.ndarray) -> dict[str, float] | None:
        """Return the figures of what a file hands its network; None where it has another form.

        Args:
            value: (groups, channels, N, N) float32.
        """
        if value.shape != self.reference.shape:
            return None
        found, eager32 = {ALONE: self._over_reference(value)}, {ALONE: self._over_reference(self.eager32)}
        even = {ALONE: np.ones_like(self.reference)}
        return figures(ALONE, found[ALONE], even, budget(ALONE, eager32, even))

    def _over_reference(self, value: np.ndarray) -> np.ndarray:
        """Return each number over its reference; where that is 0, 1 for 0 and 2 for any other."""
        empty = self.reference == 0.0
        over: np.ndarray = np.where(empty, 1.0 + (value != 0.0), value / np.where(empty, 1.0, self.reference))
        return over
