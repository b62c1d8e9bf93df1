"""What a user may say about a scan, and the names under which scans keep their patterns. Values alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Domain = Literal["amplitude", "intensity"]
AxisOrder = Literal["nhw", "hwn"]
Fit = Literal["crop", "pad", "bin"]
LengthUnit = Literal["px", "m", "mm", "um", "nm", "angstrom"]
Sign = Literal[1, -1]

UNIT_M: Final[dict[str, float]] = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "angstrom": 1e-10}
GIVE_UNIT: Final = f"give --position-unit px, {', '.join(list(UNIT_M)[:-1])} or {list(UNIT_M)[-1]}"

PATTERN_KEYS: Final = (
    "diff3d",
    "diffraction",
    "patterns",
    "dp",
    "entry_1/data_1/data",
    "entry/data/data",
    "exchange/data",
)


@dataclass(frozen=True)
class ReadOptions:
    """What the user declares; None leaves it to what the file makes certain.

    Examples:
        >>> import ptycho_runtime
        >>> options = ptycho_runtime.ReadOptions(domain="intensity", position_unit="um", exclude=(3, 17))
    """

    domain: Domain | None = None
    axis_order: AxisOrder | None = None
    patterns_key: str | None = None
    x_key: str | None = None
    y_key: str | None = None
    probe_key: str | None = None
    position_unit: LengthUnit | None = None
    """`px` are pixels of the object as recorded, before `fit`."""
    pixel_size_m: float | None = None
    """Of the image's pixels, after `fit`."""
    position_sign: Sign | None = None
    """−1 where positions are the sample's motion."""
    fit: Fit | None = None
    positions_file: Path | None = None
    """A Ptychodus product or NPZ that goes with a file of patterns alone."""
    centre: tuple[float, float] | Literal["auto"] | None = None
    """(row, column) of the zero frequency in the patterns as stored; `auto`: where the mean pattern has its centre."""
    mask_file: Path | None = None
    """Bad pixels, not zero where bad, in the shape of a stored pattern."""
    flip_x: bool = False
    flip_y: bool = False
    swap_xy: bool = False
    exclude: tuple[int, ...] = ()
    """Frames, by the file's own numbers, that are left out of scale and image."""
    rows: tuple[int, int | None] = (0, None)
    """First pattern and the one after the last, as Python slices count."""
    every: int = 1
    follow_links: bool = False
    """Let HDF5 links and virtual datasets lead out of the scan's folder."""
    positions_optional: bool = False
    """Read a scan without positions too; it then gives patterns, and no image."""
    incomplete: bool = False
    """Take the frames that are there, of a file that is still being written or lacks parts."""
