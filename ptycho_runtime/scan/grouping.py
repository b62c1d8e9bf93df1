"""Neighbouring patterns for models that see several at a time."""

from __future__ import annotations

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.scan.scan import Scan


def group_neighbours(positions_px: np.ndarray, C: int) -> np.ndarray:
    """Return groups of pattern indices, (n, C) int64: each pattern with its C − 1 nearest neighbours.

    Every pattern opens one group, so each is used; ties are settled by index, so the same scan gives the same groups.

    Args:
        positions_px: (n, 2) scan positions (x, y), pixels.
        C: patterns in one group, gridsize².

    Raises:
        ScanError: fewer patterns than one group needs.
    """
    n = len(positions_px)
    if C == 1:
        return np.arange(n)[:, None]
    if n < C:
        raise ScanError(f"the scan has {n} usable patterns; a group of this model needs {C}")
    from scipy.spatial import cKDTree

    tree = cKDTree(positions_px)
    # A few more than needed: among equally distant neighbours the lowest indices are taken.
    k = min(n, C + 8)
    distance, index = tree.query(positions_px, k=k, workers=-1)
    distance = np.where(index == np.arange(n)[:, None], -1.0, np.round(distance, 9))  # the pattern itself comes first
    order = np.lexsort((index, distance), axis=-1)[:, :C]
    return np.take_along_axis(index, order, axis=-1).astype(np.int64)


def grouped(scan: Scan, C: int, within_px: float) -> tuple[Scan, np.ndarray]:
    """Return (the scan without loners, its groups of indices (n, C) int64).

    A loner has fewer than C − 1 neighbours within a distance, so that its group would show places that do not overlap. Loners
    are listed in the scan's `skipped`.

    Args:
        scan: patterns and positions.
        C: patterns in one group, gridsize².
        within_px: largest distance of a group's members from the one that opens it, pixels of the image.

    Raises:
        ScanError: fewer patterns with neighbours than one group needs.
    """
    while True:
        groups = group_neighbours(scan.positions_px, C)
        away = np.linalg.norm(scan.positions_px[groups] - scan.positions_px[groups[:, :1]], axis=-1).max(-1)
        alone = np.flatnonzero(away > within_px)
        if not len(alone):
            return scan, groups
        if len(scan) - len(alone) < C:
            raise ScanError(
                f"{scan.name}: {len(alone)} of {len(scan)} patterns have fewer than {C - 1} others within {within_px:g} pixels, "
                "which a group of this model needs; is the unit of the positions right? give --position-unit"
            )
        scan = scan.without(scan.frames[alone], f"fewer than {C - 1} others within {within_px:g} px")


def group_offsets(positions_px: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return each pattern's offset from its group's mean position, (groups, C, 1, 2) float32 (x, y), pixels."""
    return offsets_within(positions_px[groups])


def offsets_within(positions_px: np.ndarray) -> np.ndarray:
    """Return the same for positions of groups (groups, C, 2)."""
    offsets: np.ndarray = (positions_px - positions_px.mean(1, keepdims=True))[:, :, None, :].astype(np.float32)
    return offsets
