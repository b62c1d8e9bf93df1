"""Records in another order than they were kept in, and several of them added up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class Store(Protocol):
    """Records of one shape by number, as `Spool` keeps them."""

    shape: tuple[int, ...]
    """Of one."""
    dtype: np.dtype[Any]

    @property
    def copies(self) -> np.ndarray:
        """How often each was added, (n,) int64."""

    def get(self, which: np.ndarray) -> np.ndarray:
        """Return records (k, *shape); zeros where none was put."""


@dataclass(frozen=True)
class Ordered:
    """A spool's records by other numbers."""

    spool: Store
    order: np.ndarray
    """(n,) the spool's number of each."""

    @property
    def copies(self) -> np.ndarray:
        """How many of each were added up."""
        found: np.ndarray = self.spool.copies[self.order]
        return found

    def get(self, which: np.ndarray) -> np.ndarray:
        """Return the records of some numbers, (k, …)."""
        return _fetched(self.spool, self.order[which])


class Copies:
    """Each pattern's patches of all groups that it is a member of, added up in the order of the groups' first patterns."""

    def __init__(self, spool: Store, members: np.ndarray, order: np.ndarray) -> None:
        """Find out where each pattern's copies are.

        Args:
            spool: number · C + place holds the patch of a group's member, number being that of the group's first pattern.
            members: (n, C) numbers of each group's patterns, by that of its first; −1 where there is no such group.
            order: (n,) numbers in the order that patterns are asked for.
        """
        self._spool = spool
        C = members.shape[1]
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        records = (order[:, None] * C + np.arange(C)).reshape(-1)
        of = members[order].reshape(-1)
        there = (of >= 0) & (spool.copies[records] > 0)
        records, ranks = records[there], rank[of[there]]
        self._records = records[np.argsort(ranks, kind="stable")]
        self.copies: np.ndarray = np.bincount(ranks, minlength=len(order))
        """How many were added up of each."""
        self._first = np.cumsum(self.copies) - self.copies

    def get(self, which: np.ndarray) -> np.ndarray:
        """Return the sums of some numbers, (k, …); zeros where there is none."""
        found = np.zeros((len(which), *self._spool.shape), self._spool.dtype)
        for copy in range(int(self.copies[which].max(initial=0))):
            has = np.flatnonzero(self.copies[which] > copy)
            found[has] += _fetched(self._spool, self._records[self._first[which[has]] + copy])
        return found


def _fetched(spool: Store, numbers: np.ndarray) -> np.ndarray:
    """Return records in an order that the disk likes, put back into the one asked for."""
    unique, back = np.unique(numbers, return_inverse=True)
    if len(unique) == len(numbers) and (unique == numbers).all():
        return spool.get(numbers)
    found: np.ndarray = spool.get(unique)[back]
    return found
