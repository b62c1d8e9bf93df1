"""What was understood of a scan, in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptycho_runtime.scan.look import listed
from ptycho_runtime.scan.scan import Scan


def scan_facts(scan: Scan) -> dict[str, Any]:
    """Return what was understood of a scan: text, or lists of text, by topic."""
    rows, columns = (scan.size_px, scan.size_px) if scan.detector is None else scan.detector.shape
    facts: dict[str, Any] = {
        "scan": scan.name,
        "patterns": f"{len(scan)} of {rows} x {columns} px, {scan.source or 'from memory'}",
        "frames": f"{scan.frames.min()} to {scan.frames.max()}",
        "domain": f"{scan.domain}, {'as said' if scan.domain_declared else 'by their numbers'}",
    }
    if scan.detector is not None:
        facts["zero frequency"] = "row {}, column {}".format(*scan.detector.zero_frequency)
        bad = 0 if scan.detector.bad is None else int(scan.detector.bad.sum())
        facts["bad pixels"] = f"{bad} of {rows * columns}"
        facts["to the model"] = scan.fit or "as stored"
    pixel = (scan.pixel_size_m, scan.pixel_height_m)
    facts["pixel"] = "{:.6g} x {:.6g} m".format(*pixel) if scan.pixel_size_m else "size not known"
    if scan.has_positions:
        span = np.ptp(scan.positions_px, axis=0)
        facts["span"] = "{:.1f} x {:.1f} px".format(*span)
        if scan.pixel_size_m:
            facts["span"] += " = {:.4g} x {:.4g} m".format(*(span * pixel))
    else:
        facts["span"] = "no positions"
    facts["probe"] = "none" if scan.probe is None else "{} modes of {} x {} px".format(*scan.probe.shape)
    if scan.attributes:
        facts["beamline"] = [f"{name} {value:.6g}" for name, value in sorted(scan.attributes.items())]
    if scan.skipped:
        facts["skipped"] = [f"{len(frames)}: {reason}: {listed(frames)}" for reason, frames in scan.skipped.items()]
    if scan.warnings:
        facts["warning"] = list(scan.warnings)
    return facts
