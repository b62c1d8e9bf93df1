"""A scan to a picture: amplitude, phase, how far patches spread, and whether they agree."""

import ptycho_runtime
from ptycho_runtime import ReadOptions, demo

with (
    ptycho_runtime.open(demo.MODEL) as model,
    ptycho_runtime.read_scan(demo.SCAN, model.export.N, ReadOptions(domain="intensity", pixel_size_m=2.5e-8)) as scan,
):
    result = model.reconstruct(scan)
result.save("first_picture.h5", figure="first_picture.figure.png")
