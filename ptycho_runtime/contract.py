"""The one place that says what an export is called, what its tensors are, and what `exports.json` holds.

Exporters write by this module and the runtime reads by it. It imports nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NotRequired, TypedDict

SCHEMA: Final = "ptycho-export/exports"
SCHEMA_VERSION: Final = 1

GraphName = Literal["diffraction_to_obj", "autoencoder", "diffraction_to_obj_centre"]
GRAPHS: Final[tuple[GraphName, ...]] = ("diffraction_to_obj", "autoencoder")
CENTRE: Final[GraphName] = (
    "diffraction_to_obj_centre"  # CNN and UNet models: the central half of the object patches alone
)
ALL_GRAPHS: Final[tuple[GraphName, ...]] = (*GRAPHS, CENTRE)

# Members of an augmented bundle, beside PtychoPINN's own.
EXPORTS_JSON: Final = "exports.json"
GOLDEN_NPZ: Final = "golden.npz"
ONNX_FILE: Final = "model.onnx"
TORCHSCRIPT_FILE: Final = "model.torchscript.pt"
INT8_FILE: Final = "model.int8.onnx"  # of a variant in reduced precision
FLOAT16_FILE: Final = "model.float16.onnx"
VARIANT_NPZ: Final = (
    "variant_patterns.npz"  # DIFFRACTION, INPUT_SCALE, and OBJECT_REAL, OBJECT_IMAG as eager float64 gives them
)

# Tensor names. C = gridsize**2 patterns of a group, N pixels a side, M = probe modes. Axis order is batch, channel, row, column.
DIFFRACTION: Final = "diffraction"  # [batch, C, N, N] float32, amplitudes (counts where exports.json says so)
INPUT_SCALE: Final = "input_scale_factor"  # [batch, 1, 1, 1] float32, fixed per scan
POSITIONS: Final = "positions"  # [batch, C, 1, 2] float32, (x, y) offset of each pattern from its group's centre, pixels, times positions_sign(era)
PROBE_REAL: Final = "probe_real"  # [modes, N, N] float32
PROBE_IMAG: Final = "probe_imag"  # [modes, N, N] float32
OUTPUT_SCALE: Final = "output_scale_factor"  # [batch, 1, 1, 1] float32
EXPERIMENT_ID: Final = "experiment_id"  # [batch] int64, only where the model has more than one dataset
OBJECT_REAL: Final = (
    "object_real"  # [batch, C, N, N] float32 (autoencoder of the UNet era: C or 1; CENTRE: [batch, C, N/2, N/2])
)
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
    "axes",  # AXES
    "dc_position",  # DC_POSITION
    "units",
    "exporter_version",
)
AXES: Final = "batch, channel (pattern in group), row (y, downwards), column (x, to the right)"
DC_POSITION: Final = "centre: pixel [N//2, N//2]"

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


class FileInfo(TypedDict, total=False):
    """One exported file as a member of the bundle."""

    path: str
    sha256: str
    size_bytes: int
    precision: str  # "float32"
    opset: int  # ONNX only
    ir_version: int  # ONNX only


class GraphInfo(TypedDict):
    """One exported graph in all its formats."""

    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    files: dict[str, FileInfo]  # "onnx", "torchscript"


class BundleInfo(TypedDict):
    """Where the export came from."""

    name: str
    sha256: str  # of the source as it was when first exported
    members_sha256: str  # of PtychoPINN's own members, whatever archive they sit in
    ptychopinn_version: str


class DataInfo(TypedDict):
    """What a pattern fed to the graphs must be."""

    domain: Literal["amplitude", "counts"]
    units: str
    axes: str
    dc_position: str


class InputScaleInfo(TypedDict):
    """How the scan's `input_scale_factor` is made."""

    formula: InputScaleFormula
    text: str
    value: float | None  # frozen by the bundle (CI profile), else computed once per scan


class PatternsInfo(TypedDict):
    """Patterns that a variant was made from or judged by."""

    sha256: str  # of the numbers as fed: diffraction, then input_scale_factor
    groups: int


class VariantInfo(TypedDict):
    """A graph in reduced precision: beside float32, never instead of it."""

    graph: GraphName
    engine: Literal["openvino", "onnxruntime"]  # on the CPU; on CUDA
    precision: Literal[
        "float32", "bfloat16", "float16"
    ]  # of the products that are not in int8; float16 under onnxruntime
    int8_layers: list[str]  # nodes of the ONNX file
    file: FileInfo  # the graph's own ONNX file, one in which those layers are quantised, or one in float16
    budget: dict[str, float]  # phase_rad, amplitude_rel
    errors: dict[str, float]  # the same, on the held-back patterns, against eager float64
    calibration: PatternsInfo
    held_back: PatternsInfo
    times_as_fast: float | None  # as the graph in float32 under onnxruntime, where it was made; None where not measured
    made_on: dict[str, str]  # processor, threads, engine versions


class ParityRowInfo(TypedDict, total=False):
    """One row of the parity verdict."""

    graph: str
    runtime: str
    device: str
    precision: str
    batch: int
    inputs: str
    verdict: Literal["passed", "failed", "not run"]
    reason: str
    outputs: dict[str, dict[str, float]]  # output name -> metric -> figure


class ParityInfo(TypedDict):
    """The parity verdict stored with the exports; the whole report lies beside the bundle as parity.json."""

    verdict: Literal["passed", "failed"]
    rule: str
    rows: list[ParityRowInfo]


class ExportsInfo(TypedDict):
    """`exports.json` as a whole."""

    schema: str
    schema_version: int
    exporter_version: str
    tools: dict[str, str]  # package -> version
    bundle: BundleInfo
    spec: dict[str, object]  # the ModelSpec that was built, plain JSON values
    data: DataInfo
    input_scale: InputScaleInfo
    params: dict[str, object]  # PtychoPINN's parameters, plain JSON values
    graphs: dict[str, GraphInfo]
    golden: FileInfo
    parity: ParityInfo
    variants: NotRequired[list[VariantInfo]]
    variant_patterns: NotRequired[FileInfo]


def positions_sign(era: str) -> float:
    """Return the sign of the offsets fed to `positions`: models since 2026-06 (V, J0, J) were trained on the negative ones."""
    return -1.0 if era in ("V", "J0", "J") else 1.0


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
