"""The one place that says what an export is called, what its tensors are, and in which words it is described.

Exporters write by this module and the runtime reads by it; `export/record.py` has what `exports.json` holds. It imports nothing but the
standard library.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypedDict

SCHEMA: Final = "ptycho-export/exports"
SCHEMA_VERSION: Final = 2
CREATOR: Final = "ptycho-runtime"  # the mark by which this project knows its own results again, in every format

GraphName = Literal["diffraction_to_obj", "autoencoder", "diffraction_to_obj_centre"]
DIFFRACTION_TO_OBJ: Final[GraphName] = "diffraction_to_obj"
AUTOENCODER: Final[GraphName] = "autoencoder"
# The central half of the object patches alone.
CENTRE: Final[GraphName] = "diffraction_to_obj_centre"
GRAPHS: Final[tuple[GraphName, ...]] = (DIFFRACTION_TO_OBJ, AUTOENCODER)
ALL_GRAPHS: Final[tuple[GraphName, ...]] = (*GRAPHS, CENTRE)
# Networks whose middle is less work than the whole; the others mix all pixels up to their end.
CENTRE_GENERATORS: Final = ("cnn", "unet")

# Members of an augmented bundle, beside PtychoPINN's own.
EXPORTS_JSON: Final = "exports.json"
GOLDEN_NPZ: Final = "golden.npz"
ONNX_FILE: Final = "model.onnx"
TORCHSCRIPT_FILE: Final = "model.torchscript.pt"
# Of variants in reduced precision.
INT8_FILE: Final = "model.int8.onnx"
FLOAT16_FILE: Final = "model.float16.onnx"
# DIFFRACTION, INPUT_SCALE, and OBJECT_REAL, OBJECT_IMAG as eager float64 gives them.
VARIANT_NPZ: Final = "variant_patterns.npz"

# Tensor names. C = gridsize**2 patterns of a group, N pixels a side, M = probe modes. Axis order is batch, channel, row, column.
DIFFRACTION: Final = "diffraction"  # [batch, C, N, N] float32, amplitudes (counts where exports.json says so)
INPUT_SCALE: Final = "input_scale_factor"  # [batch, 1, 1, 1] float32, fixed per scan
# [batch, C, 1, 2] float32, (x, y) offset of each pattern from its group's centre, pixels, times the export's `positions.sign`
POSITIONS: Final = "positions"
PROBE_REAL: Final = "probe_real"  # [modes, N, N] float32
PROBE_IMAG: Final = "probe_imag"  # [modes, N, N] float32
OUTPUT_SCALE: Final = "output_scale_factor"  # [batch, 1, 1, 1] float32
EXPERIMENT_ID: Final = "experiment_id"  # [batch] int64, only where the model has more than one dataset
# [batch, C, N, N] float32 (autoencoder of the UNet era: C or 1; CENTRE: [batch, C, N/2, N/2])
OBJECT_REAL: Final = "object_real"
OBJECT_IMAG: Final = "object_imag"
PREDICTED: Final = "predicted_diffraction"  # [batch, C, N, N] float32: amplitude, or intensity for rectangular physics
AMPLITUDE: Final = "amplitude"  # [batch, C or 1, N, N] float32
PHASE: Final = "phase"  # [batch, C or 1, N, N] float32, rad

BATCH_AXIS: Final = "batch"
MODES_AXIS: Final = "modes"

# Keys of the ONNX file's metadata_props: a stranger with only the .onnx can use it correctly.
META_PREFIX: Final = "ptycho_export."
META_KEYS: Final = (
    "graph",  # one of ALL_GRAPHS
    "bundle_sha256",
    "ptychopinn_version",  # manifest version, e.g. 2.0-pytorch
    "era",
    "generator",
    "N",
    "gridsize",
    "scaling",  # as-trained or as-reloaded
    "data_domain",  # amplitude or counts
    "input_scale_formula",
    "input_scale_value",  # empty unless frozen by the bundle
    "positions_sign",  # 1 or -1; files of version 0.1 lack it
    "axes",  # AXES
    "dc_position",  # DC_POSITION
    "units",
    "exporter_version",
)
AXES: Final = "batch, channel (pattern in group), row (y, downwards), column (x, to the right)"
DC_POSITION: Final = "centre: pixel [N//2, N//2]"
POSITION_AXES: Final = "x (to the right), y (downwards)"
POSITION_UNITS: Final = "object pixels, from the group's centre"
# What a pattern's values are, by domain.
UNITS: Final[dict[str, str]] = {
    "amplitude": "amplitude: square root of photon counts per pixel",
    "counts": "photon counts per pixel",
}

# golden.npz: for each graph and tensor, `GRAPH.input.NAME` (as fed), `GRAPH.reference.NAME` (float64, eager on CPU) and
# `GRAPH.allowed.NAME` (float64 [2]: largest allowed max-abs error and relative L2 error of a float32 runtime).
GOLDEN_KINDS: Final = ("input", "reference", "allowed")

# How `input_scale_factor` is computed from a scan (d = what the network is fed, before scaling). Sums over pixels, mean over frames.
InputScaleFormula = Literal["half_n_over_rms", "n_over_rms"]
INPUT_SCALE_FORMULAS: Final[dict[str, str]] = {
    "half_n_over_rms": "sqrt((N/2)^2 / mean_over_frames(sum_over_pixels(d^2))); 1 if the data are all zero",
    "n_over_rms": "sqrt(N^2 / mean_over_frames(sum_over_pixels(d^2))); 1 if the data are all zero",
}


class TensorInfo(TypedDict):
    """One input or output of a graph; a dimension is a fixed size or the name of a dynamic axis."""

    name: str
    shape: list[int | str]
    dtype: str  # "float32" or "int64"


def centre(N: int) -> slice:
    """Return the rows, and columns, of a patch of N pixels that `CENTRE` gives."""
    return slice(N // 4, N // 4 + N // 2)


def onnx_member(graph: str) -> str:
    """Return the member name of a graph's ONNX file inside the bundle."""
    return f"{graph}/{ONNX_FILE}"


def int8_member(graph: str) -> str:
    """Return the member name of a graph's ONNX file with quantised layers inside the bundle."""
    return f"{graph}/{INT8_FILE}"


def float16_member(graph: str) -> str:
    """Return the member name of a graph's ONNX file in float16 inside the bundle."""
    return f"{graph}/{FLOAT16_FILE}"


def torchscript_member(graph: str) -> str:
    """Return the member name of a graph's TorchScript file inside the bundle."""
    return f"{graph}/{TORCHSCRIPT_FILE}"


def export_members(graphs: Iterable[str] = ALL_GRAPHS) -> tuple[str, ...]:
    """Return the names of all members that an export of these graphs adds or replaces."""
    return (*(m(g) for g in graphs for m in (onnx_member, torchscript_member)), EXPORTS_JSON, GOLDEN_NPZ)
