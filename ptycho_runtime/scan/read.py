"""Read scans as beamlines write them. What a file leaves open is an error that names the option that settles it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ptycho_runtime.errors import ScanError
from ptycho_runtime.scan.layouts.open import open_raw
from ptycho_runtime.scan.layouts.raw import RawScan
from ptycho_runtime.scan.options import Domain, ReadOptions
from ptycho_runtime.scan.scale import pattern_energy
from ptycho_runtime.scan.scan import Scan

_LOOK = 64  # patterns looked at to recognise what they are


def read_scan(path: str | Path, N: int, options: ReadOptions | None = None) -> Scan:
    """Return a scan whose patterns stay on disk.

    Args:
        path: PtychoPINN `.npz`, CXI, HDF5, Ptychodus diffraction file (its product as `positions_file`).
        N: side of a pattern that the model takes, pixels.
        options: what the file leaves open.

    Raises:
        FileNotFoundError: nothing is there.
        ScanError: the file cannot be read without guessing.
    """
    options = options or ReadOptions()
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such scan")
    raw = open_raw(path, options)
    label = path.name
    n, size = _orient(raw, N, options, label, None if raw.frame_of_position is not None else len(raw.x))
    positions, pixel_size = _positions(raw, options, label, N)
    if len(positions) != n and raw.frame_of_position is None:
        raise ScanError(
            f"{label}: {n} patterns and {len(positions)} positions; which belong together is not said, "
            "so give a file where both have one length"
        )
    frames = np.arange(n) if raw.frame_of_position is None else raw.frame_of_position
    unmatched = frames < 0
    if unmatched.all():
        raise ScanError(f"{label}: no position belongs to any of the {n} patterns; the two files are not of one scan")
    skipped = np.flatnonzero(unmatched).tolist()
    frames, positions = frames[~unmatched], positions[~unmatched]
    if len(frames) != len(positions) or len(np.unique(frames)) != len(frames) or frames.min() < 0 or frames.max() >= n:
        raise ScanError(f"{label}: the frame numbers of the positions do not fit {n} patterns")
    domain = options.domain or recognise_domain(raw, n, label)
    if size != N and options.fit is None:
        raise ScanError(
            f"{label}: patterns are {size} × {size} pixels, the model takes {N} × {N}; give --crop, --pad or --bin"
        )
    scan = Scan(
        name=label,
        read=raw.read,
        frames=frames.astype(np.int64),
        positions_px=positions,
        size_px=size,
        domain=domain,
        probe=raw.probe,
        pixel_size_m=pixel_size,
        truth=raw.truth,
        attributes=raw.attributes,
        fit=options.fit,
        close_file=raw.close,
        skipped={"positions without a pattern": skipped} if skipped else {},
    )
    _check_patterns(scan, N, n, label)
    if scan.probe is not None and scan.probe.shape[-2:] != (N, N):
        scan.probe = None  # of another grid: weights fall back to a window
    return scan


def read_patterns(path: str | Path, N: int, options: ReadOptions | None = None) -> Scan:
    """Return a scan of which only patterns are known; its positions are NaN, so that nothing can be stitched by them.

    Args:
        path: as `read_scan` takes it.
        N: side of a pattern that the model takes, pixels.
        options: what the file leaves open.

    Raises:
        FileNotFoundError: nothing is there.
        ScanError: the patterns cannot be read without guessing.
    """
    options = options or ReadOptions()
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such scan")
    raw = open_raw(path, options, with_positions=False)
    # Where no positions count the patterns, their first axis does.
    n, size = _orient(raw, N, replace(options, axis_order=options.axis_order or "nhw"), path.name, count=None)
    if size != N and options.fit is None:
        raise ScanError(
            f"{path.name}: patterns are {size} × {size} pixels, the model takes {N} × {N}; give --crop, --pad or --bin"
        )
    scan = Scan(
        name=path.name,
        read=raw.read,
        frames=np.arange(n, dtype=np.int64),
        positions_px=np.full((n, 2), np.nan),
        size_px=size,
        domain=options.domain or recognise_domain(raw, n, path.name),
        probe=raw.probe if raw.probe is not None and raw.probe.shape[-2:] == (N, N) else None,
        fit=options.fit,
        close_file=raw.close,
    )
    _check_patterns(scan, N, n, path.name)
    return scan


def _orient(raw: RawScan, N: int, options: ReadOptions, label: str, count: int | None) -> tuple[int, int]:
    """Settle which axis counts the patterns, `count` where that is known; returns (patterns, side in pixels)."""
    shape = raw.shape
    if len(shape) != 3:
        raise ScanError(f"{label}: patterns have shape {shape}; expected three axes")
    possible = [order for order, ok in (("nhw", shape[1] == shape[2]), ("hwn", shape[0] == shape[1])) if ok]
    if count is not None and len(possible) == 2:
        possible = [order for order in possible if shape[0 if order == "nhw" else 2] == count]
    if options.axis_order is not None:
        if options.axis_order not in possible:
            raise ScanError(f"{label}: patterns of shape {shape} are not {options.axis_order}, as --axis-order says")
        possible = [options.axis_order]
    if len(possible) != 1:
        why = "are not square" if not possible else "fit two axis orders; give --axis-order nhw or --axis-order hwn"
        raise ScanError(f"{label}: patterns of shape {shape} {why}")
    raw.transposed = possible[0] == "hwn"
    return (shape[2], shape[0]) if raw.transposed else (shape[0], shape[1])


def _positions(raw: RawScan, options: ReadOptions, label: str, N: int) -> tuple[np.ndarray, float]:
    unit = options.position_unit or raw.position_unit
    if unit is None:
        raise ScanError(f"{label}: the unit of the positions is not said; give --position-unit px, m or um")
    sign = options.position_sign or raw.position_sign
    if sign is None:
        raise ScanError(
            f"{label}: whether positions are the beam's or the sample's motion is not said; give --positions-of beam or --positions-of sample"
        )
    positions = np.stack([np.asarray(raw.x, np.float64), np.asarray(raw.y, np.float64)], axis=-1) * sign
    bad = int((~np.isfinite(positions)).any(-1).sum())
    if bad:
        raise ScanError(f"{label}: {bad} positions are not finite numbers")
    pixel_size = options.pixel_size_m or raw.pixel_size_m(N)
    if unit == "px":
        return positions, pixel_size or 0.0
    if not pixel_size:
        raise ScanError(
            f"{label}: positions are in {unit} and the object's pixel size is not known; give --pixel-size-m"
        )
    metres = positions * (1e-6 if unit == "um" else 1.0)
    return metres / pixel_size, pixel_size


def recognise_domain(raw: RawScan, n: int, label: str) -> Domain:
    """Return what the patterns are where that is certain: counts are whole numbers, amplitudes are roots of whole numbers."""
    sample = raw.read(np.unique(np.linspace(0, n - 1, min(n, _LOOK)).astype(np.int64))).astype(np.float64)
    sample = sample[np.isfinite(sample) & (sample > 0)]
    whole = bool(len(sample)) and bool(np.all(sample == np.round(sample))) and bool((sample > 1).any())
    if whole and raw.declared_amplitude:
        raise ScanError(
            f"{label}: this layout holds amplitudes, but its values are whole numbers, as intensities are; "
            "give --intensity if they are, --amplitude if they are not"
        )
    if whole:
        return "intensity"
    squares = sample**2
    roots = bool(len(sample)) and bool(np.all(np.abs(squares - np.round(squares)) <= 1e-4 * np.maximum(squares, 1.0)))
    if roots:
        return "amplitude"
    raise ScanError(
        f"{label}: whether patterns are amplitudes or intensities cannot be told; give --amplitude or --intensity"
    )


def _check_patterns(scan: Scan, N: int, stored: int, label: str) -> None:
    """Leave out dead frames, counted and listed; refuse numbers that no detector gives; keep each frame's energy as amplitudes.

    Args:
        scan: changed in place.
        N: side of a pattern that the model takes, pixels.
        stored: frames in the file.
        label: of the file, for messages.
    """
    energy = np.full(stored, np.nan)
    dead: list[int] = []
    for which in scan.chunks():
        frames = np.sort(scan.frames[which])
        values = np.asarray(scan.read(frames))
        lowest, highest = (limit(values, axis=(1, 2)) for limit in (np.min, np.max))
        finite = np.isfinite(lowest) & np.isfinite(highest)
        if not finite.all():
            raise ScanError(f"{label}: frame {frames[~finite][0]} holds NaN or infinity; mask or remove such frames")
        if (lowest < 0).any():
            raise ScanError(
                f"{label}: frame {frames[lowest < 0][0]} holds negative values; correct the background first"
            )
        dead += frames[highest == 0].tolist()
        energy[frames] = pattern_energy(scan.as_fed(np.asarray(values, np.float32), N, "amplitude"))
    scan.energy_of_frame[N, "amplitude"] = energy
    if dead:
        keep = ~np.isin(scan.frames, dead)
        scan.frames, scan.positions_px = scan.frames[keep], scan.positions_px[keep]
        scan.skipped["dead frames (all zero)"] = sorted(dead)
    if not len(scan):
        raise ScanError(f"{label}: no usable pattern is left")
