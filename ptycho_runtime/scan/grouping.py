"""Neighbouring patterns for models that see several at a time."""

from __future__ import annotations

import numpy as np

from ptycho_runtime.errors import ScanError


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


def group_offsets(positions_px: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return each pattern's offset from its group's mean position, (groups, C, 1, 2) float32 (x, y), pixels."""
    inside = positions_px[groups]
    offsets: np.ndarray = (inside - inside.mean(1, keepdims=True))[:, :, None, :].astype(np.float32)
    return offsets
