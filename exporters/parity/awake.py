"""Inputs that reach what ordinary patterns leave unseen: units that never answer, weights whose change no output would show.

A weight is seen by a group of patterns if a change of it by 5 % of its layer's largest would move an output by more than a
runtime may err. That is estimated for all weights at once, from the gradient of the outputs' random projection. Groups are
then looked for, among many kinds and by climbing towards units that are silent, until no more weights come to light.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from exporters.parity.inputs import Pool, make_probe, simulated
from exporters.parity.metrics import FACTOR
from exporters.parity.reference import in_single_threads, one_thread
from ptycho_runtime import contract
from ptycho_torch.models.module import PtychoModel

SEED = 77
CHANGE = 0.05  # of the largest weight of a layer
MOST_GROUPS = 8  # that are added to a pool
KIND = "waking"
_ROUNDING = FACTOR * 2.5e-7  # of an output's length: what a runtime may err at least, see `metrics.RULE`
_CLIMBS, _STEPS = 2, 6
_FEWEST_NEW = 1e-4  # of all weights: a group that shows fewer new ones is not added


@dataclass
class Reach:
    """What a pool sees of a network."""

    weights: int = 0
    unseen: int = 0
    silent: dict[str, int] = field(default_factory=dict)  # layer -> units that no group of the pool wakes

    def words(self) -> str:
        """Return the finding in one line."""
        count = sum(self.silent.values())
        share = self.unseen / max(self.weights, 1)
        units = f"{count} units stay silent" if count else "no unit stays silent"
        where = f" ({', '.join(f'{n} in {layer}' for layer, n in self.silent.items())})" if count else ""
        return (
            f"{units}{where}; a change of {share:.1%} of the {self.weights} weights by {CHANGE:.0%} of their layer's largest "
            "would stay below what rounding may do"
        )


class _Sight:
    """Which weights of a network each group shows."""

    def __init__(self, model: PtychoModel) -> None:
        self.model = copy.deepcopy(model).float().requires_grad_(True)
        self.network: nn.Module = self.model.model.autoencoder
        self.names = [name for name, _ in self.network.named_parameters()]
        self.values = [value for _, value in self.network.named_parameters()]
        self.steps = [CHANGE * float(value.detach().abs().max()) for value in self.values]

    def shown(self, groups: list[Tensor], scales: list[Tensor], random: np.random.Generator) -> list[np.ndarray]:
        """Return for each group which of all parameters' numbers it shows, as packed bits."""
        with torch.no_grad():
            shapes = [tuple(value.shape) for value in self.model.network_output(groups[0], scales[0])]
        # Drawn here and in order, so that the same numbers come out however many threads there are.
        signs = [
            [torch.from_numpy(random.choice(np.array([-1, 1], np.float32), shape)) for shape in shapes] for _ in groups
        ]
        return in_single_threads(self._shown_by_one, zip(groups, scales, signs, strict=True))

    def _shown_by_one(self, group: tuple[Tensor, Tensor, list[Tensor]]) -> np.ndarray:
        x, scale, signs = group
        outputs = self.model.network_output(x, scale)
        length = max(float(torch.cat([value.detach().flatten() for value in outputs]).norm()), 1e-30)
        projected = sum((value * sign).sum() for value, sign in zip(outputs, signs, strict=True))
        assert isinstance(projected, Tensor)
        gradients = torch.autograd.grad(projected, self.values, allow_unused=True)
        flags = [
            np.zeros(value.numel(), bool)
            if gradient is None
            else (gradient.abs() * step > _ROUNDING * length).flatten().numpy()
            for gradient, step, value in zip(gradients, self.steps, self.values, strict=True)
        ]
        return np.packbits(np.concatenate(flags))

    def silent(self, seen: list[np.ndarray]) -> dict[str, list[int]]:
        """Return the units, output channels of convolutions with a bias, of which nothing is seen, by layer."""
        found = {}
        for name, value, flags in zip(self.names, self.values, seen, strict=True):
            bias = name.removesuffix("weight") + "bias"
            if value.ndim == 4 and name.endswith("weight") and bias in self.names:
                whole = flags.reshape(len(value), -1).any(1) | seen[self.names.index(bias)]
                if units := np.flatnonzero(~whole).tolist():
                    found[name.removesuffix(".weight")] = units
        return found


def wake(model: PtychoModel, pool: Pool) -> tuple[Pool, Reach]:
    """Return the pool with groups that reach more of the network added, and what all of them together see.

    Args:
        model: the eager model, on the CPU.
        pool: inputs of all graphs; it stays as it is.
    """
    random = np.random.default_rng(SEED)
    with one_thread():
        sight = _Sight(model)
        seen = [np.zeros(value.numel(), bool) for value in sight.values]
        x, scale = (torch.from_numpy(pool.feed[name]) for name in (contract.DIFFRACTION, contract.INPUT_SCALE))
        # The edges and some others stand for the pool.
        some = range(min(len(pool), 7))
        for shown in sight.shown([x[i : i + 1] for i in some], [scale[i : i + 1] for i in some], random):
            _add(seen, shown)
        added = _best(sight, seen, list(_kinds(pool, random)), scale[:1], random)
        for _ in range(_CLIMBS):
            if len(added) < MOST_GROUPS and (quiet := sight.silent(seen)):
                start = random.exponential(1.0, added[-1].shape if added else x.shape[1:])
                climbed = _climbed(sight, quiet, (start * float(x.max()) / 8).astype(np.float32), scale[:1])
                added += _best(sight, seen, [climbed], scale[:1], random)
        silent = {layer: len(units) for layer, units in sight.silent(seen).items()}
    reach = Reach(sum(flags.size for flags in seen), sum(int((~flags).sum()) for flags in seen), silent)
    return _with(pool, added, random), reach


def _best(
    sight: _Sight, seen: list[np.ndarray], candidates: list[np.ndarray], scale: Tensor, random: np.random.Generator
) -> list[np.ndarray]:
    """Return the candidates that show most together, best first; what they show is added to `seen`."""
    groups = [torch.from_numpy(patterns)[None] for patterns in candidates]
    shown = sight.shown(groups, [scale] * len(groups), random)
    count = sum(flags.size for flags in seen)
    known = np.packbits(np.concatenate(seen))
    chosen: list[np.ndarray] = []
    while shown and len(chosen) < MOST_GROUPS - _CLIMBS:
        gains = [int(np.bitwise_count(flags & ~known).sum()) for flags in shown]
        best = int(np.argmax(gains))
        if gains[best] <= _FEWEST_NEW * count:
            break
        known |= shown.pop(best)
        chosen.append(candidates.pop(best))
    _add(seen, known)
    return chosen


def _add(seen: list[np.ndarray], shown: np.ndarray) -> None:
    """Add what a group shows, as packed bits, to what is seen of each parameter."""
    flat = np.unpackbits(shown, count=sum(flags.size for flags in seen)).astype(bool)
    for flags, more in zip(seen, np.split(flat, np.cumsum([flags.size for flags in seen])[:-1]), strict=True):
        flags |= more


def _kinds(pool: Pool, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield groups (channels, N, N) float32 of many kinds and of very different brightness.

    Networks that were hardly trained answer to nothing but patterns brighter than any detector gives.
    """
    channels, size = pool.feed[contract.DIFFRACTION].shape[1:3]
    ordinary = pool.feed[contract.DIFFRACTION][0]
    probe = make_probe(size, 1)[0]
    brightness = float(np.sqrt(np.mean(ordinary.astype(np.float64) ** 2))) or 1.0
    kinds = (
        lambda: np.sqrt(simulated(random, channels, probe, 1e9)),
        lambda: np.sqrt(simulated(random, channels, probe, 3e3)),
        lambda: random.exponential(1.0, (channels, size, size)),
        lambda: np.repeat(np.repeat(random.random((channels, size // 8, size // 8)), 8, 1), 8, 2),
        lambda: np.broadcast_to(random.random((channels, 1, size)), (channels, size, size)),
        lambda: np.broadcast_to(random.random((channels, size, 1)), (channels, size, size)),
        lambda: ordinary * (random.random((channels, 1, 1)) < 0.5),
    )
    for times in (1.0, 10.0, 100.0, 1e3, 1e4):
        for kind in kinds:
            values = np.asarray(kind(), np.float64)
            rms = float(np.sqrt(np.mean(values**2))) or 1.0
            yield (values * (times * brightness / rms)).astype(np.float32)


def _climbed(sight: _Sight, silent: dict[str, list[int]], start: np.ndarray, scale: Tensor) -> np.ndarray:
    """Return patterns on which the silent units' answers are as large as a few steps uphill make them."""
    answers: list[Tensor] = []

    def keep(units: list[int]) -> object:
        def hook(_module: nn.Module, _inputs: object, value: Tensor) -> None:
            answers.append(value[:, units].amax((0, 2, 3)).sum())

        return hook

    handles = [sight.network.get_submodule(layer).register_forward_hook(keep(units)) for layer, units in silent.items()]  # type: ignore[arg-type]
    x = torch.from_numpy(start)[None]
    try:
        for _ in range(_STEPS):
            x = x.detach().requires_grad_(True)
            answers.clear()
            sight.network(x * scale)
            (slope,) = torch.autograd.grad(torch.stack(answers).sum(), [x])
            size = float(slope.abs().max())
            if size == 0.0:
                break
            x = (x + slope * (float(x.detach().mean()) * 2.0 / size)).clamp_min(0.0)
    finally:
        for handle in handles:
            handle.remove()
    return np.ascontiguousarray(x.detach()[0].numpy())


def _with(pool: Pool, patterns: list[np.ndarray], random: np.random.Generator) -> Pool:
    """Return a pool with groups added; their other inputs are those of groups of the pool, in another order."""
    if not patterns:
        return pool
    like = random.permutation(len(pool))[: len(patterns)] % len(pool)
    feed = {}
    for name, value in pool.feed.items():
        if name in (contract.PROBE_REAL, contract.PROBE_IMAG):
            feed[name] = value
            continue
        more = np.stack(patterns) if name == contract.DIFFRACTION else value[like]
        feed[name] = np.concatenate([value, more])
    scale = feed[contract.INPUT_SCALE]
    # They were looked for with the first group's factor.
    scale[len(pool) :] = scale[0]
    return Pool(feed, [*pool.kinds, *[KIND] * len(patterns)], pool.origin, pool.positions)
