"""What may be asked of a reconstruction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Progress = Callable[[int, int], None]  # called with (groups that are through the session, groups in all)
Weighting = Literal["auto", "probe", "window"]


@dataclass(frozen=True)
class ReconstructOptions:
    """How an object is made of a scan.

    Examples:
        >>> import ptycho_runtime
        >>> options = ptycho_runtime.ReconstructOptions(weighting="window", frc=True)
    """

    scale: float | None = None
    """`input_scale_factor`; the frozen value, else the release's formula over this scan where None."""
    crop_px: int | None = None
    """Side of a patch's middle that is used; `stitch.default_crop_px` by default."""
    weighting: Weighting = "auto"
    """`probe` (its intensity), `window`, or `auto`: the probe where the scan has one."""
    quality: bool = True
    """Give each pattern a residual too, where the export and the scan allow it. It takes the whole network in float32, which
    then gives the object as well; without it the centre of the patches is enough, in reduced precision if so opened."""
    frc: bool = False
    """Compare the images of the even and the odd patterns by Fourier ring correlation; see `frc`."""
    object_scales: bool = True
    """Fit the two factors that a model of counts leaves open, where the scan has a probe; see `object_scales`."""
