"""Two sets of patterns that each agree among themselves and not with each other: which one is to be believed, by what overlap cannot say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptycho_runtime.image.trust.evidence import Kept
from ptycho_runtime.image.trust.overlap import Placed
from ptycho_runtime.image.trust.pairs import Pairs, disagreements

# Random parts of the demo, a fifth of it and more, differ from the rest by at most 1.2 and 1.013 where nothing is at fault.
_SHARPER = 1.3
_BETTER_EXPLAINED = 1.05
_SAMPLE = 400  # pairs that a figure is taken of

SHARPER = "their patches agree more sharply"
EXPLAINED = "the network explains their patterns better"


@dataclass(frozen=True)
class Contest:
    """What two sets, masks (n,) each, can be told apart by."""

    known: Kept
    placed: Placed
    pairs: Pairs

    def better(self, one: np.ndarray, other: np.ndarray) -> tuple[int, str]:
        """Return (1 where `one` is to be believed, −1 where `other` is, 0 where nothing says so; by what)."""
        zone = self._beside(one, other)
        one, other = one & zone, other & zone
        tests = (
            (self._blur(other) / self._blur(one), _SHARPER, SHARPER),
            (self._unexplained(other) / self._unexplained(one), _BETTER_EXPLAINED, EXPLAINED),
        )
        for ratio, margin, name in tests:
            if np.isfinite(ratio) and not 1 / margin <= ratio <= margin:
                return (1 if ratio > margin else -1), name
        return 0, ""

    def _beside(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Return which patterns of two sets have a neighbour in the other, (n,) bool: only there both see the same sample."""
        found = np.zeros(len(one), bool)
        found[self.pairs.two[self.pairs.across(one, other)]] = True
        return found

    def _blur(self, mask: np.ndarray) -> float:
        """Return the disagreement within a set against that of its patches a quarter of a middle beside their place.

        Patches without structure agree anywhere, those of sums of two places hardly better in place than beside it.
        """
        inside = np.flatnonzero(self.pairs.within(mask))
        inside = inside[:: max(len(inside) // _SAMPLE, 1)]
        if not len(inside):
            return float("nan")
        two, aside = self.pairs.two[inside], self.placed.crop_px // 4
        beside = [disagreements(self.placed, two, moved) for moved in ((aside, 0), (0, aside))]
        return float(np.median(self.pairs.disagreement[inside]) / max(np.nanmedian(beside), 1e-30))

    def _unexplained(self, mask: np.ndarray) -> float:
        values = self.known.residual[mask]
        values = values[np.isfinite(values)]
        return float(np.median(values)) if len(values) else float("nan")
