"""Read scans as beamlines write them. What a file leaves open is an error that names the options that settle it, all at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.files import check_is_file
from ptycho_runtime.scan.detector import MOST_BAD, Detector, always_marked
from ptycho_runtime.scan.geometry import ObjectPixel, check_object_pixel, check_positions, object_pixel
from ptycho_runtime.scan.layouts.mask import read_mask
from ptycho_runtime.scan.layouts.numbers import check_type
from ptycho_runtime.scan.layouts.open import open_raw
from ptycho_runtime.scan.layouts.raw import RawScan
from ptycho_runtime.scan.look import Frames, check_centre, hot_pixels, listed, look_at, mean_centre, sample_rows
from ptycho_runtime.scan.options import GIVE_UNIT, UNIT_M, Domain, ReadOptions
from ptycho_runtime.scan.pairing import Pairs, pair, selected
from ptycho_runtime.scan.probe import understood_probe
from ptycho_runtime.scan.scan import Scan

_MOST_AT_ORIGIN = 2  # frames
_COARSE_PX = 0.1  # between positions that the numbers in the file can tell apart


def read_scan(path: str | Path, N: int | None = None, options: ReadOptions | None = None) -> Scan:
    """Return a scan whose patterns stay on disk, after one pass over them.

    Args:
        path: PtychoPINN `.npz`, CXI, HDF5, NeXus or Eiger master, Ptychodus diffraction file (its product as `positions_file`).
        N: side of a pattern that the model takes, pixels; None: as the file has them.
        options: what the file leaves open.

    Raises:
        FileNotFoundError: nothing is there.
        OSError: a folder, a pipe or a device is there.
        ScanError: the file cannot be read without guessing, or holds what no detector gives; the message names frames and options.
        PackageMissingError: its frames are compressed by a filter that is not installed.

    Examples:
        >>> import ptycho_runtime
        >>> from ptycho_runtime import demo
        >>> options = ptycho_runtime.ReadOptions(domain="intensity", pixel_size_m=2.5e-8)
        >>> with ptycho_runtime.read_scan(demo.SCAN, 64, options) as scan:
        ...     scan
        <Scan scan.npz: 148 patterns of 64 px, intensity>
    """
    options = options or ReadOptions()
    path = Path(path)
    check_is_file(path, "scan")
    raw = open_raw(path, options)
    try:
        scan = _Reading(raw, options, N).scan()
    except BaseException:
        raw.close()
        raise
    scan.path, scan.options = path, options
    return scan


def open_again(path: Path, N: int, options: ReadOptions) -> RawScan:
    """Open a scan that `read_scan` understood before, for who has kept what it found; its patterns are not looked at again.

    Args:
        path: the same file.
        N: side of a pattern that the model takes, pixels.
        options: the same.

    Raises:
        OSError: no file is there.
        ScanError: it cannot be read as it could before.
    """
    check_is_file(path, "scan")
    raw = open_raw(path, options)
    try:
        _Reading(raw, options, N)
    except BaseException:
        raw.close()
        raise
    return raw


class _Reading:
    """What is understood of one file so far, and what is still open."""

    def __init__(self, raw: RawScan, options: ReadOptions, N: int | None) -> None:
        self.raw, self.options, self.label = raw, options, raw.label
        self.open: list[str] = []  # questions
        self.warnings = list(raw.warnings)
        self.n, self.shape = self._orient()
        self.N = N or min(self.shape)

    def scan(self) -> Scan:
        """Return the scan; what is open is one error."""
        raw, options = self.raw, self.options
        pairs = selected(pair(raw, options, self.n), options, self.label)
        sample = raw.read(np.sort(sample_rows(pairs.rows, self.shape)))
        detector = Detector(self.shape, options.fit, None, self._bad_pixels(sample))
        domain = self._domain(sample, detector)
        detector = self._centred(detector, sample, domain)
        self._check_fit(detector)
        pixel = self._pixel(detector)
        positions = self._positions(pairs, detector, pixel)
        if not detector.is_plain(self.N) and options.fit is None and self.shape != (self.N, self.N):
            self.open.append(
                f"patterns are {self.shape[0]} × {self.shape[1]} pixels, the model takes {self.N} × {self.N}; "
                "give --crop, --pad or --bin"
            )
        if self.open:
            raise ScanError(f"{self.label}: {'; '.join(self.open)}")
        if pixel is not None:
            check_object_pixel(pixel, f"{self.label}: a pixel of the object")
        if raw.positions_from:
            self._note_repeated(pairs)
            check_positions(positions, pairs.numbers, self.N, self.label, unit_said=options.position_unit is not None)
        frames = Frames(self.label, raw.read, pairs.rows, pairs.numbers, detector, domain)
        seen = look_at(frames, self.N)
        scan = Scan(
            name=self.label,
            read=raw.read,
            frames=pairs.numbers,
            rows=pairs.rows,
            positions_px=positions,
            size_px=min(self.shape),
            domain=domain,
            detector=detector,
            probe=self._probe(detector),
            pixel_size_m=pixel.x_m if pixel else 0.0,
            pixel_height_m=pixel.y_m if pixel else 0.0,
            truth=raw.truth,
            attributes=raw.attributes,
            fit=options.fit,
            skipped=pairs.skipped,
            warnings=self.warnings + seen.warnings,
            has_positions=bool(raw.positions_from),
            source=f"{raw.key} {raw.dtype}" + (f", positions in {raw.positions_from}" if raw.positions_from else ""),
            domain_declared=options.domain is not None,
            close_file=raw.close,
            energy_of_row={},
        )
        scan.finish(seen.energy, seen.dead, self.N)
        return scan

    def _orient(self) -> tuple[int, tuple[int, int]]:
        """Settle which axis counts the patterns; returns (patterns, shape of one)."""
        raw, shape, options = self.raw, self.raw.shape, self.options
        check_type(raw.dtype, f"{self.label}: {raw.key}")
        if len(shape) == 3 and 0 in shape:
            raise ScanError(
                f"{self.label}: {raw.key} has shape {shape}, which is no pattern at all; was the scan ended before it began?"
            )
        if len(shape) != 3:
            raise ScanError(f"{self.label}: patterns have shape {shape}; expected three axes, (n, N, N)")
        count = None if raw.numbers is not None or raw.x is None else len(raw.x)
        square = {"nhw": shape[1] == shape[2], "hwn": shape[0] == shape[1]}
        counted = {"nhw": count in (None, shape[0]), "hwn": count in (None, shape[2])}
        # A rectangle is cut to a square by the fit; without one, patterns are square.
        possible = [
            order for order in square if square[order] or (options.fit and counted[order] and count is not None)
        ]
        if options.fit and not possible and (options.axis_order or raw.numbers is not None):
            possible = [options.axis_order or "nhw"]
        if len(possible) == 2 and count is not None:
            possible = [order for order in possible if counted[order]]
        if options.axis_order is not None:
            if options.axis_order not in possible:
                raise ScanError(
                    f"{self.label}: patterns of shape {shape} are not {options.axis_order}, as --axis-order says"
                )
            possible = [options.axis_order]
        if len(possible) != 1:
            why = "fit two axis orders; give --axis-order nhw or --axis-order hwn"
            if not possible:
                why = "are not square; give --crop to cut their middle out"
                if count is not None and not any(counted.values()):
                    why = f"are not square, and none of the axes counts {count} positions"
            raise ScanError(f"{self.label}: patterns of shape {shape} {why}")
        raw.transposed = possible[0] == "hwn"
        return (shape[2], (shape[0], shape[1])) if raw.transposed else (shape[0], (shape[1], shape[2]))

    def _bad_pixels(self, sample: np.ndarray) -> np.ndarray | None:
        """Return the pixels that are masked, by the file, by the user, or by marks in every pattern; say how many."""
        raw, sources = self.raw, []
        bad = np.zeros(self.shape, bool)
        given = [("the file's mask", raw.bad_pixels)]
        if self.options.mask_file is not None:
            given.append((f"--mask {self.options.mask_file.name}", read_mask(self.options.mask_file)))
        for name, mask in given:
            if mask is None:
                continue
            if mask.ndim == 3 and mask.shape[0] == 1:
                mask = mask[0]
            if mask.shape != self.shape:
                raise ScanError(
                    f"{self.label}: {name} is of shape {mask.shape}, patterns are of {self.shape[0]} × {self.shape[1]} pixels"
                )
            bad |= mask
            if mask.any():
                sources.append(f"{int(mask.sum())} by {name}")
        marked = always_marked(sample) & ~bad
        if marked.any():
            values = np.unique(sample[:, marked])
            shown = ", ".join(f"{value:.10g}" for value in values[:3].astype(np.float64))
            sources.append(f"{int(marked.sum())} that read {shown} in every pattern")
            bad |= marked
        if not bad.any():
            return None
        if bad.mean() > MOST_BAD:
            raise ScanError(
                f"{self.label}: {100 * bad.mean():.0f} % of the pixels are bad ({', '.join(sources)}); expected half of them at most: a mask "
                "is not zero where pixels are bad, and a background is taken off before patterns are stored"
            )
        self.warnings.append(
            f"masked {int(bad.sum())} bad pixels of {bad.size} ({', '.join(sources)}); filled from their neighbours"
        )
        return bad

    def _domain(self, sample: np.ndarray, detector: Detector) -> Domain:
        if self.options.domain is not None:
            return self.options.domain
        good = sample if detector.bad is None else sample[:, ~detector.bad]
        try:
            return recognise_domain(good, self.raw.declared_amplitude)
        except ScanError as error:
            self.open.append(str(error))
            return "amplitude"

    def _centred(self, detector: Detector, sample: np.ndarray, domain: Domain) -> Detector:
        """Return the detector with the zero frequency where it is said to be, else where it ought to be, which is looked at."""
        wanted = self.options.centre
        if isinstance(wanted, tuple):
            row, column = (round(value) for value in wanted)
            return replace(detector, centre=(row, column))
        values = detector.filled(np.maximum(sample, 0) if sample.dtype.kind != "u" else sample, domain)
        values = np.nan_to_num(values, posinf=0.0)
        amplitudes = np.sqrt(values) if domain == "intensity" else values
        centre = mean_centre(amplitudes)
        hot = hot_pixels(amplitudes, detector.zero_frequency)
        if len(hot):
            named = ", ".join(f"{row},{column}" for row, column in hot[:5]) + (" …" if len(hot) > 5 else "")
            self.warnings.append(f"{len(hot)} hot pixels in most patterns, at {named}; mask them with --mask")
        if wanted is None:
            check_centre(centre, detector, self.label)
            return detector
        if not centre.distinct:
            raise ScanError(f"{self.label}: the mean pattern has no distinct centre; give --centre ROW,COLUMN")
        place = round(centre.row) % self.shape[0], round(centre.column) % self.shape[1]
        if place != detector.zero_frequency:
            self.warnings.append(
                f"the zero frequency lies at {place[0]},{place[1]}; patterns are moved so that it is in the middle"
            )
        return replace(detector, centre=place)

    def _check_fit(self, detector: Detector) -> None:
        """Refuse a fit that cannot bring patterns to the model's grid, before sizes follow from it."""
        if not detector.is_plain(self.N) and (detector.fit is not None or self.shape == (self.N, self.N)):
            try:
                detector.fitted(np.zeros((0, *self.shape)), self.N)
            except ScanError as error:
                raise ScanError(f"{self.label}: {error}") from error

    def _pixel(self, detector: Detector) -> ObjectPixel | None:
        """Return the image's pixel, None where it is not known."""
        raw, given, N = self.raw, self.options.pixel_size_m, self.N
        if given is not None:
            if not given > 0:
                raise ScanError(f"the pixel size is {given}; --pixel-size-m takes a positive number of metres")
            return check_object_pixel(ObjectPixel(given, given), "--pixel-size-m: a pixel size")
        if raw.image_pixel_m is not None:
            return ObjectPixel(*raw.image_pixel_m)
        binning = detector.binning(N)
        if raw.object_pixel_m is not None:
            x_m, y_m = raw.object_pixel_m
            return ObjectPixel(x_m * self.shape[1] / (N * binning), y_m * self.shape[0] / (N * binning))
        return object_pixel(raw.beamline, self.label, N * binning)

    def _positions(self, pairs: Pairs, detector: Detector, pixel: ObjectPixel | None) -> np.ndarray:
        """Return positions (n, 2) (x, y) of the beam in pixels of the image; what is open is noted, and zeros returned."""
        raw, options, n = self.raw, self.options, len(pairs.rows)
        if raw.x is None or raw.y is None:
            return np.full((n, 2), np.nan)
        unit, sign = options.position_unit or raw.position_unit, options.position_sign or raw.position_sign
        if unit is None:
            self.open.append(f"the unit of the positions is not said; {GIVE_UNIT}")
        if sign is None:
            self.open.append(
                "whether positions are the beam's or the sample's motion is not said; give --positions-of beam or --positions-of sample"
            )
        positions = np.stack([raw.x, raw.y], axis=-1)[pairs.positions]
        bad = (~np.isfinite(positions)).any(-1)
        if bad.any():
            frames = pairs.numbers[bad]
            raise ScanError(
                f"{self.label}: positions of frames {listed(frames)} are NaN or infinite; expected numbers; correct them, or leave the "
                f"frames out with --exclude {','.join(map(str, frames[:10]))}"
            )
        if unit not in (None, "px") and pixel is None:
            self.open.append(f"positions are in {unit} and the object's pixel size is not known; give --pixel-size-m")
        if unit is None or sign is None or (unit != "px" and pixel is None):
            return np.zeros((n, 2))
        self._note_coarse(
            np.abs(positions).max(initial=0.0), 1.0 if unit == "px" or pixel is None else UNIT_M[unit] / pixel.x_m
        )
        positions = positions * sign
        if raw.axes is not None:
            positions = positions @ raw.axes.T
        if options.swap_xy:
            positions = positions[:, ::-1]
        positions = np.asarray(positions * np.where([options.flip_x, options.flip_y], -1.0, 1.0))
        if unit != "px" and pixel is not None:
            in_pixels: np.ndarray = positions * UNIT_M[unit] / np.array([pixel.x_m, pixel.y_m])
            return in_pixels
        if raw.positions_fitted:
            return positions
        # Pixels of the recorded grid: side λz/(S·pitch); the image's is λz/(N·binning·pitch).
        scale = self.N * detector.binning(self.N) / np.array([self.shape[1], self.shape[0]], float)
        return np.ascontiguousarray(positions * scale)

    def _note_repeated(self, pairs: Pairs) -> None:
        """Say it where several frames lie at exactly 0, 0, as positions do that were never written."""
        raw = self.raw
        if raw.x is None or raw.y is None:
            return
        frames = pairs.numbers[(raw.x[pairs.positions] == 0) & (raw.y[pairs.positions] == 0)]
        if _MOST_AT_ORIGIN < len(frames) < len(pairs.numbers):
            self.warnings.append(
                f"{len(frames)} frames lie at exactly 0, 0, as positions that were never written do: {listed(frames)}; leave them out "
                "with --exclude if so"
            )

    def _note_coarse(self, largest: float, pixels: float) -> None:
        """Say it where positions were stored in so few digits that they come in steps.

        Args:
            largest: of their numbers.
            pixels: of the image, in one of their unit.
        """
        with np.errstate(over="ignore"):
            exact = all(v is not None and np.array_equal(v, v.astype(np.float32)) for v in (self.raw.x, self.raw.y))
            step = float(np.spacing(np.float32(largest))) * pixels
        if exact and step > _COARSE_PX:
            self.warnings.append(
                f"positions are float32 numbers up to {largest:.4g}, so they come in steps of {step:.2g} pixels; store them as float64, "
                "or from a nearer origin"
            )

    def _probe(self, detector: Detector) -> np.ndarray | None:
        if self.raw.probe is None:
            return None
        recorded = None if self.raw.object_pixel_m is None else ObjectPixel(*self.raw.object_pixel_m)
        probe, note = understood_probe(self.raw.probe, detector, self.N, recorded)
        if note:
            self.warnings.append(note)
        return probe


def recognise_domain(sample: np.ndarray, declared_amplitude: bool) -> Domain:
    """Return what patterns are where that is certain: counts are whole numbers, amplitudes are roots of whole numbers.

    Args:
        sample: numbers of some patterns, of any shape.
        declared_amplitude: whether the layout says that they are amplitudes.

    Raises:
        ScanError: it is not certain.
    """
    values = np.asarray(sample, np.float64)
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        raise ScanError(
            "patterns are zero everywhere, so whether they are amplitudes or intensities cannot be told; was the beam on? if so, give "
            "--amplitude or --intensity"
        )
    if values.max() > 1e18:
        raise ScanError(f"patterns hold {values.max():.3g}, too large for float32")
    whole = bool(np.all(values == np.round(values))) and bool((values > 1).any())
    if whole and declared_amplitude:
        raise ScanError(
            "this layout holds amplitudes, but its values are whole numbers, as intensities are; "
            "give --intensity if they are, --amplitude if they are not"
        )
    if whole:
        return "intensity"
    squares = values**2
    roots = bool(np.all(np.abs(squares - np.round(squares)) <= 1e-4 * np.maximum(squares, 1.0)))
    if roots:
        return "amplitude"
    raise ScanError("whether patterns are amplitudes or intensities cannot be told; give --amplitude or --intensity")
