"""What a reconstruction is: the object, where it lies, and how it came about."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ptycho_runtime.image.frc import RingCorrelation
from ptycho_runtime.image.origin import Origin
from ptycho_runtime.image.stitch import Canvas
from ptycho_runtime.image.trust.values import Trust
from ptycho_runtime.scan.scan import Scan


@dataclass(frozen=True)
class Timing:
    """Where the seconds went."""

    seconds: float
    """From the start of `reconstruct` to its end."""
    session_seconds: float
    """Of these, while a session was running."""
    first_run_seconds: float
    """Of these, the first batch, which waits for plans and memory."""
    verdict_seconds: float
    """Of these, the verdict after the last pattern."""


@dataclass(frozen=True)
class Reconstruction:
    """The stitched object and what is known of it."""

    canvas: Canvas
    scan: Scan
    input_scale_factor: float
    groups: int
    done: int
    """Groups that are in the object; fewer than `groups` when stopped."""
    device: str
    note: str
    timing: Timing
    trust: Trust
    ring_correlation: RingCorrelation | None = None
    """Of the even and the odd patterns, where it was asked for."""
    object_scales: tuple[float, float] | None = None
    """Factors of real and imaginary part that the object was multiplied by; None where nothing was left open."""
    origin: Origin = field(default_factory=Origin)
    """Export, scan, options and time: what every product says of where it comes from."""

    @property
    def object(self) -> np.ndarray:
        """The object, (rows, columns) complex64; 0 where nothing was measured."""
        return self.canvas.object

    @property
    def resolution_px(self) -> dict[str, float]:
        """Half-periods by threshold, pixels, where rings were compared."""
        rings = self.ring_correlation
        if rings is None:
            return {}
        return {name: rings.resolution_px(getattr(rings, name)) for name in ("one_bit", "half_bit")}

    @property
    def partial(self) -> bool:
        """Say whether it was stopped before all patterns were in."""
        return self.done < self.groups
