"""How far a result is from its reference, and how far it may be: every group of patterns is judged by its own signal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.metrics import ON_GPU, difference, phase_weight

FACTOR = 4.0  # a float32 runtime may err this many times as much as eager float32 does
DRAWS = 3  # of eager float32, see `rounding`
CREST = 8.0  # largest over root mean square that rounding errors have
FLOOR_ULPS = 8.0  # of the signal's largest magnitude
ALONE_ULPS = 32.0  # of a layer by itself, which may have but few numbers, on inputs far beyond ordinary ones
DETECTOR_ULPS = 24.0  # of a predicted pattern: two sums of 64 products, a square, a sum over modes
DETECTOR_PX = 64  # the size for which that is said; rounding of a sum grows with the square root of its length
MOST = 1e-3  # of the signal: no figure allows more, whatever eager float32 errs
SOUND = 5e-6  # of the signal: where eager float32 errs more, luck decides what another runtime errs
ALONE = "layer by itself"
MOST_TF32 = 0.1  # factors of 11 significant bits leave no more certainty
RULE = (
    f"In every group of patterns by itself, error ≤ {FACTOR:g} × eager float32's own against float64 (of a whole file the most of "
    f"{DRAWS} runs whose pixels differ by one unit in the last place; its largest error counts as at least "
    f"{CREST:g} × its root mean square, and that of real and imaginary part as the larger of the two); at least "
    f"{FLOOR_ULPS:g} float32 ulps of the signal's largest magnitude "
    f"({DETECTOR_ULPS:g} × √(N/{DETECTOR_PX}) for predicted diffraction, which sums twice over N pixels and squares, "
    f"{ALONE_ULPS:g} for a layer by itself), "
    f"at most {MOST:g} of it ({MOST_TF32:g} where products are rounded to TF32); {ON_GPU:g} times all that on a GPU in float32. "
    "The signal of real and imaginary part is the "
    "object's magnitude; phase is weighted by amplitude over the group's largest, and its signal is 1 rad or more."
)

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Signal:
    """What errors of one output are measured by, a number a group."""

    peak: np.ndarray  # (groups,) largest magnitude
    norm: np.ndarray  # (groups,) length of the output, were it as large as the signal

    @classmethod
    def of(cls, name: str, reference: Arrays) -> Signal:
        """Return the signal of an output, from the float64 reference of all outputs of its graph."""
        value = reference[name]
        size = np.abs(_by_group(value.astype(np.float64)))
        if name in (contract.OBJECT_REAL, contract.OBJECT_IMAG) and {contract.OBJECT_REAL, contract.OBJECT_IMAG} <= set(
            reference
        ):
            size = _by_group(np.hypot(reference[contract.OBJECT_REAL], reference[contract.OBJECT_IMAG]))
        weight = phase_weight(name, reference)
        if weight is not None:
            size = np.maximum(size, 1.0) * np.broadcast_to(_by_group(np.broadcast_to(weight, value.shape)), size.shape)
        count = value.size // max(len(value), 1)
        rms = np.sqrt(np.mean(size**2, 1)) if size.size else np.zeros(len(value))
        return cls(size.max(1, initial=0.0), rms * np.sqrt(count))


@dataclass(frozen=True)
class Budget:
    """Largest allowed errors of one output, a number a group."""

    max_abs: np.ndarray  # (groups,)
    rel_l2: np.ndarray  # (groups,) of the signal
    objection: str = ""  # why no result can be judged by it; empty where it can

    def on_gpu(self) -> Budget:
        """Return what a float32 runtime may err on a GPU, see `ptycho_runtime.metrics.ON_GPU`."""
        return Budget(self.max_abs * ON_GPU, self.rel_l2 * ON_GPU, self.objection)


@dataclass(frozen=True)
class Errors:
    """Errors of one output, a number a group."""

    max_abs: np.ndarray  # (groups,)
    rel_l2: np.ndarray  # (groups,) of the signal


def group_errors(name: str, result: np.ndarray, reference: Arrays, signal: Signal) -> Errors:
    """Return largest absolute error, and length of the error over the signal's, of each group."""
    with np.errstate(invalid="ignore", over="ignore"):
        delta = _by_group(difference(name, result, reference[name], phase_weight(name, reference)))
    delta = np.where(np.isfinite(delta), delta, np.inf)
    length = np.sqrt((delta**2).sum(1))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(signal.norm > 0.0, length / signal.norm, np.where(length == 0.0, 0.0, np.inf))
    return Errors(np.abs(delta).max(1, initial=0.0), relative)


def _own_errors(name: str, eager32: Arrays, reference: Arrays, signal: Signal) -> Errors:
    """Return what eager float32 errs in each group.

    Rounding turns and stretches the object as a whole, and the object's phase, not the arithmetic, decides how much of that falls on
    the real and how much on the imaginary part: either counts as the larger of the two.
    """
    parts = (contract.OBJECT_REAL, contract.OBJECT_IMAG)
    names = parts if name in parts and set(parts) <= set(reference) else (name,)
    errors = [group_errors(part, eager32[part], reference, signal) for part in names]
    return Errors(np.max([e.max_abs for e in errors], 0), np.max([e.rel_l2 for e in errors], 0))


def budget(name: str, eager32: Arrays, reference: Arrays, most: float = MOST) -> Budget:
    """Return what a float32 runtime may err in each group, by the text of `RULE`.

    The maximum over few numbers is an extreme that luck decides, so eager float32's own is taken as at least `CREST` times the
    root mean square of its error. Values that are not finite give a budget that nothing is within.

    Args:
        name: of the output.
        eager32: all outputs of the graph as eager float32 gives them.
        reference: the same in float64.
        most: of the signal, see `MOST`.
    """
    groups = len(reference[name])
    nothing = np.full(groups, np.nan)
    if not (np.isfinite(eager32[name]).all() and np.isfinite(reference[name]).all()):
        return Budget(nothing, nothing, "the eager model itself gives values that are not finite")
    signal = Signal.of(name, reference)
    own = _own_errors(name, eager32, reference, signal)
    if (own.rel_l2 > most).any() and np.isfinite(own.rel_l2).all():
        worst = float(own.rel_l2.max())
        return Budget(
            nothing, nothing, f"the eager model's own rounding is a relative L2 of {worst:.1e}, which proves nothing"
        )
    count = max(reference[name].size // max(groups, 1), 1)
    crest = CREST * own.rel_l2 * signal.norm / np.sqrt(count)
    largest = np.maximum(own.max_abs, np.where(np.isfinite(crest), crest, 0.0))
    ulps = floor_ulps(name, reference[name].shape[-1])
    ulp = np.spacing(signal.peak.astype(np.float32)).astype(np.float64) * (signal.peak > 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        floor = np.where(signal.norm > 0.0, ulps * ulp * np.sqrt(count) / signal.norm, 0.0)
    floor = np.minimum(floor, ulps * 2.0**-23)
    own_relative = np.where(np.isfinite(own.rel_l2), own.rel_l2, 0.0)
    cap = most * signal.peak if np.isfinite(most) else np.full(groups, np.inf)
    return Budget(
        np.minimum(np.maximum(FACTOR * largest, ulps * ulp), cap),
        np.minimum(np.maximum(FACTOR * own_relative, floor), most),
    )


def sound_groups(eager32: Arrays, reference: Arrays) -> np.ndarray:
    """Return which groups float32 computes well enough to be judged by, (groups,) bool, a margin included."""
    sound = np.ones(len(next(iter(reference.values()))), bool)
    for name, value in reference.items():
        with np.errstate(all="ignore"):
            own = group_errors(name, eager32[name], reference, Signal.of(name, reference))
        sound &= np.isfinite(_by_group(value)).all(1) & (own.rel_l2 < SOUND) & np.isfinite(own.max_abs)
    return sound


def floor_ulps(name: str, size_px: int) -> float:
    """Return how many units in the last place of its signal an output may always err."""
    if name == contract.PREDICTED:
        return DETECTOR_ULPS * float(np.sqrt(size_px / DETECTOR_PX))
    return ALONE_ULPS if name == ALONE else FLOOR_ULPS


def figures(name: str, result: np.ndarray, reference: Arrays, allowed: Budget) -> dict[str, float]:
    """Return one output's errors and what is allowed in the group that is nearest to its limits, and the larger share there."""
    found = group_errors(name, result, reference, Signal.of(name, reference))
    shares = np.maximum(_shares(found.max_abs, allowed.max_abs), _shares(found.rel_l2, allowed.rel_l2))
    worst = int(np.argmax(np.nan_to_num(shares, nan=np.inf)))
    return {
        "max_abs": float(found.max_abs[worst]),
        "rel_l2": float(found.rel_l2[worst]),
        "allowed_max_abs": float(allowed.max_abs[worst]),
        "allowed_rel_l2": float(allowed.rel_l2[worst]),
        "share": float(shares[worst]),
    }


def allowed_over_all(name: str, reference: Arrays, allowed: Budget) -> tuple[float, float]:
    """Return (largest absolute error, relative L2 error) that a host may find over all groups at once, as `golden.npz` keeps them."""
    lengths = allowed.rel_l2 * Signal.of(name, reference).norm
    # Sums and not norms: those are BLAS's, whose rounding depends on the number of threads.
    own = float(np.sqrt((reference[name] ** 2).sum()))
    return float(allowed.max_abs.max()), float(np.sqrt((lengths**2).sum())) / own if own > 0.0 else 0.0


def _shares(errors: np.ndarray, limits: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = np.where(limits > 0.0, errors / limits, np.where(errors == 0.0, 0.0, np.inf))
    return found


def _by_group(value: np.ndarray) -> np.ndarray:
    return value.reshape(len(value), -1)
