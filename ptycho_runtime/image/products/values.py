"""What every format says of a reconstruction, each in its own way: facts, arrays, geometry."""

from __future__ import annotations

import json

import numpy as np

from ptycho_runtime.image.result import Reconstruction
from ptycho_runtime.image.trust.values import KINDS

Fact = str | float | int | bool


def facts(result: Reconstruction) -> dict[str, Fact]:
    """Return what is known of the whole image, by name."""
    trust = result.trust
    scales = dict(zip(("object_scale_real", "object_scale_imag"), result.object_scales or (), strict=False))
    return {
        "partial": result.partial,
        "input_scale_factor": result.input_scale_factor,
        "groups": result.groups,
        "groups_done": result.done,
        "device": result.device,
        "engine": result.engine,
        **scales,
        **{f"frc_{name}_half_period_px": figure for name, figure in result.resolution_px.items()},
        "verdict": trust.verdict,
        "trusted": trust.trusted,
        "reasons": "; ".join(trust.reasons),
        "flag_kinds": "; ".join(f"{number} {kind}" for number, kind in enumerate(KINDS) if kind),
        **{f"trust_{name}": value for name, value in trust.figures.items()},
    }


def provenance(result: Reconstruction) -> dict[str, str]:
    """Return what made the image, by name: bundle and scan with their sha256, options, versions, host, time, and the verdict."""
    return {**result.origin.facts(), "verdict": result.trust.verdict}


def amplitude_and_phase(result: Reconstruction) -> tuple[np.ndarray, np.ndarray]:
    """Return amplitude and phase (rad), (rows, columns) float32 each, NaN where nothing was measured."""
    covered = result.canvas.covered
    parts = (np.abs(result.object), np.angle(result.object))
    amplitude, phase = (np.where(covered, part, np.nan).astype(np.float32) for part in parts)
    return amplitude, phase


def skipped_frames(result: Reconstruction) -> str:
    """Return the frames that are not in the image, as JSON: their numbers by reason."""
    return json.dumps({reason: list(map(int, frames)) for reason, frames in result.scan.skipped.items()})


def pattern_arrays(result: Reconstruction) -> dict[str, np.ndarray]:
    """Return what is known of each pattern used, (n, …) in the order of the frames."""
    trust = result.trust
    scores = {f"pattern_{name}": values for name, values in vars(trust.scores).items()}
    known = {name: values for name, values in scores.items() if np.isfinite(values).any()}
    return {"flagged": trust.flagged, "pattern_kind": trust.kinds, **known}


def pixel_arrays(result: Reconstruction) -> dict[str, np.ndarray]:
    """Return what is known of each pixel, (rows, columns), and of each ring of the spectrum where they were compared."""
    rings = result.ring_correlation
    return {
        **(
            {}
            if rings is None
            else {"frc": rings.correlation, "frc_one_bit": rings.one_bit, "frc_half_bit": rings.half_bit}
        ),
        "amplitude_deviation": result.trust.amplitude_deviation,
        "phase_deviation_rad": result.trust.phase_deviation_rad,
    }


def comments(result: Reconstruction) -> str:
    """Return in words what a reader of the file must know."""
    lines = [
        f"input_scale_factor {result.input_scale_factor:.9g}; {result.done} of {result.groups} groups on {result.device}"
        + f" under {result.engine}" * bool(result.engine)
    ]
    lines.append(f"{result.trust.verdict}{': ' * bool(result.trust.reasons)}{'; '.join(result.trust.reasons)}")
    if result.partial:
        lines.append("PARTIAL: stopped before all patterns were in")
    if pixel_m(result) is None:
        lines.append("the object's pixel size is not known: nothing is given in metres")
    lines += [f"skipped, {reason}: {len(frames)}" for reason, frames in result.scan.skipped.items()]
    lines += result.scan.warnings
    if result.note:
        lines.append(result.note)
    return "; ".join(lines)


def pixel_m(result: Reconstruction) -> tuple[float, float] | None:
    """Return the object's pixel size (x, y), metres; None where it is not known."""
    size = result.scan.pixel_size_m
    return (size, result.scan.pixel_height_m or size) if size else None


def positions_m(result: Reconstruction) -> np.ndarray:
    """Return scan positions (n, 2) (x, y), metres; NaN where the pixel size is not known."""
    found: np.ndarray = result.scan.positions_px * np.array(pixel_m(result) or (np.nan, np.nan))
    return found


def centre_px(result: Reconstruction) -> tuple[float, float]:
    """Return the scan coordinates (x, y) of the object's centre, pixels.

    The centre is the middle of an array of W columns as Ptychodus has it: x_px = (x − centre) + W/2 is the column of x.
    """
    rows, columns = result.object.shape
    return result.canvas.x0_px + columns / 2, result.canvas.y0_px + rows / 2


def centre_m(result: Reconstruction) -> tuple[float, float]:
    """Return the object's centre (x, y) in scan coordinates, metres; NaN where the pixel size is not known."""
    x, y = pixel_m(result) or (np.nan, np.nan)
    return centre_px(result)[0] * x, centre_px(result)[1] * y
