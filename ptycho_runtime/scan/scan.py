"""A scan: patterns on disk, their positions in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ptycho_runtime.closing import Closing
from ptycho_runtime.errors import ScanError
from ptycho_runtime.files import printable
from ptycho_runtime.scan.detector import Detector, always_marked
from ptycho_runtime.scan.geometry import ObjectPixel, check_object_pixel, check_positions
from ptycho_runtime.scan.layouts.numbers import check_type, frame_numbers
from ptycho_runtime.scan.look import Frames, check_centre, chunks, look_at, mean_centre, sample_rows
from ptycho_runtime.scan.options import Domain, Fit, ReadOptions
from ptycho_runtime.scan.scale import pattern_energy


@dataclass
class Scan(Closing):
    """Patterns with their positions. One built in Python passes the same checks as a file: see `read_scan`.

    `read` is called for all patterns when the scan is made. Patterns that are zero everywhere are left out and listed in
    `skipped`; `ScanError` is raised for what `read_scan` refuses. Use it as a context manager, or `close` it.

    Examples:
        >>> import numpy as np
        >>> import ptycho_runtime
        >>> counts = np.random.default_rng(0).poisson(9.0, (5, 64, 64))  # what a detector gave, zero frequency in the middle
        >>> counts[:, 30:35, 30:35] += 1000
        >>> x_px = np.arange(5) * 7.5
        >>> scan = ptycho_runtime.Scan(
        ...     name="line", read=lambda rows: counts[rows], frames=np.arange(5),
        ...     positions_px=np.stack([x_px, 0 * x_px], axis=-1), size_px=64, domain="intensity",
        ... )
        >>> scan
        <Scan line: 5 patterns of 64 px, intensity>
    """

    name: str
    read: Callable[[np.ndarray], np.ndarray]  # ascending rows -> (n, h, w), as stored
    frames: np.ndarray  # (n,) int64: the file's own number of each usable pattern
    positions_px: np.ndarray  # (n, 2) float64 (x, y), pixels of the image
    size_px: int  # side of a stored pattern, the shorter one
    domain: Domain
    probe: np.ndarray | None = None  # (modes, N, N) complex64
    pixel_size_m: float = 0.0  # of the image, along x; 0 unknown
    truth: np.ndarray | None = None  # the object the scan was simulated from
    skipped: dict[str, list[int]] = field(default_factory=dict)  # reason -> frames
    attributes: dict[str, float] = field(default_factory=dict)
    fit: Fit | None = None
    warnings: list[str] = field(default_factory=list)  # what is to be said of it, one line each
    rows: np.ndarray | None = None  # (n,) int64: where `read` has each pattern; `frames` where None
    detector: Detector | None = None  # a square one of `size_px` with `fit` where None
    pixel_height_m: float = 0.0  # of the image, along y; `pixel_size_m` where 0
    has_positions: bool = True
    source: str = ""  # name and type of the patterns in the file
    domain_declared: bool = True  # by the user; False where the numbers tell
    path: Path | None = None  # of the file, where there is one
    options: ReadOptions | None = None  # with which it was read
    close_file: Callable[[], None] = field(default=lambda: None, repr=False)
    # (N, domain as fed) -> Σ d² of each row, NaN where it was not looked at: spares a pass over the file
    energy_of_row: dict[tuple[int, str], np.ndarray] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check what was not checked yet."""
        self.frames = frame_numbers(np.asarray(self.frames), f"{self.name}: frames")
        self.positions_px = np.asarray(self.positions_px, np.float64)
        self.rows = self.frames if self.rows is None else np.asarray(self.rows, np.int64)
        if self.detector is None:
            self.detector = Detector((self.size_px, self.size_px), self.fit)
        self.pixel_height_m = self.pixel_height_m or self.pixel_size_m
        n = len(self.frames)
        if self.positions_px.shape != (n, 2) or self.rows.shape != (n,):
            raise ScanError(
                f"{self.name}: {n} patterns, positions of shape {self.positions_px.shape}, {len(self.rows)} rows; expected "
                "one (x, y) and one row a pattern (parts of a scan: Scan.subset)"
            )
        if self.energy_of_row is None:
            self._look()

    def __repr__(self) -> str:
        """Return what it is in one line."""
        return f"<Scan {printable(self.name)}: {len(self)} patterns of {self.size_px} px, {self.domain}>"

    def __len__(self) -> int:
        """Return the number of usable patterns."""
        return len(self.frames)

    def close(self) -> None:
        """Close the scan's file; patterns cannot be read afterwards."""
        self.close_file()

    def patterns(self, which: np.ndarray, N: int, domain: str) -> np.ndarray:
        """Return patterns as a model takes them, (n, N, N) float32.

        Args:
            which: indices into the usable patterns, in any order.
            N: side that the model takes, pixels.
            domain: `amplitude` or `counts`.

        Raises:
            ScanError: a pattern cannot be read.

        Examples:
            >>> import ptycho_runtime
            >>> from ptycho_runtime import demo
            >>> with ptycho_runtime.read_scan(demo.SCAN, 64, ptycho_runtime.ReadOptions(domain="intensity")) as scan:
            ...     scan.patterns([0, 5], 64, "amplitude").shape
            (2, 64, 64)
        """
        detector, rows = self._grid()
        unique, back = np.unique(which, return_inverse=True)
        order = np.argsort(rows[unique], kind="stable")
        fed = detector.as_fed(self.read(rows[unique][order]), N, self.domain, domain)
        unordered = np.empty_like(order)
        unordered[order] = np.arange(len(order))
        result: np.ndarray = fed[unordered[back]]
        return result

    def energy(self, N: int, domain: str) -> np.ndarray:
        """Return Σ d² of each usable pattern d as `patterns` gives it, (n,) float64; read only where not known yet.

        Examples:
            >>> import ptycho_runtime
            >>> from ptycho_runtime import demo
            >>> with ptycho_runtime.read_scan(demo.SCAN, 64, ptycho_runtime.ReadOptions(domain="intensity")) as scan:
            ...     scan.energy(64, "amplitude").shape
            (148,)
        """
        detector, rows = self._grid()
        known = (self.energy_of_row or {}).get((N, domain))
        if known is not None:
            energy: np.ndarray = known[rows]
            return energy
        parts = [pattern_energy(self.patterns(which, N, domain)) for which in chunks(len(self), detector.shape)]
        return np.concatenate([np.zeros(0), *parts])

    def subset(self, which: np.ndarray) -> Scan:
        """Return the scan of some usable patterns, by their indices.

        Examples:
            >>> import ptycho_runtime
            >>> from ptycho_runtime import demo
            >>> with ptycho_runtime.read_scan(demo.SCAN, 64, ptycho_runtime.ReadOptions(domain="intensity")) as scan:
            ...     len(scan.subset(range(20)))
            20
        """
        _, rows = self._grid()
        return replace(self, frames=self.frames[which], rows=rows[which], positions_px=self.positions_px[which])

    def without(self, frames: Iterable[int], reason: str = "left out") -> Scan:
        """Return the scan without some frames, by the file's own numbers; they are listed in `skipped` under the reason.

        Examples:
            >>> import ptycho_runtime
            >>> from ptycho_runtime import demo
            >>> with ptycho_runtime.read_scan(demo.SCAN, 64, ptycho_runtime.ReadOptions(domain="intensity")) as scan:
            ...     part = scan.without([3, 17], "beam off")
            >>> len(part), part.skipped
            (146, {'beam off': [3, 17]})
        """
        out = np.isin(self.frames, np.fromiter(frames, np.int64))
        part = self.subset(np.flatnonzero(~out))
        if out.any():
            known = part.skipped.get(reason, [])
            part.skipped = {**part.skipped, reason: sorted({*known, *self.frames[out].tolist()})}
        return part

    def _grid(self) -> tuple[Detector, np.ndarray]:
        """Return detector and rows, which are there once the scan is made."""
        if self.detector is None or self.rows is None:
            raise ScanError(f"{self.name}: is not a whole scan")
        return self.detector, self.rows

    def _look(self) -> None:
        """Pass all patterns through the checks that a file's pass."""
        detector, rows = self._grid()
        if not len(self):
            raise ScanError(f"{self.name}: no usable pattern is left")
        self._check_given()
        wanted = np.sort(sample_rows(rows, detector.shape))
        sample = np.asarray(self.read(wanted))
        check_type(sample.dtype, f"{self.name}: patterns")
        if sample.shape != (len(wanted), *detector.shape):
            raise ScanError(
                f"{self.name}: patterns of {len(wanted)} rows have shape {sample.shape}; expected {(len(wanted), *detector.shape)}"
            )
        detector = self._with_marks(detector, sample)
        N = min(detector.shape)
        seen = look_at(Frames(self.name, self.read, rows, self.frames, replace(detector, fit="crop"), self.domain), N)
        check_centre(mean_centre(_amplitudes(detector.filled(sample, self.domain), self.domain)), detector, self.name)
        self.detector = detector
        self.finish(seen.energy, seen.dead, N)
        self.warnings += seen.warnings
        if self.has_positions:
            check_positions(self.positions_px, self.frames, N, self.name, unit_said=True)
        if self.probe is not None:
            self._check_probe()

    def _check_given(self) -> None:
        """Refuse what contradicts the names of the fields."""
        if self.domain not in ("amplitude", "intensity"):
            raise ScanError(f"{self.name}: its domain is {self.domain!r}; expected amplitude or intensity")
        if len(np.unique(self.frames)) != len(self.frames):
            raise ScanError(f"{self.name}: frames repeat numbers; expected the number of each pattern")
        if self.pixel_size_m != 0:
            pixel = ObjectPixel(self.pixel_size_m, self.pixel_height_m)
            check_object_pixel(pixel, f"{self.name}: a pixel of the image")

    def _with_marks(self, detector: Detector, sample: np.ndarray) -> Detector:
        marked = always_marked(sample)
        if not marked.any():
            return detector
        self.warnings.append(f"masked {int(marked.sum())} bad pixels, filled from their neighbours")
        return replace(detector, bad=marked if detector.bad is None else detector.bad | marked)

    def _check_probe(self) -> None:
        probe = np.asarray(self.probe)
        bad = probe.ndim != 3 or probe.dtype.kind != "c" or not np.isfinite(probe).all() or not probe.any()
        bad |= probe.shape[-1:] != probe.shape[-2:-1] or (self.fit is None and probe.shape[-1] != self.size_px)
        if bad:
            self.warnings.append(
                f"the probe is not used: {probe.dtype} of shape {probe.shape}; expected (modes, N, N) complex, finite and not zero"
            )
            self.probe = None

    def finish(self, energy: np.ndarray, dead: np.ndarray, N: int) -> None:
        """Take what a pass over all patterns has seen: dead ones are left out and listed.

        Args:
            energy: (n,) float64, Σ d² of each pattern d as amplitudes on a grid of N pixels.
            dead: (n,) bool.
            N: side of that grid.
        """
        _, rows = self._grid()
        known = np.full(int(rows.max(initial=-1)) + 1, np.nan)
        known[rows] = energy
        self.energy_of_row = {(N, "amplitude"): known}
        if dead.any():
            self.skipped["dead frames (all zero)"] = sorted(self.frames[dead].tolist())
            self.frames, self.rows, self.positions_px = self.frames[~dead], rows[~dead], self.positions_px[~dead]
        if not len(self):
            raise ScanError(
                f"{self.name}: no usable pattern is left: all {len(dead)} are zero everywhere; was the beam on?"
            )


def _amplitudes(values: np.ndarray, domain: Domain) -> np.ndarray:
    return np.sqrt(np.maximum(values, 0)) if domain == "intensity" else values
