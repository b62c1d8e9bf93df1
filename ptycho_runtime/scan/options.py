"""What a user may say about a scan, and the names under which scans keep their patterns. Values alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Domain = Literal["amplitude", "intensity"]
AxisOrder = Literal["nhw", "hwn"]
Fit = Literal["crop", "pad", "bin"]
LengthUnit = Literal["px", "m", "um"]
Sign = Literal[1, -1]

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
    """What the user declares; None leaves it to what the file makes certain."""

    domain: Domain | None = None
    axis_order: AxisOrder | None = None
    patterns_key: str | None = None
    x_key: str | None = None
    y_key: str | None = None
    probe_key: str | None = None
    position_unit: LengthUnit | None = None
    pixel_size_m: float | None = None
    """Of the object's pixels."""
    position_sign: Sign | None = None
    """−1 where positions are the sample's motion."""
    fit: Fit | None = None
    positions_file: Path | None = None
    """A Ptychodus product or NPZ that goes with a file of patterns alone."""
