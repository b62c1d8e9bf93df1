"""What is kept of each pattern while an object is put together: figures in memory, patches and amplitudes in temporary files."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ptycho_runtime.image.stitch import Stitcher
from ptycho_runtime.image.trust.copies import Copies, Ordered
from ptycho_runtime.image.trust.frames import centroids_px, hot_pixels, moments
from ptycho_runtime.image.trust.overlap import Placed, Records, ScaledRecords
from ptycho_runtime.image.trust.spool import Spool

_LEAST = 1024  # patterns that room is made for
_FAINT = 2.0**-14  # of the peak: float16's smallest normal number
_FIGURES = ("counts", "peaks", "hot", "residual")


@dataclass(frozen=True)
class Kept:
    """What is known of each pattern, in the order of their ids."""

    stitcher: Stitcher
    order: np.ndarray
    """(n,) int64: the number by which each came."""
    positions_px: np.ndarray
    probe: np.ndarray | None
    counts: np.ndarray
    """(n,) float64 each, NaN where a pattern was not seen."""
    peaks: np.ndarray
    """Its largest amplitude."""
    hot: np.ndarray
    residual: np.ndarray
    moments: np.ndarray
    """(n, 2) complex128, see `frames.moments`."""
    patches: Records
    """(crop, crop) complex64 each."""
    amplitudes: Records
    """(N, N) float16 each, divided by the peak; none without a probe."""
    lost: str
    """Why patches could not be kept; empty where they were."""
    threads: int = 1
    """That may look at them side by side; what they find does not depend on how many they are."""

    @property
    def centroids_px(self) -> np.ndarray:
        """Centre of gravity of each pattern, (n, 2) (x, y) pixels from [N//2, N//2]."""
        return centroids_px(self.moments, self.stitcher.N)

    def centre_px(self) -> tuple[float, float]:
        """Return the centre of gravity of the mean pattern (x, y), pixels from [N//2, N//2]."""
        seen = self.moments[np.isfinite(self.moments).all(1)]
        # Rounded once: the order of the patterns does not matter.
        total = [complex(math.fsum(column.real.tolist()), math.fsum(column.imag.tolist())) for column in seen.T]
        x, y = centroids_px(np.array([total]), self.stitcher.N)[0].tolist()
        return x, y

    def placed(self) -> Placed:
        """Return the patches as they lie on the canvas."""
        return Placed(self.patches, self.stitcher.corners(self.positions_px), self.stitcher.weights)


@dataclass
class Evidence:
    """What is kept of each pattern. Patterns are numbered as they come; `in_order` counts them by their ids.

    Patterns may come at any time (`extend`), and memory grows by some hundred bytes with each.
    """

    stitcher: Stitcher
    positions_px: np.ndarray
    """(n, 2) (x, y) float64."""
    probe: np.ndarray | None
    """(modes, N, N) complex; None where there is none, or it is of another size."""
    is_counts: bool
    """Patterns come as counts and not as amplitudes."""
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """(n,) int64: the detector's own number of each; counted from 0 where none are given."""
    folder: Path | None = None
    """Where the files of patches and amplitudes stay; they are temporary where None."""

    def __post_init__(self) -> None:
        """Make room for the patterns that are known."""
        positions, ids = np.asarray(self.positions_px, np.float64), self.ids
        N, crop = self.stitcher.N, self.stitcher.crop_px
        self.lost = ""
        """Why patches are not kept any more; empty where they are."""
        self.object_scales = (1.0, 1.0)
        """Factors of real and imaginary part that were found after the patches were kept; the stitcher's sums have them."""
        self.copies = 1
        """Patches that a group gives: one, or one of each of its members."""
        self._count = 0
        self._columns: dict[str, np.ndarray] = {
            "ids": np.zeros(0, np.int64),
            "positions_px": np.zeros((0, 2)),
            "moments": np.zeros((0, 2), np.complex128),
            **{name: np.zeros(0) for name in _FIGURES},
        }
        files = (None, None) if self.folder is None else (self.folder / "patches.bin", self.folder / "amplitudes.bin")
        self.patches = Spool(0, (crop, crop), np.complex64, files[0])
        self.amplitudes = Spool(0, (N, N), np.float16, files[1])
        self._members = np.zeros((0, 1), np.int64)
        self.extend(np.arange(len(positions)) if len(ids) != len(positions) else ids, positions)

    def __len__(self) -> int:
        """Return the number of patterns that are known."""
        return self._count

    def extend(self, ids: np.ndarray, positions_px: np.ndarray) -> np.ndarray:
        """Make room for more patterns, and return their numbers (k,).

        Args:
            ids: (k,) their ids, none of them known yet.
            positions_px: (k, 2) (x, y).
        """
        numbers = np.arange(self._count, self._count + len(ids))
        self._count += len(ids)
        for name, values in self._columns.items():
            if self._count > len(values):
                more = max(self._count, 2 * len(values), _LEAST) - len(values)
                fill = -1 if values.dtype.kind == "i" else np.nan
                self._columns[name] = np.concatenate([values, np.full((more, *values.shape[1:]), fill, values.dtype)])
        self._columns["ids"][numbers], self._columns["positions_px"][numbers] = ids, positions_px
        self._publish()
        self.patches.room_for(self._count * self.copies)
        self.amplitudes.room_for(self._count)
        return numbers

    def columns(self) -> dict[str, np.ndarray]:
        """Return what is in memory of each pattern by name, (n, …) each; changing them changes it."""
        return {name: values[: self._count] for name, values in self._columns.items()}

    @property
    def members(self) -> np.ndarray:
        """Numbers (n, C) of each group's patterns by that of its first, −1 where there is none; empty where groups give one patch."""
        found = np.full((self._count if self.copies > 1 else 0, self.copies), -1, np.int64)
        held = self._members[: self._count]
        if self.copies > 1:
            found[: len(held)] = held
        return found

    def _publish(self) -> None:
        """Show the columns under their names, (n, …) each."""
        for name, values in self._columns.items():
            setattr(self, name, values[: self._count])

    counts: np.ndarray = field(init=False)
    peaks: np.ndarray = field(init=False)
    hot: np.ndarray = field(init=False)
    residual: np.ndarray = field(init=False)
    moments: np.ndarray = field(init=False)

    def keep_patches(self, which: np.ndarray, patches: np.ndarray) -> None:
        """Keep patches (k, crop, crop) complex64 as they lie on the canvas.

        Args:
            which: (k,) numbers of their patterns; of groups that give a patch of each member, first pattern · members + place in
                the group, see `keep_groups`.
            patches: of them.
        """
        if self.lost:
            return
        try:
            self.patches.add(which, patches)
        except OSError as error:
            self.lost = f"the folder for temporary files has no room ({error.strerror or error}); set TMPDIR"

    def keep_groups(self, members: np.ndarray) -> np.ndarray:
        """Note that groups (k, C) of patterns' numbers give a patch of each member; returns numbers (k, C) for `keep_patches`.

        Each pattern is the first of one group at the most.
        """
        C = members.shape[1]
        if self.copies == 1:
            self.copies = C
            self._members = np.full((0, C), -1, np.int64)
        if len(self._members) < self._count:
            more = max(self._count, 2 * len(self._members), _LEAST) - len(self._members)
            self._members = np.concatenate([self._members, np.full((more, C), -1, np.int64)])
        self._members[members[:, 0]] = members
        self.patches.room_for(self._count * C)
        found: np.ndarray = members[:, :1] * C + np.arange(C)
        return found

    def keep_patterns(self, which: np.ndarray, patterns: np.ndarray) -> None:
        """Keep what patterns (k, N, N) float32, as fed, tell by themselves."""
        intensity = patterns if self.is_counts else np.square(patterns)
        self.counts[which] = intensity.sum((1, 2), dtype=np.float64)
        self.moments[which] = moments(intensity)
        self.hot[which] = hot_pixels(intensity)
        if self.probe is None:
            return
        amplitude = np.sqrt(patterns) if self.is_counts else patterns
        peaks = amplitude.max((1, 2))
        self.peaks[which] = peaks
        share = amplitude / np.maximum(peaks, 1e-30)[:, None, None]
        # Below float16's normal numbers NumPy needs thirty times as long for each, and a detector's dark pixels are many.
        share[share < _FAINT] = 0.0
        self.keep_amplitudes(which, share.astype(np.float16))

    def keep_amplitudes(self, which: np.ndarray, amplitudes: np.ndarray) -> None:
        """Keep amplitudes (k, N, N) float16, each divided by its peak."""
        if self.lost:
            return
        try:
            self.amplitudes.add(which, amplitudes)
        except OSError as error:
            self.lost = f"the folder for temporary files has no room ({error.strerror or error}); set TMPDIR"

    def in_order(self) -> Kept:
        """Return what is kept by ascending ids: whatever order patterns came in, it is the same."""
        order = np.argsort(self.ids, kind="stable")
        one_each = self.copies == 1
        patches: Records = Ordered(self.patches, order) if one_each else Copies(self.patches, self.members, order)
        return Kept(
            stitcher=self.stitcher,
            order=order,
            positions_px=self.positions_px[order],
            probe=self.probe,
            **{name: getattr(self, name)[order] for name in (*_FIGURES, "moments")},
            patches=ScaledRecords(patches, *self.object_scales),
            amplitudes=Ordered(self.amplitudes, order),
            lost=self.lost,
        )

    def close(self) -> None:
        """Give the files back."""
        self.patches.close()
        self.amplitudes.close()
