"""Metres and pixels: what the object's pixel is, and which numbers cannot be a beamline's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.scan.layouts.raw import Beamline
from ptycho_runtime.scan.layouts.units import EV_J, HC_J_M
from ptycho_runtime.scan.options import GIVE_UNIT

MOST_CANVAS_PX: Final = 100_000_000  # of an image; its arrays take 20 bytes a pixel
_FEW = 10  # positions of which nothing can be said
_FAR_SPANS = 5.0  # an outlier lies so many spans of the others away from them
_FAR_SHARE = 0.01  # at most so many are outliers; more are the scan

# What beamlines are between, generously.
_ENERGY_EV = (20.0, 300e3)
_DISTANCE_M = (1e-4, 200.0)
_DETECTOR_PIXEL_M = (1e-7, 1e-2)
_OBJECT_PIXEL_M = (1e-12, 1e-4)


@dataclass(frozen=True)
class ObjectPixel:
    """A pixel of the image, metres."""

    x_m: float
    y_m: float


def within(value: float, limits: tuple[float, float]) -> bool:
    """Say whether a value lies between limits."""
    return bool(limits[0] <= value <= limits[1])


def object_pixel(line: Beamline, label: str, side_px: int) -> ObjectPixel | None:
    """Return λ·z / (side · detector pixel) along x and y; None where the file does not say all of it.

    Args:
        line: where the detector stood.
        label: of the file, for messages.
        side_px: detector pixels along the model's grid.

    Raises:
        ScanError: a number that no beamline has; the message names the option that goes round it.
    """
    instead = "correct the file, or give the size of the image's pixels with --pixel-size-m"
    if line.wavelength_m is not None:
        energy_eV = HC_J_M / line.wavelength_m / EV_J if line.wavelength_m > 0 else 0.0
        if not within(energy_eV, _ENERGY_EV):
            raise ScanError(
                f"{label}: a photon energy of {energy_eV:.4g} eV, wavelength {line.wavelength_m:.4g} m, is not plausible (without units "
                f"CXI's energy is in joules, its wavelength in metres); {instead}"
            )
    if line.distance_m is not None and not within(line.distance_m, _DISTANCE_M):
        raise ScanError(
            f"{label}: a detector distance of {line.distance_m:.4g} m is not plausible (without units it is in metres); {instead}"
        )
    for name, pixel in (("x_pixel_size", line.pixel_x_m), ("y_pixel_size", line.pixel_y_m)):
        if pixel is not None and not within(pixel, _DETECTOR_PIXEL_M):
            raise ScanError(
                f"{label}: a detector pixel ({name}) of {pixel:.4g} m is not plausible (without units it is in metres); {instead}"
            )
    across = line.pixel_x_m or line.pixel_y_m
    down = line.pixel_y_m or line.pixel_x_m
    if line.wavelength_m is None or line.distance_m is None or across is None or down is None:
        return None
    reach = line.wavelength_m * line.distance_m / side_px
    return ObjectPixel(reach / across, reach / down)


def check_object_pixel(pixel: ObjectPixel, what: str) -> ObjectPixel:
    """Return the pixel; `ScanError` where it is none of X-ray or electron ptychography."""
    for size in (pixel.x_m, pixel.y_m):
        if not within(size, _OBJECT_PIXEL_M):
            raise ScanError(f"{what} of {size:.4g} m is not plausible; expected a pixel size in metres, such as 1e-8")
    return pixel


def check_positions(
    positions_px: np.ndarray, frames: np.ndarray, N: int, label: str, *, unit_said: bool = False
) -> None:
    """Refuse positions that cannot be where the beam was, before memory is taken for them.

    Args:
        positions_px: (n, 2) (x, y), pixels of the image.
        frames: (n,) the file's numbers of the patterns.
        N: side of a patch, pixels.
        label: of the file, for messages.
        unit_said: whether the user said the unit; patterns may then lie half a patch apart and more.

    Raises:
        ScanError: positions that are not finite, all in one place, far too close or far apart for a unit of pixels, a few far
            outside the others (named), or an image beyond `MOST_CANVAS_PX`.
    """
    bad = ~np.isfinite(positions_px).all(-1)
    if bad.any():
        raise ScanError(f"{label}: {int(bad.sum())} positions are not finite numbers (frame {frames[bad][0]})")
    n = len(positions_px)
    unit = f"is their unit pixels? {GIVE_UNIT}"
    span = np.ptp(positions_px, axis=0) if n else np.zeros(2)
    if n > _FEW and not span.any():
        raise ScanError(f"{label}: all {n} positions are equal, the span is 0: one place gives no image; {unit}")
    if n > _FEW and span.max() < 1.0:
        raise ScanError(f"{label}: {n} positions span {span.max():.3g} pixels, less than one; {unit}")
    if n > _FEW and span.max() / np.sqrt(n) < 0.1:
        raise ScanError(f"{label}: {n} positions span only {span.max():.3g} pixels; {unit}")
    far = outlying(positions_px, N)
    if len(far):
        named = ", ".join(f"{frames[k]} (x {positions_px[k, 0]:.0f}, y {positions_px[k, 1]:.0f} px)" for k in far[:5])
        more = f" and {len(far) - 5} more" if len(far) > 5 else ""
        listed = ",".join(str(frames[k]) for k in far[:5])
        raise ScanError(
            f"{label}: positions of frames {named}{more} lie far outside the others; correct them, or leave the frames out "
            f"with --exclude {listed}"
        )
    rows, columns = (float(s) + N for s in span[::-1])
    if rows * columns > MOST_CANVAS_PX:
        raise ScanError(
            f"{label}: positions span {span[0]:.3g} × {span[1]:.3g} pixels; an image of more than {MOST_CANVAS_PX:.0e} pixels is "
            f"not made; {unit}"
        )
    reach = float(N) if unit_said else N / 2
    if n > _FEW and _apart(positions_px, reach):
        raise ScanError(
            f"{label}: most positions are more than {reach:g} pixels from any other, so that the middles of patches do not meet "
            f"(the span is {span[0]:.3g} × {span[1]:.3g} pixels); {unit}"
        )


def outlying(positions_px: np.ndarray, N: int) -> np.ndarray:
    """Return the indices of a few positions that lie far outside where all others are."""
    n = len(positions_px)
    if n <= _FEW:
        return np.zeros(0, np.int64)
    low, high = np.quantile(positions_px, (0.02, 0.98), axis=0, method="nearest")
    reach = _FAR_SPANS * max(float((high - low).max()), N)
    far = np.flatnonzero(((positions_px < low - reach) | (positions_px > high + reach)).any(-1))
    return far if len(far) <= max(1, _FAR_SHARE * n) else np.zeros(0, np.int64)


def _apart(positions_px: np.ndarray, reach_px: float) -> bool:
    """Say whether most of the positions have no other within a distance."""
    from scipy.spatial import cKDTree

    distances = np.asarray(cKDTree(positions_px).query(positions_px, k=2)[0])
    return bool(np.median(distances[:, 1]) > reach_px)
