"""The picture so far and whether it is to be believed: of the last patches against the canvas, in a fraction of a second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptycho_runtime.export.record import TrustBaseline
from ptycho_runtime.image.core import Core
from ptycho_runtime.image.stitch import Canvas
from ptycho_runtime.image.trust.overlap import Placed, deviations, leave_one_out
from ptycho_runtime.image.trust.values import Verdict
from ptycho_runtime.image.trust.verdict import Findings, judge

_LAST = 128  # patterns that are looked at


@dataclass(frozen=True)
class Snapshot:
    """A live image at one moment."""

    canvas: Canvas
    phase_deviation_rad: np.ndarray
    """(rows, columns) float32, of the last patches at each pixel; 0 where none of them was."""
    verdict: Verdict
    reasons: tuple[str, ...]


class _Part:
    """The last patches in memory, as `Placed` reads them."""

    def __init__(self, records: np.ndarray, copies: np.ndarray) -> None:
        self.records, self.copies = records, copies

    def get(self, which: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.records[which]
        return found


def snapshot(core: Core, baseline: TrustBaseline | None) -> Snapshot:
    """Return the image so far; call it where nothing is taken meanwhile."""
    sums = core.stitcher.sums
    evidence = core.evidence
    known = evidence.in_order()
    done = np.flatnonzero(np.isfinite(known.counts) & (known.patches.copies > 0))
    last = done[np.sort(np.argsort(known.order[done])[-_LAST:])]
    corners = core.stitcher.corners(known.positions_px[last])
    placed = Placed(_Part(known.patches.get(last), known.patches.copies[last]), corners, core.stitcher.weights)
    disagreement, _ = leave_one_out(placed, sums, np.ones(len(last), bool))
    _, phase = deviations(placed, sums)
    finite = disagreement[np.isfinite(disagreement)]
    findings = Findings(
        disagreement=float(np.median(finite)) if len(finite) else float("nan"),
        stitched_residual=float("nan"),
        alone=float(np.isnan(disagreement).mean()) if len(last) else 1.0,
        flagged=0.0,
        kinds=np.zeros(0, np.int8),
        centre_px=known.centre_px() if len(last) else (0.0, 0.0),
        reading=None,
        partial=False,
        lost=evidence.lost,
    )
    verdict, reasons = judge(findings, baseline)
    return Snapshot(core.stitcher.canvas_of(sums), phase, verdict, reasons)
