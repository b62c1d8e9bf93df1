"""What `reconstruct` prints: the verdict first, reasons and flags by kind, and JSON that says the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from simulated import assessed, simulated, with_shifted_patterns

from ptycho_runtime.cli import report
from ptycho_runtime.image.result import Reconstruction, Timing
from ptycho_runtime.image.stitch import Canvas
from ptycho_runtime.scan.scan import Scan


@pytest.fixture(scope="module")
def result() -> Reconstruction:
    made = simulated()
    bad = np.array([20, 60, 61, 62, 120, 150])
    trust = assessed(with_shifted_patterns(made, bad))
    rows = np.arange(len(made))
    scan = Scan("stand-in", lambda r: made.amplitudes[r], rows + 100, made.positions_px, 32, "amplitude", rows=rows)
    canvas = Canvas(np.ones((3, 4), np.complex64), np.ones((3, 4), np.float32), 0.0, 0.0)
    timing = Timing(2.0, 1.0, 0.1, 0.2)
    return Reconstruction(canvas, scan, 0.03, 196, 196, "cpu", "", timing, trust)


def test_verdict_stands_in_the_first_line_and_flags_by_kind(result: Reconstruction) -> None:
    lines = report.lines(result, [Path("o.npz")])
    assert lines[0] == "doubtful: object 3 x 4 px: o.npz"
    assert "--exclude flagged" in lines[1]
    assert "  flagged 6, the pattern lies beside the middle 120, 160, 161, 162, 220, 250" in lines


def test_json_says_the_same(result: Reconstruction) -> None:
    document = json.loads(json.dumps(report.document(result, [Path("o.npz")]), allow_nan=False))
    assert document["verdict"] == "doubtful"
    assert document["trusted"] is False
    assert [entry["frame"] for entry in document["flagged"]] == [120, 160, 161, 162, 220, 250]
    assert document["written"] == ["o.npz"]
