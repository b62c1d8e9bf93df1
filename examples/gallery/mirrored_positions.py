"""The same scan with its y axis the wrong way round: the image still looks like one, and the verdict says not to believe it."""

import ptycho_runtime
from ptycho_runtime import ReadOptions, demo

with (
    ptycho_runtime.open(demo.MODEL) as model,
    ptycho_runtime.read_scan(demo.SCAN, model.export.N, ReadOptions(domain="intensity", flip_y=True)) as scan,
):
    result = model.reconstruct(scan)
result.save("mirrored_positions.h5", figure="mirrored_positions.figure.png")
print(result.trust.verdict, *result.trust.reasons, sep="\n")
