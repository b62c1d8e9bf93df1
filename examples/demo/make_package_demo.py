"""Make the model and the scan that come with the package: `python examples/demo/make_package_demo.py EXPORTED_DEMO.zip`.

The scan is a part of `scan.npz` beside this file, as photon counts. The model is the exported `diffraction_to_obj` graph; what is
large in it is stored in half precision and cast to float32 when it is opened. Equal inputs give equal bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ptycho_runtime import demo
from ptycho_runtime.contract import DIFFRACTION_TO_OBJ
from ptycho_runtime.export.bundle import open_export
from ptycho_runtime.files import replacing

SCAN = Path(__file__).with_name("scan.npz")
# Of the positions, pixels: 148 patterns, enough for the verdict to compare.
FROM_PX, TO_PX = 75, 185
# Smaller arrays stay as they are.
_HALVED_FROM = 256


def halved(model: bytes) -> bytes:
    """Return an ONNX file whose large float32 arrays are stored in half precision."""
    proto = onnx.load_from_string(model)
    graph = proto.graph
    casts, arrays = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _HALVED_FROM:
            arrays.append(tensor)
            continue
        name = f"{tensor.name}.half"
        arrays.append(numpy_helper.from_array(values.astype(np.float16), name))
        casts.append(helper.make_node("Cast", [name], [tensor.name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(arrays)
    graph.node.extend(nodes)
    return proto.SerializeToString(deterministic=True)


def part_of_the_scan() -> dict[str, np.ndarray]:
    """Return the arrays of the demo's scan within a square, patterns as counts."""
    with np.load(SCAN) as data:
        positions = np.stack([data["xcoords"], data["ycoords"]])
        inside = ((positions >= FROM_PX) & (positions < TO_PX)).all(0)
        counts = np.rint(data["diff3d"][inside].astype(np.float64) ** 2).astype(np.uint16)
        return {
            "diff3d": counts,
            "xcoords": data["xcoords"][inside],
            "ycoords": data["ycoords"][inside],
            "probeGuess": data["probeGuess"],
        }


def main() -> None:
    """Write both files into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exported", type=Path, help="the exported demo")
    model = halved(open_export(parser.parse_args().exported).graphs[DIFFRACTION_TO_OBJ])
    with replacing(demo.MODEL) as file:
        file.write(model)
    with replacing(demo.SCAN) as file:
        np.savez_compressed(file, **part_of_the_scan())


if __name__ == "__main__":
    main()
