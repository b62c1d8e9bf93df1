"""Every twelfth frame has the pattern of another place: those are flagged, named and can be left out."""

import numpy as np

import ptycho_runtime
from ptycho_runtime import ReadOptions, Scan, demo

with ptycho_runtime.read_scan(demo.SCAN, 64, ReadOptions(domain="intensity")) as scan:
    rows = np.arange(len(scan))
    counts = scan.patterns(rows, 64, "amplitude") ** 2
wrong = rows[::12]
counts[wrong] = counts[np.roll(wrong, 5)]
spoilt = Scan("spoilt", lambda which: counts[which], rows, scan.positions_px, 64, "intensity", probe=scan.probe)
with ptycho_runtime.open(demo.MODEL) as model:
    result = model.reconstruct(spoilt)
    result.save("bad_frames.h5", figure="bad_frames.figure.png")
    flagged = result.scan.frames[result.trust.flagged]
    print(f"{result.trust.verdict}; flagged: {flagged.tolist()}")
    print("without them:", model.reconstruct(spoilt.without(flagged)).trust.verdict)
