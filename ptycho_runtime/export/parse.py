"""`exports.json` is parsed once, strictly, by everybody who opens an export. Imports the standard library alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from ptycho_runtime import contract
from ptycho_runtime.errors import DamagedExportError, NotExportedError
from ptycho_runtime.export.json_fields import Field, strict_json
from ptycho_runtime.export.precision import (
    MOST_AMPLITUDE_REL,
    MOST_PHASE_RAD,
    VARIANT_PRECISIONS,
    Budget,
    PrecisionErrors,
)
from ptycho_runtime.export.proof import parse_proof
from ptycho_runtime.export.record import (
    DOMAINS,
    FORMATS,
    DataConvention,
    ExportRecord,
    InputScale,
    PatternSet,
    Positions,
    SourceBundle,
    StoredFile,
    StoredGraph,
    StoredVariant,
    TrustBaseline,
)
from ptycho_runtime.files import printable

MAX_MEMBER_BYTES = 2 << 30  # protobuf's own limit for one file
MAX_SIDE_PX = 4096
MAX_GRIDSIZE = 16
READABLE_VERSIONS = (1, contract.SCHEMA_VERSION)
# Models since 2026-06 were trained on negative offsets; exports of version 1 do not say so themselves.
NEGATIVE_IN_VERSION_1 = frozenset({"V", "J0", "J"})


def parse(document: bytes | Mapping[str, Any], label: str) -> ExportRecord:
    """Return what an `exports.json` says.

    Args:
        document: the file's bytes, or its JSON value.
        label: the bundle's name, for messages.

    Raises:
        NotExportedError: it is of another schema, or of a version that this release does not know.
        DamagedExportError: a field is missing, of another kind, or does not follow from the others; the message names it.
    """
    label = f"{label}: {contract.EXPORTS_JSON}"
    value = strict_json(document, label) if isinstance(document, bytes) else document
    top = Field(value, label)
    said = (top.mapping().get("schema"), top.mapping().get("schema_version"))
    if said[0] != contract.SCHEMA or isinstance(said[1], bool) or said[1] not in READABLE_VERSIONS:
        raise NotExportedError(
            f"{label} has schema {printable(said)}; expected {contract.SCHEMA!r} of version "
            f"{' or '.join(map(str, READABLE_VERSIONS))}; export the bundle again"
        )
    spec = _spec(top["spec"])
    data = _data(top["data"], spec)
    graphs = _graphs(top["graphs"])
    variants, patterns = _variants(top, graphs)
    return ExportRecord(
        exporter_version=top["exporter_version"].text(),
        tools=_texts(top["tools"]),
        bundle=_source(top["bundle"]),
        spec=spec,
        data=data,
        input_scale=_input_scale(top["input_scale"]),
        positions=_positions(top, spec),
        params=_plain_object(top["params"]),
        graphs=graphs,
        golden=_file(top["golden"], contract.GOLDEN_NPZ),
        parity=parse_proof(top["parity"], graphs),
        left_out=_left_out(top, graphs, spec),
        variants=variants,
        variant_patterns=patterns,
        trust_baseline=_trust_baseline(top.get("trust_baseline")),
    )


def _texts(entries: Field) -> dict[str, str]:
    return {key: value.text() for key, value in entries.items()}


def _plain_object(entry: Field) -> dict[str, Any]:
    entry.mapping()
    return cast(dict[str, Any], entry.plain())


def _spec(entry: Field) -> dict[str, Any]:
    entry["N"].whole(1, MAX_SIDE_PX)
    entry["gridsize"].whole(1, MAX_GRIDSIZE)
    for name in ("era", "generator", "scaling"):
        entry[name].text(64)
    return _plain_object(entry)


def _data(entry: Field, spec: Mapping[str, Any]) -> DataConvention:
    domain = entry["domain"].one_of(DOMAINS)
    if domain != spec.get("measurement_domain"):
        raise entry["domain"].fault(f"{spec.get('measurement_domain')!r}, as spec.measurement_domain has it")
    return DataConvention(
        cast(Literal["amplitude", "counts"], domain),
        entry["units"].one_of((contract.UNITS[domain],)),
        entry["axes"].one_of((contract.AXES,)),
        entry["dc_position"].one_of((contract.DC_POSITION,)),
    )


def _input_scale(entry: Field) -> InputScale:
    formula = entry["formula"].one_of(contract.INPUT_SCALE_FORMULAS)
    text = entry["text"].one_of((contract.INPUT_SCALE_FORMULAS[formula],))
    value = entry["value"]
    return InputScale(
        cast(contract.InputScaleFormula, formula), text, None if value.value is None else value.positive()
    )


def _positions(top: Field, spec: Mapping[str, Any]) -> Positions:
    if top.mapping()["schema_version"] == 1:
        return Positions(-1 if spec["era"] in NEGATIVE_IN_VERSION_1 else 1)
    entry = top["positions"]
    sign = entry["sign"].whole(-1, 1)
    if sign == 0:
        raise entry["sign"].fault("1 or -1")
    return Positions(
        cast(Literal[1, -1], sign),
        entry["axes"].one_of((contract.POSITION_AXES,)),
        entry["units"].one_of((contract.POSITION_UNITS,)),
    )


def _trust_baseline(entry: Field | None) -> TrustBaseline | None:
    if entry is None:
        return None
    residual = entry.get("stitched_residual")
    return TrustBaseline(entry["disagreement"].positive(), None if residual is None else residual.positive())


def _source(entry: Field) -> SourceBundle:
    return SourceBundle(
        entry["name"].text(),
        entry["sha256"].digest(),
        entry["members_sha256"].digest(),
        entry["ptychopinn_version"].text(),
    )


def _graphs(entries: Field) -> dict[str, StoredGraph]:
    graphs: dict[str, StoredGraph] = {}
    for name, entry in entries.items():
        if name not in contract.ALL_GRAPHS:
            raise DamagedExportError(
                f"{entries.label}: graphs names {printable(name)}; expected {', '.join(contract.ALL_GRAPHS)}"
            )
        files = entry["files"]
        if set(files.mapping()) != set(FORMATS):
            raise files.fault(f"the formats {' and '.join(FORMATS)}")
        graphs[name] = StoredGraph(
            tuple(_tensor(tensor) for tensor in entry["inputs"].each()),
            tuple(_tensor(tensor) for tensor in entry["outputs"].each()),
            {
                "onnx": _file(files["onnx"], contract.onnx_member(name)),
                "torchscript": _file(files["torchscript"], contract.torchscript_member(name)),
            },
        )
    if contract.DIFFRACTION_TO_OBJ not in graphs:
        raise DamagedExportError(
            f"{entries.label}: graphs lacks {contract.DIFFRACTION_TO_OBJ}; export the bundle again"
        )
    return graphs


def _tensor(entry: Field) -> contract.TensorInfo:
    shape: list[int | str] = [
        size.text(64) if isinstance(size.value, str) else size.whole(1, 1 << 31) for size in entry["shape"].each()
    ]
    return {"name": entry["name"].text(64), "shape": shape, "dtype": entry["dtype"].one_of(("float32", "int64"))}


def _file(entry: Field, path: str) -> StoredFile:
    """Return a member; a host opens the file of one name only, so no other one is taken."""
    precision, opset, ir_version = (entry.get(name) for name in ("precision", "opset", "ir_version"))
    return StoredFile(
        entry["path"].one_of((path,)),
        entry["sha256"].digest(),
        entry["size_bytes"].whole(1, MAX_MEMBER_BYTES),
        None if precision is None else precision.one_of(("float32",)),
        None if opset is None else opset.whole(1, 1000),
        None if ir_version is None else ir_version.whole(1, 1000),
    )


def _left_out(top: Field, graphs: Mapping[str, StoredGraph], spec: Mapping[str, Any]) -> dict[str, str]:
    """Return what the export lacks and why; a graph that is neither there nor explained was taken away."""
    entry = top.get("left_out")
    reasons = {} if entry is None else _texts(entry)
    promised = [*contract.GRAPHS, *([contract.CENTRE] if spec["generator"] in contract.CENTRE_GENERATORS else [])]
    # Version 1 explains nothing; there only the object graphs are certain.
    if top.mapping()["schema_version"] == 1:
        promised.remove(contract.AUTOENCODER)
    lacking = [name for name in promised if name not in graphs and name not in reasons]
    if lacking:
        raise DamagedExportError(
            f"{top.label}: graphs lacks {', '.join(lacking)}, which a model of this kind has; export the bundle again"
        )
    return reasons


def _variants(top: Field, graphs: Mapping[str, StoredGraph]) -> tuple[tuple[StoredVariant, ...], StoredFile | None]:
    entries = top.get("variants")
    variants = () if entries is None else tuple(_variant(entry, graphs) for entry in entries.each())
    if not variants:
        return (), None
    return variants, _file(top["variant_patterns"], contract.VARIANT_NPZ)


def _variant(entry: Field, graphs: Mapping[str, StoredGraph]) -> StoredVariant:
    graph = cast(contract.GraphName, entry["graph"].one_of(graphs))
    engine = entry["engine"].one_of(VARIANT_PRECISIONS)
    precision = entry["precision"].one_of(VARIANT_PRECISIONS[engine])
    layers = tuple(layer.text() for layer in entry["int8_layers"].each())
    own = contract.int8_member(graph) if layers else contract.onnx_member(graph)
    member = contract.float16_member(graph) if engine == "onnxruntime" else own
    speed = entry.get("times_as_fast")
    return StoredVariant(
        graph,
        engine,
        precision,
        layers,
        _file(entry["file"], member),
        Budget(
            entry["budget"]["phase_rad"].positive(MOST_PHASE_RAD),
            entry["budget"]["amplitude_rel"].positive(MOST_AMPLITUDE_REL),
        ),
        PrecisionErrors(entry["errors"]["phase_rad"].number(0.0), entry["errors"]["amplitude_rel"].number(0.0)),
        _patterns(entry["calibration"]),
        _patterns(entry["held_back"]),
        None if speed is None else speed.positive(),
        _texts(entry["made_on"]),
    )


def _patterns(entry: Field) -> PatternSet:
    return PatternSet(entry["sha256"].digest(), entry["groups"].whole(1, 1 << 31))
