"""What `exports.json` and the ONNX files say of themselves: made from a bundle's weights, written, and compared with what is stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import onnx

from exporters.formats.onnx import OPSET
from exporters.graph.graphs import Graph
from exporters.parity.independent import rows as independent
from exporters.parity.report import ParityReport
from ptycho_runtime import contract
from ptycho_runtime.export.proof import OBJECT, Proof, ProofRow
from ptycho_runtime.export.record import (
    Conventions,
    DataConvention,
    ExportRecord,
    InputScale,
    Positions,
    SourceBundle,
    StoredFile,
    StoredGraph,
)
from ptycho_torch import params as params_module
from ptycho_torch.bundle import BundleRecord
from ptycho_torch.errors import ConfigurationError
from ptycho_torch.spec import ModelSpec

_TOOLS = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime-gpu", "onnxruntime", "numpy")
_CHECKPOINT_VERSION = "checkpoint"


def conventions(spec: ModelSpec, bundle: BundleRecord, name: str) -> Conventions:
    """Return what a host must know to feed a bundle's exports; raises `ConfigurationError` for a frozen scale that is no number.

    Args:
        spec: what the bundle's model is.
        bundle: where it comes from.
        name: the bundle's, without its archive suffix.
    """
    return Conventions(
        exporter_version=version("ptycho-export"),
        bundle=_source(bundle, name),
        spec=params_module.plain(spec.to_json()),
        data=DataConvention(
            spec.measurement_domain, contract.UNITS[spec.measurement_domain], contract.AXES, contract.DC_POSITION
        ),
        input_scale=input_scale(spec, bundle),
        positions=Positions(spec.rules.positions_sign),
    )


def input_scale(spec: ModelSpec, bundle: BundleRecord) -> InputScale:
    """Return how the scan's `input_scale_factor` is made: the era's own formula, or the value training froze.

    Raises `ConfigurationError` for frozen statistics that are no single positive number.
    """
    formula = spec.rules.input_scale_formula
    return InputScale(formula, contract.INPUT_SCALE_FORMULAS[formula], _frozen_scale(bundle))


def _frozen_scale(bundle: BundleRecord) -> float | None:
    holder = bundle.metadata or bundle.checkpoint or {}
    statistics = holder.get("ci_statistics")
    if not isinstance(statistics, Mapping) or "rms_input_scale" not in statistics:
        return None
    stored = statistics["rms_input_scale"]
    values = stored.tolist() if hasattr(stored, "tolist") else stored
    while isinstance(values, (list, tuple)) and len(values) == 1:
        values = values[0]
    if isinstance(values, (list, tuple)):
        return None  # one per training dataset: which of them a new scan belongs to is not known, so it is computed
    if isinstance(values, bool) or not isinstance(values, (int, float)) or not 0.0 < values < 1e30:
        raise ConfigurationError(
            f"{bundle.path.name}: ci_statistics.rms_input_scale is {stored!r}; expected a positive number"
        )
    return float(values)


def _source(bundle: BundleRecord, name: str) -> SourceBundle:
    """Return where an export comes from; a second export of a bundle keeps the digest of its first source."""
    earlier = (bundle.exports or {}).get("bundle", {})
    first = earlier.get("sha256") if earlier.get("members_sha256") == bundle.members_sha256 else None
    return SourceBundle(
        name,
        first if isinstance(first, str) else bundle.sha256,
        bundle.members_sha256,
        str((bundle.manifest or {}).get("version", _CHECKPOINT_VERSION)),
    )


def exports_record(
    known: Conventions,
    params: Mapping[str, Any],
    graphs: Mapping[str, Graph],
    files: Mapping[str, Mapping[str, bytes]],
    golden: bytes,
    report: ParityReport,
) -> ExportRecord:
    """Return `exports.json` but for variants; equal exports give equal content, so no times and no host names are in it.

    Args:
        known: what is known from the weights.
        params: PtychoPINN's parameters.
        graphs: the graphs that were made.
        files: their files, by graph and format.
        golden: `golden.npz`.
        report: what proved them.
    """
    tools = {}
    for package in _TOOLS:
        try:
            tools[package] = version(package)
        except PackageNotFoundError:
            continue
    return ExportRecord(
        **{entry.name: getattr(known, entry.name) for entry in fields(Conventions)},
        tools=tools,
        params=params_module.plain(params),
        graphs={name: _stored_graph(graph, files[name]) for name, graph in graphs.items()},
        golden=stored_file(contract.GOLDEN_NPZ, golden),
        parity=stored_proof(report),
    )


def _stored_graph(graph: Graph, files: Mapping[str, bytes]) -> StoredGraph:
    model = onnx.load_from_string(files["onnx"])
    script = stored_file(contract.torchscript_member(graph.name), files["torchscript"])
    return StoredGraph(
        graph.inputs,
        graph.outputs,
        {
            "onnx": replace(
                stored_file(contract.onnx_member(graph.name), files["onnx"]),
                precision="float32",
                opset=OPSET,
                ir_version=model.ir_version,
            ),
            "torchscript": replace(script, precision="float32"),
        },
    )


def stored_proof(report: ParityReport) -> Proof:
    """Return the verdict as `exports.json` keeps it: without what differs by host or threads, so that equal exports have equal bytes.

    The figures of the independent evaluation are numpy's rounding, and those of an object as a whole judge nothing; they stand in
    parity.json.
    """
    rows = tuple(
        ProofRow(
            row.graph,
            row.runtime,
            row.device,
            row.precision,
            row.batch,
            row.inputs,
            row.verdict,
            row.reason,
            {} if row.runtime == independent.RUNTIME else _without_object(row.outputs),
        )
        for row in report.rows
    )
    return Proof("passed" if report.passed else "failed", report.rule, rows)


def _without_object(outputs: Mapping[str, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
    return {name: figures for name, figures in outputs.items() if name != OBJECT}


def stored_file(path: str, data: bytes) -> StoredFile:
    """Return a member as `exports.json` lists it."""
    return StoredFile(path, hashlib.sha256(data).hexdigest(), len(data))


def dumps(record: ExportRecord) -> bytes:
    """Return `exports.json` as bytes; `ptycho_runtime.export.record.parse` gives the record again."""
    document = {
        "schema": contract.SCHEMA,
        "schema_version": contract.SCHEMA_VERSION,
        **{name: value for name, value in asdict(record).items() if name not in _EMPTY or value},
    }
    return (json.dumps(_without_none_files(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


# Left out where there is nothing to say.
_EMPTY = ("left_out", "variants", "variant_patterns", "trust_baseline")
_FILE_FIELDS = {entry.name for entry in fields(StoredFile)}


def _without_none_files(value: Any) -> Any:
    """Return a JSON value whose files say only what they have."""
    if isinstance(value, Mapping):
        kept = value
        if set(value) == _FILE_FIELDS:
            kept = {name: item for name, item in value.items() if item is not None}
        return {name: _without_none_files(item) for name, item in kept.items()}
    if isinstance(value, (list, tuple)):
        return [_without_none_files(item) for item in value]
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)
    return value


def differences(stored: ExportRecord, known: Conventions, params: Mapping[str, Any]) -> list[str]:
    """Return what a stored `exports.json` says otherwise than the weights do, a line each, named by field.

    Args:
        stored: as it lies in the bundle.
        known: computed anew from the weights.
        params: PtychoPINN's parameters as the bundle gives them.
    """
    # Which source and which release made the export is not in the weights.
    anew = replace(
        known,
        exporter_version=stored.exporter_version,
        bundle=replace(known.bundle, sha256=stored.bundle.sha256, name=stored.bundle.name),
    )
    said = {entry.name: getattr(stored, entry.name) for entry in fields(Conventions)}
    if stored.exporter_version != known.exporter_version:
        # An older release does not know the fields that came since.
        anew = replace(anew, spec={name: value for name, value in anew.spec.items() if name in stored.spec})
    lines = list(_differing(_plain(said), _plain(asdict(anew)), ""))
    lines += _differing(_plain(stored.params), _plain(params_module.plain(params)), "params.")
    return [f"{contract.EXPORTS_JSON}: {line}" for line in lines]


def _plain(value: Any) -> dict[str, Any]:
    return json.loads(json.dumps(value, default=asdict))  # type: ignore[no-any-return]  # an object by its callers


def _differing(stored: Mapping[str, Any], anew: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in sorted({*stored, *anew}):
        place = f"{path}{name}"
        if name not in anew:
            yield f"{place} is {stored[name]!r}; the weights have no such field"
        elif name not in stored:
            yield f"lacks {place}; the weights give {anew[name]!r}"
        elif isinstance(stored[name], dict) and isinstance(anew[name], dict):
            yield from _differing(stored[name], anew[name], f"{place}.")
        elif stored[name] != anew[name]:
            yield f"{place} is {stored[name]!r}; the weights give {anew[name]!r}"
