"""Two sets of a scan's groups that share none: one to calibrate on, one held back to judge by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.export.record import InputScale
from ptycho_runtime.scan.grouping import group_neighbours
from ptycho_runtime.scan.scale import scale_of_energy
from ptycho_runtime.scan.scan import Scan
from ptycho_torch.errors import BundleError
from ptycho_torch.spec import ModelSpec

CALIBRATION_GROUPS, HELD_BACK_GROUPS = 64, 32
_FEWEST = 16  # of either
_MOST_FRAMES = 100_000  # of a scan are looked at
_SEED = 11


@dataclass(frozen=True)
class Patterns:
    """Groups of patterns as `diffraction_to_obj` is fed them."""

    feed: dict[str, np.ndarray]

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.feed[contract.DIFFRACTION])

    @property
    def sha256(self) -> str:
        """Return the digest of the numbers, C order, diffraction then scale."""
        digest = hashlib.sha256()
        for name in (contract.DIFFRACTION, contract.INPUT_SCALE):
            digest.update(np.ascontiguousarray(self.feed[name]).tobytes())
        return digest.hexdigest()

    def batch(self, size: int) -> dict[str, np.ndarray]:
        """Return a batch of so many groups, repeated where there are fewer."""
        rows = np.resize(np.arange(len(self)), size)
        return {name: np.ascontiguousarray(value[rows]) for name, value in self.feed.items()}


def scan_patterns(scan: Scan, spec: ModelSpec, scale: InputScale) -> tuple[Patterns, Patterns]:
    """Return (calibration, held back) groups drawn from a whole scan, the same for the same scan.

    Args:
        scan: with positions; stays open.
        spec: what the model is.
        scale: how its input scale factor is made.

    Raises:
        ScanError: the scan leaves something open.
        BundleError: it has too few groups for two sets.
    """
    scan = scan.subset(np.arange(min(len(scan), _MOST_FRAMES)))
    groups = group_neighbours(scan.positions_px, spec.in_channels if spec.in_channels > 1 else 1)
    if len(groups) < 2 * _FEWEST:
        raise BundleError(
            f"{scan.name}: has {len(groups)} groups of patterns; a variant in reduced precision needs {2 * _FEWEST} at least"
        )
    calibration = min(CALIBRATION_GROUPS, len(groups) - _FEWEST)
    held_back = min(HELD_BACK_GROUPS, len(groups) - calibration)
    order = np.random.default_rng(_SEED).permutation(len(groups))
    value = scale.value or scale_of_energy(scale.formula, scan.energy(spec.N, spec.measurement_domain), spec.N)

    def take(which: np.ndarray) -> Patterns:
        members = groups[np.sort(which)]
        patterns = scan.patterns(members.reshape(-1), spec.N, spec.measurement_domain)
        diffraction = np.ascontiguousarray(patterns.reshape(*members.shape, spec.N, spec.N), np.float32)
        return Patterns(
            {
                contract.DIFFRACTION: diffraction,
                contract.INPUT_SCALE: np.full((len(members), 1, 1, 1), value, np.float32),
            }
        )

    return take(order[:calibration]), take(order[calibration : calibration + held_back])
