"""Which convolutions bear int8: each is quantised alone and its effect on the object measured; the insensitive ones are taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from exporters.reduced.quantize import Feed, calibrate, candidates, quantized, run
from ptycho_runtime.engine.variants import precision_errors
from ptycho_runtime.export.precision import Budget, PrecisionErrors

EVENNESS = (0.0, 0.5, 1.0)
_ROOM = 0.9  # of the budget that the plan may fill on the patterns it was made from: others are a little worse


@dataclass(frozen=True)
class Sensitivity:
    """What quantising one convolution alone does to the object."""

    layer: str
    multiply_adds: int
    evenness: float
    errors: PrecisionErrors


def sensitivities(model: bytes, feed: Feed, progress: Callable[[str], None]) -> list[Sensitivity]:
    """Return the effect of each convolution worth quantising, each with the evenness of its input's channels that hurts least."""
    counts = candidates(model)
    ranges = calibrate(model, counts, feed)
    reference = run(model, feed)
    found = []
    for number, (layer, count) in enumerate(counts.items()):
        progress(f"sensitivity of layer {number + 1} of {len(counts)}")
        trials = []
        for evenness in EVENNESS:
            outputs = run(quantized(model, {layer: evenness}, ranges), feed)
            trials.append(Sensitivity(layer, count, evenness, precision_errors(outputs, reference)))
        found.append(min(trials, key=lambda trial: trial.errors.phase_rad**2 + trial.errors.amplitude_rel**2))
    return found


def plan_layers(found: list[Sensitivity], budget: Budget, other: PrecisionErrors) -> dict[str, float]:
    """Return the evenness by layer of as many multiply-adds as fit the budget.

    Args:
        found: each layer's effect alone; effects of different layers add up as independent errors do.
        budget: what the whole may err.
        other: what the rest errs already.
    """

    def cost(errors: PrecisionErrors) -> np.ndarray:
        return np.array(
            [(errors.phase_rad / budget.phase_rad) ** 2, (errors.amplitude_rel / budget.amplitude_rel) ** 2]
        )

    spent = cost(other)
    plan: dict[str, float] = {}
    for one in sorted(found, key=lambda s: float(cost(s.errors).max()) / s.multiply_adds):
        if (spent + cost(one.errors)).max() <= _ROOM**2:
            spent = spent + cost(one.errors)
            plan[one.layer] = one.evenness
    return plan


def build(model: bytes, plan: Mapping[str, float], feed: Feed) -> bytes:
    """Return the graph of a plan, calibrated on a feed; layers that the graph does not have are passed over."""
    present = candidates(model)
    used = {layer: evenness for layer, evenness in plan.items() if layer in present}
    return quantized(model, used, calibrate(model, used, feed))
