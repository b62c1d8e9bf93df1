"""What a layout makes of a file: arrays as stored, and what the layout makes certain about them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptycho_runtime.errors import PtychoExportError, ScanError
from ptycho_runtime.scan.layouts.numbers import names_in
from ptycho_runtime.scan.options import PATTERN_KEYS, LengthUnit, ReadOptions, Sign

# What damaged data make of numpy and h5py.
_UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, TypeError, OverflowError)
_CXI_FURTHER = re.compile(r"entry_\d+/data_\d+/data")


@dataclass
class Beamline:
    """Where the detector stood, as the file has it; None where the file does not say."""

    distance_m: float | None = None
    wavelength_m: float | None = None
    pixel_x_m: float | None = None  # of the detector, along columns
    pixel_y_m: float | None = None

    def take_missing(self, other: Beamline) -> None:
        """Take what this one does not say from another."""
        for name, value in vars(other).items():
            if getattr(self, name) is None:
                setattr(self, name, value)


@dataclass
class StoredProbe:
    """A probe as stored: of any shape and type."""

    values: np.ndarray
    pixel_m: float | None = None  # where the file says it
    unreadable: str = ""  # why there are no values

    @classmethod
    def read(cls, read: Callable[[str], np.ndarray], name: str) -> StoredProbe:
        """Return the probe of a name; one that cannot be read keeps nobody from an image, and says why."""
        try:
            return cls(read(name))
        except ScanError as error:
            return cls(np.zeros(0), unreadable=str(error))


@dataclass
class RawScan:
    """One open file."""

    label: str  # the file's name, for messages
    data: Any  # an array or an HDF5 dataset, read by slices
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    key: str = ""  # of the patterns
    close: Callable[[], None] = lambda: None
    transposed: bool = False  # frames along the last axis
    x: np.ndarray | None = None  # (n,) float64
    y: np.ndarray | None = None
    positions_from: str = ""  # names of the arrays
    indexes: np.ndarray | None = None  # (n,) int64, number of each pattern, where the file says it
    numbers: np.ndarray | None = None  # (positions,) int64: number of the pattern of each position, where said
    position_unit: LengthUnit | None = None
    position_sign: Sign | None = None
    image_pixel_m: tuple[float, float] | None = None  # (x, y) of the image, where the file says that one
    positions_fitted: bool = False  # in pixels of the image, as our own products have them, not of the recorded grid
    axes: np.ndarray | None = None  # (2, 2): directions (x, y) along which columns and rows of the detector grow
    declared_amplitude: bool = False  # by the layout; the values must agree
    probe: StoredProbe | None = None
    truth: np.ndarray | None = None  # the object the scan was simulated from
    bad_pixels: np.ndarray | None = None  # (h, w) bool
    attributes: dict[str, float] = field(default_factory=dict)
    object_pixel_m: tuple[float, float] | None = None  # (x, y) of the recorded grid
    beamline: Beamline = field(default_factory=Beamline)
    unwritten: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # rows that nobody wrote
    warnings: list[str] = field(default_factory=list)

    @property
    def raster(self) -> tuple[int, ...]:
        """(rows, columns) of the scan where patterns are stored with these axes, else nothing."""
        return self.shape[:2] if len(self.shape) == 4 else ()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return patterns by their rows in the file (ascending), (n, h, w), as stored.

        Raises `ScanError` naming the first frame that cannot be read.
        """
        try:
            return self._read(rows)
        except PtychoExportError:
            raise
        except _UNREADABLE as error:
            for row in rows:
                try:
                    self._read(np.array([row]))
                except PtychoExportError:
                    raise
                except _UNREADABLE as cause:
                    number = row if self.indexes is None else self.indexes[row]
                    raise ScanError(
                        f"{self.label}: frame {number} cannot be read: its data are damaged ({cause}); "
                        f"copy the file again, or leave the frame out with --exclude {number}"
                    ) from cause
            raise ScanError(f"{self.label}: frames {rows[0]} to {rows[-1]} cannot be read ({error})") from error

    def _read(self, rows: np.ndarray) -> np.ndarray:
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
            key: Any = slice(int(rows[0]), int(rows[-1]) + 1)  # one read of neighbours is much faster
        else:
            key = rows
        return np.moveaxis(self.data[..., key], -1, 0) if self.transposed else np.asarray(self.data[key])


def patterns_key(names: set[str], options: ReadOptions, label: str) -> str:
    """Return the name of the patterns among the names of a file: the one that was given, else the one that is known."""
    if options.patterns_key is not None:
        key = options.patterns_key.strip("/")
        if key not in names:
            raise ScanError(f"{label}: has no patterns {options.patterns_key}; it has {names_in(names)}")
        return key
    known: list[str] = [key for key in PATTERN_KEYS if key in names]
    known += sorted(name for name in names if _CXI_FURTHER.fullmatch(name) and name not in known)
    if len(known) != 1:
        what = (
            f"holds several sets of patterns ({', '.join(known)})"
            if known
            else f"holds no patterns under a known name (it has {names_in(names)})"
        )
        raise ScanError(f"{label}: {what}; name them with --patterns-key")
    return known[0]
