"""How far a result is from its reference, and how far it may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptycho_runtime.metrics import difference, errors

FACTOR = 4.0  # a float32 runtime may err this many times as much as eager float32 does
CREST = 8.0  # largest over root mean square that rounding errors have
FLOOR_ULPS = 8.0  # of the output's largest magnitude
MOST_RELATIVE = 0.1  # a budget beyond this would let a wrong result through, so it is none
RULE = f"error ≤ {FACTOR:g} × eager float32's own against float64 (floor {FLOOR_ULPS:g} float32 ulps of the largest magnitude)"


@dataclass(frozen=True)
class Budget:
    """Largest allowed errors of one output."""

    max_abs: float
    rel_l2: float

    @property
    def objection(self) -> str:
        """Say why no result can be judged by it; empty where it can."""
        if not np.isfinite([self.max_abs, self.rel_l2]).all():
            return "the eager model itself gives values that are not finite"
        if self.rel_l2 > MOST_RELATIVE:
            return f"the eager model's own rounding allows a relative L2 of {self.rel_l2:.1e}, which proves nothing"
        return ""


def budget(name: str, eager32: np.ndarray, reference: np.ndarray) -> Budget:
    """Return what a float32 runtime may err, from eager float32's own error and the floor.

    The maximum over few numbers is an extreme that luck decides, so eager float32's own is taken as at least `CREST` times the
    root mean square of its error. Values that are not finite give a budget that nothing is within.
    """
    if not (np.isfinite(eager32).all() and np.isfinite(reference).all()):
        return Budget(float("nan"), float("nan"))
    absolute, relative = errors(name, eager32, reference)
    rms = float(np.sqrt(np.mean(difference(name, eager32, reference) ** 2))) if reference.size else 0.0
    absolute = max(absolute, CREST * rms)
    ulp = float(np.spacing(np.float32(np.abs(reference).max(initial=0.0))))
    norm = float(np.linalg.norm(reference))
    floor_relative = FLOOR_ULPS * ulp * np.sqrt(reference.size) / norm if norm > 0.0 else 0.0
    floor_relative = min(floor_relative, FLOOR_ULPS * 2.0**-23)
    return Budget(max(FACTOR * absolute, FLOOR_ULPS * ulp), max(FACTOR * relative, floor_relative))
