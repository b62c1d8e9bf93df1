"""`exports.json` as values; `parse` makes them of a file. Imports the standard library alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ptycho_runtime import contract
from ptycho_runtime.export.precision import Budget, PrecisionErrors
from ptycho_runtime.export.proof import Proof

FORMATS = ("onnx", "torchscript")
DOMAINS = ("amplitude", "counts")


@dataclass(frozen=True)
class StoredFile:
    """One exported file as a member of the bundle."""

    path: str
    sha256: str
    size_bytes: int
    precision: str | None = None
    opset: int | None = None
    """Of ONNX files."""
    ir_version: int | None = None
    """Of ONNX files."""


@dataclass(frozen=True)
class StoredGraph:
    """One exported graph in all its formats."""

    inputs: tuple[contract.TensorInfo, ...]
    outputs: tuple[contract.TensorInfo, ...]
    files: Mapping[str, StoredFile]
    """By format, `FORMATS`."""


@dataclass(frozen=True)
class SourceBundle:
    """Where the export came from."""

    name: str
    sha256: str
    """Of the source as it was when first exported."""
    members_sha256: str
    """Of PtychoPINN's own members, whatever archive they sit in."""
    ptychopinn_version: str


@dataclass(frozen=True)
class DataConvention:
    """What a pattern fed to the graphs must be."""

    domain: Literal["amplitude", "counts"]
    units: str
    axes: str
    dc_position: str


@dataclass(frozen=True)
class InputScale:
    """How the scan's `input_scale_factor` is made."""

    formula: contract.InputScaleFormula
    text: str
    value: float | None
    """Frozen by the bundle (CI profile), else computed once per scan."""


@dataclass(frozen=True)
class Positions:
    """How a pattern's offset from its group's centre is fed to `positions`."""

    sign: Literal[1, -1]
    """The offset is fed times this."""
    axes: str = contract.POSITION_AXES
    units: str = contract.POSITION_UNITS


@dataclass(frozen=True)
class PatternSet:
    """Patterns that a variant was made from or judged by."""

    sha256: str
    """Of the numbers as fed: diffraction, then input_scale_factor."""
    groups: int


@dataclass(frozen=True)
class StoredVariant:
    """A graph in reduced precision: beside float32, never instead of it."""

    graph: contract.GraphName
    engine: str
    """`openvino` on the CPU, `onnxruntime` on CUDA."""
    precision: str
    """Of the products that are not in int8."""
    int8_layers: tuple[str, ...]
    """Nodes of the ONNX file."""
    file: StoredFile
    """The graph's own ONNX file, one in which those layers are quantised, or one in float16."""
    budget: Budget
    errors: PrecisionErrors
    """On the held-back patterns, against eager float64."""
    calibration: PatternSet
    held_back: PatternSet
    times_as_fast: float | None
    """As the graph in float32 under onnxruntime, where it was made; None where not measured."""
    made_on: Mapping[str, str]
    """Processor, threads, engine versions."""


@dataclass(frozen=True)
class TrustBaseline:
    """What the model leaves unexplained on a scan that it was made for: medians over the patterns."""

    disagreement: float
    """Of overlapping patches."""
    stitched_residual: float | None = None
    """Of patterns against probe × stitched object; None where that scan had no probe."""

    def __str__(self) -> str:
        """Say it in words."""
        residual = self.stitched_residual
        beside = "" if residual is None else f", and probe × object leaves {residual:.3g} unexplained"
        return f"overlapping patches differ by {self.disagreement:.3g}{beside}"


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """What a host must know to feed an export: known from the weights alone, before any graph is made."""

    exporter_version: str
    bundle: SourceBundle
    spec: Mapping[str, Any]
    """The ModelSpec that was built, plain JSON values."""
    data: DataConvention
    input_scale: InputScale
    positions: Positions

    @property
    def N(self) -> int:
        """Side of a pattern, pixels."""
        return int(self.spec["N"])

    @property
    def gridsize(self) -> int:
        """Patterns along a side of a group."""
        return int(self.spec["gridsize"])

    @property
    def era(self) -> str:
        """Which releases of PtychoPINN trained the model; for people, nothing is computed from it."""
        return str(self.spec["era"])

    def metadata(self, graph: str) -> dict[str, str]:
        """Return the `metadata_props` of a graph's ONNX file, all of `contract.META_KEYS`: what a stranger with only that file reads."""
        scale = self.input_scale
        return {
            "graph": graph,
            "bundle_sha256": self.bundle.sha256,
            "ptychopinn_version": self.bundle.ptychopinn_version,
            "era": self.era,
            "generator": str(self.spec["generator"]),
            "N": str(self.N),
            "gridsize": str(self.gridsize),
            "scaling": str(self.spec["scaling"]),
            "data_domain": self.data.domain,
            "input_scale_formula": f"{scale.formula}: {scale.text}",
            "input_scale_value": "" if scale.value is None else repr(scale.value),
            "positions_sign": str(self.positions.sign),
            "axes": self.data.axes,
            "dc_position": self.data.dc_position,
            "units": self.data.units,
            "exporter_version": self.exporter_version,
        }


@dataclass(frozen=True, kw_only=True)
class ExportRecord(Conventions):
    """`exports.json` as a whole."""

    tools: Mapping[str, str]
    """Package → version."""
    params: Mapping[str, Any]
    """PtychoPINN's parameters, plain JSON values."""
    graphs: Mapping[str, StoredGraph]
    golden: StoredFile
    parity: Proof
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Graphs that a model has and the export has not, with the reason."""
    variants: tuple[StoredVariant, ...] = ()
    variant_patterns: StoredFile | None = None
    trust_baseline: TrustBaseline | None = None
