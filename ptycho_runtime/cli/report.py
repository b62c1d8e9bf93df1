"""What `reconstruct` says of a result: lines for people, one document for machines."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_runtime.image.result import Reconstruction
from ptycho_runtime.image.trust.values import KINDS

_NAMED = 20  # flagged frames of a kind that are named


def lines(result: Reconstruction, written: list[Path]) -> list[str]:
    """Return what people read; the verdict stands in the first line."""
    trust, timing = result.trust, result.timing
    rows, columns = result.object.shape
    partial = "partial " if result.partial else ""
    found = [f"{trust.verdict}: {partial}object {rows} x {columns} px: {', '.join(map(str, written))}"]
    found += [f"  {reason}" for reason in trust.reasons]
    for kind in np.unique(trust.kinds[trust.flagged]).tolist():
        frames = result.scan.frames[trust.flagged & (trust.kinds == kind)].tolist()
        more = ", …" if len(frames) > _NAMED else ""
        found.append(f"  flagged {len(frames)}, {KINDS[kind]} {', '.join(map(str, frames[:_NAMED]))}{more}")
    found.append(
        f"  {result.done} of {result.groups} groups in {timing.seconds:.2f} s ({result.done / max(timing.seconds, 1e-9):.0f}/s, "
        f"{100 * timing.session_seconds / max(timing.seconds, 1e-9):.0f} % in the session); first run {timing.first_run_seconds:.3f} s; "
        f"input_scale_factor {result.input_scale_factor:.6g}"
    )
    if result.engine:
        found.append(f"  {result.engine}")
    if result.object_scales is not None:
        found.append(
            "  real and imaginary part are multiplied by {:.6g} and {:.6g}, fitted to the counts".format(
                *result.object_scales
            )
        )
    if result.resolution_px:
        found.append(f"  Fourier ring correlation of even and odd patterns: {_resolution(result)}")
    figures = trust.figures
    text = f"  overlapping patches differ by {figures['disagreement_median']:.3f} (median)"
    if math.isfinite(figures["stitched_residual_median"]):
        text += f"; probe and object leave {figures['stitched_residual_median']:.3f} unexplained"
    return [*found, text]


def _resolution(result: Reconstruction) -> str:
    pixel_m = result.scan.pixel_size_m
    texts = []
    for name, half_period_px in result.resolution_px.items():
        length = f", {half_period_px * pixel_m * 1e9:.3g} nm" if pixel_m else ""
        texts.append(f"half-period of {half_period_px:.2f} px{length} ({name.replace('_', '-')})")
    return "; ".join(texts)


def document(result: Reconstruction, written: list[Path]) -> dict[str, Any]:
    """Return the same as values that JSON holds."""
    trust, timing = result.trust, result.timing
    flagged = zip(result.scan.frames[trust.flagged].tolist(), trust.kinds[trust.flagged].tolist(), strict=True)
    return {
        "verdict": trust.verdict,
        "trusted": trust.trusted,
        "reasons": list(trust.reasons),
        "figures": {name: value if math.isfinite(value) else None for name, value in trust.figures.items()},
        "flagged": [{"frame": frame, "kind": KINDS[kind]} for frame, kind in flagged],
        "partial": result.partial,
        "written": list(map(str, written)),
        "object_px": list(result.object.shape),
        "pixel_size_m": result.scan.pixel_size_m or None,
        "patterns": len(result.scan),
        "skipped": {reason: list(map(int, frames)) for reason, frames in result.scan.skipped.items()},
        "input_scale_factor": result.input_scale_factor,
        "device": result.device,
        "engine": result.engine or None,
        "half_period_px": result.resolution_px or None,
        "object_scales": result.object_scales,
        "seconds": timing.seconds,
        "session_seconds": timing.session_seconds,
    }
