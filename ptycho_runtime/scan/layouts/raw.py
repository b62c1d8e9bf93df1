"""What a layout makes of a file: arrays as stored, and what the layout makes certain about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.scan.options import PATTERN_KEYS, LengthUnit, ReadOptions, Sign

_HC_J_M = 6.62607015e-34 * 299792458.0


@dataclass
class RawScan:
    """One open file."""

    data: Any  # an array or an HDF5 dataset, read by slices
    shape: tuple[int, ...]
    close: Callable[[], None] = lambda: None
    transposed: bool = False  # frames along the last axis
    x: np.ndarray = field(default_factory=lambda: np.zeros(0))
    y: np.ndarray = field(default_factory=lambda: np.zeros(0))
    indexes: np.ndarray | None = None  # number of each pattern, where the file says it
    frame_of_position: np.ndarray | None = None  # −1: of no pattern here
    position_unit: LengthUnit | None = None
    position_sign: Sign | None = None
    declared_amplitude: bool = False  # by the layout; the values must agree
    probe: np.ndarray | None = None
    truth: np.ndarray | None = None  # the object the scan was simulated from
    attributes: dict[str, float] = field(default_factory=dict)
    object_pixel_m: float = 0.0
    detector: dict[str, float] = field(default_factory=dict)

    def read(self, frames: np.ndarray) -> np.ndarray:
        """Return frames (ascending), (n, h, w), as stored."""
        if len(frames) and frames[-1] - frames[0] == len(frames) - 1:
            key: Any = slice(int(frames[0]), int(frames[-1]) + 1)  # one read of neighbours is much faster
        else:
            key = frames
        return np.moveaxis(self.data[..., key], -1, 0) if self.transposed else np.asarray(self.data[key])

    def pixel_size_m(self, N: int) -> float:
        """Return the object's pixel size, λ·z / (N · detector pixel), or 0 where the geometry is not known."""
        if self.object_pixel_m:
            return self.object_pixel_m
        need = ("distance_m", "energy_J", "pixel_m")
        if not all(self.detector.get(name) for name in need):
            return 0.0
        wavelength = _HC_J_M / self.detector["energy_J"]
        return wavelength * self.detector["distance_m"] / (N * self.detector["pixel_m"])


def patterns_key(names: set[str], options: ReadOptions, label: str) -> str:
    if options.patterns_key is not None:
        key = options.patterns_key.strip("/")
        if key not in names:
            raise ScanError(f"{label}: has no {options.patterns_key}; it has {', '.join(sorted(names)[:12])}")
        return key
    found = [key for key in PATTERN_KEYS if key in names]
    if len(found) != 1:
        what = (
            f"holds several sets of patterns ({', '.join(found)})"
            if found
            else f"holds no patterns under a known name ({', '.join(sorted(names)[:12])})"
        )
        raise ScanError(f"{label}: {what}; name them with --patterns-key")
    return found[0]


def modes(probe: np.ndarray) -> np.ndarray | None:
    """Return a probe of any rank as incoherent modes (modes, N, N), the first coherent one of each."""
    probe = np.asarray(probe)
    if probe.ndim < 2 or not np.isfinite(probe).all():
        return None
    while probe.ndim > 3:
        probe = probe[0]
    return (probe[None] if probe.ndim == 2 else probe).astype(np.complex64)
