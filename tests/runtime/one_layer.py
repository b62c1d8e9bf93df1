"""An exported model of one layer and scans for it: what is done with many scans is tried without a real network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper as h
from onnx import numpy_helper

from ptycho_runtime import contract

N = 32
_FORMULA = "half_n_over_rms"


def write_model(path: Path, gridsize: int = 1, domain: str = "amplitude", *, flat: bool = False) -> Path:
    """Write a `.onnx` whose object is a blurred pattern and that pattern's edges, each pattern of a group by itself; or 1 everywhere."""
    C = gridsize**2
    shape = [contract.BATCH_AXIS, C, N, N]
    inputs = [
        h.make_tensor_value_info(contract.DIFFRACTION, onnx.TensorProto.FLOAT, shape),
        h.make_tensor_value_info(contract.INPUT_SCALE, onnx.TensorProto.FLOAT, [contract.BATCH_AXIS, 1, 1, 1]),
    ]
    outputs = [
        h.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name in (contract.OBJECT_REAL, contract.OBJECT_IMAG)
    ]
    blur = np.tile(np.outer([1, 2, 1], [1, 2, 1]) / 16, (C, 1, 1, 1)).astype(np.float32)
    edges = np.tile(np.outer([1, 0, -1], [1, 2, 1]) / 16, (C, 1, 1, 1)).astype(np.float32)
    level = np.full(C, float(flat), np.float32)
    convolution = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "group": C}
    nodes = [
        h.make_node("Mul", [contract.DIFFRACTION, contract.INPUT_SCALE], ["scaled"]),
        h.make_node("Conv", ["scaled", "blur", "level"], [contract.OBJECT_REAL], **convolution),
        h.make_node("Conv", ["scaled", "edges"], [contract.OBJECT_IMAG], **convolution),
    ]
    named = {"blur": blur * (not flat), "edges": edges * (not flat), "level": level}
    weights = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in named.items()]
    graph = h.make_graph(nodes, "one layer", inputs, outputs, initializer=weights)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 20)], ir_version=10)
    told = {
        "graph": contract.DIFFRACTION_TO_OBJ,
        "bundle_sha256": "0" * 64,
        "ptychopinn_version": "2.0-pytorch",
        "era": "J",
        "generator": "cnn",
        "N": str(N),
        "gridsize": str(gridsize),
        "scaling": "as-trained",
        "data_domain": domain,
        "input_scale_formula": f"{_FORMULA}: {contract.INPUT_SCALE_FORMULAS[_FORMULA]}",
        "input_scale_value": "",
        "positions_sign": "-1",
        "axes": contract.AXES,
        "dc_position": contract.DC_POSITION,
        "units": contract.UNITS[domain],
        "exporter_version": "0.2.0",
    }
    h.set_model_props(model, {f"{contract.META_PREFIX}{key}": value for key, value in told.items()})
    path.write_bytes(model.SerializeToString())
    return path


def write_scan(path: Path, seed: int = 0, side: int = 6, *, probe: bool = False) -> Path:
    """Write a scan of side² patterns on a raster with jitter, in no order."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) * 4.0
    x, y = (rng.permutation(grid) + rng.uniform(-0.7, 0.7, grid.shape) + 40).T
    k = np.arange(N) - N // 2
    spot = np.exp(-(k[:, None] ** 2 + k**2) / 40)
    patterns = np.sqrt(rng.poisson(300 * spot * (1 + 0.3 * np.sin(x / 5 + y / 7))[:, None, None])).astype(np.float32)
    arrays = {"diff3d": patterns, "xcoords": x, "ycoords": y}
    if probe:
        arrays["probeGuess"] = (spot * np.exp(0.3j * spot)).astype(np.complex64)
    np.savez(path, **arrays)
    return path
