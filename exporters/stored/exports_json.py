"""What `exports.json` and the ONNX files say of themselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import onnx

from exporters.formats.onnx import OPSET
from exporters.graph.graphs import graph_io
from exporters.parity.report import ParityReport
from ptycho_runtime import contract as c
from ptycho_torch import params as params_module
from ptycho_torch.bundle import BundleRecord
from ptycho_torch.errors import ConfigurationError
from ptycho_torch.spec import ModelSpec

_TOOLS = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime-gpu", "onnxruntime", "numpy")
_CHECKPOINT_VERSION = "checkpoint"


def exporter_version() -> str:
    """Return this project's version."""
    return version("ptycho-export")


def input_scale(spec: ModelSpec, record: BundleRecord) -> c.InputScaleInfo:
    """Return how the scan's `input_scale_factor` is made: the era's own formula, or the value training froze.

    Raises `ConfigurationError` for frozen statistics that are no single positive number.
    """
    formula = spec.rules.input_scale_formula
    return {"formula": formula, "text": c.INPUT_SCALE_FORMULAS[formula], "value": _frozen_scale(record)}


def _frozen_scale(record: BundleRecord) -> float | None:
    holder = record.metadata or record.checkpoint or {}
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
            f"{record.path.name}: ci_statistics.rms_input_scale is {stored!r}; expected a positive number"
        )
    return float(values)


def source_info(record: BundleRecord, name: str) -> c.BundleInfo:
    """Return where an export comes from; a second export of a bundle keeps the digest of its first source."""
    earlier = (record.exports or {}).get("bundle", {})
    first = earlier.get("sha256") if earlier.get("members_sha256") == record.members_sha256 else None
    return {
        "name": name,
        "sha256": first if isinstance(first, str) else record.sha256,
        "members_sha256": record.members_sha256,
        "ptychopinn_version": str((record.manifest or {}).get("version", _CHECKPOINT_VERSION)),
    }


def onnx_metadata(graph: str, spec: ModelSpec, source: c.BundleInfo, scale: c.InputScaleInfo) -> dict[str, str]:
    """Return the `metadata_props` of a graph's ONNX file: all of `contract.META_KEYS`."""
    return {
        "graph": graph,
        "bundle_sha256": source["sha256"],
        "ptychopinn_version": source["ptychopinn_version"],
        "era": spec.era,
        "generator": spec.generator,
        "N": str(spec.N),
        "gridsize": str(spec.gridsize),
        "scaling": spec.scaling,
        "data_domain": spec.measurement_domain,
        "input_scale_formula": f"{scale['formula']}: {scale['text']}",
        "input_scale_value": "" if scale["value"] is None else repr(scale["value"]),
        "axes": c.AXES,
        "dc_position": c.DC_POSITION,
        "units": units(spec),
        "exporter_version": exporter_version(),
    }


def units(spec: ModelSpec) -> str:
    """Return in words what a pattern's values are."""
    if spec.measurement_domain == "counts":
        return "photon counts per pixel"
    return "amplitude: square root of photon counts per pixel"


def exports_info(
    spec: ModelSpec,
    source: c.BundleInfo,
    scale: c.InputScaleInfo,
    params: Mapping[str, Any],
    artifacts: Mapping[str, Mapping[str, bytes]],
    golden: bytes,
    report: ParityReport,
) -> c.ExportsInfo:
    """Return `exports.json` as a whole; equal exports give equal content, so no times and no host names are in it."""
    tools = {}
    for package in _TOOLS:
        try:
            tools[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "schema": c.SCHEMA,
        "schema_version": c.SCHEMA_VERSION,
        "exporter_version": exporter_version(),
        "tools": tools,
        "bundle": source,
        "spec": spec.to_json(),
        "data": {
            "domain": spec.measurement_domain,
            "units": units(spec),
            "axes": c.AXES,
            "dc_position": c.DC_POSITION,
        },
        "input_scale": scale,
        "params": params_module.plain(params),
        "graphs": {graph: _graph_info(graph, spec, files) for graph, files in artifacts.items()},
        "golden": _file_info(c.GOLDEN_NPZ, golden),
        "parity": report.contract_info(),
    }


def _graph_info(graph: str, spec: ModelSpec, files: Mapping[str, bytes]) -> c.GraphInfo:
    inputs, outputs = graph_io(spec, graph)
    ir_version = onnx.load_from_string(files["onnx"]).ir_version
    return {
        "inputs": inputs,
        "outputs": outputs,
        "files": {
            "onnx": {
                **_file_info(c.onnx_member(graph), files["onnx"]),
                "precision": "float32",
                "opset": OPSET,
                "ir_version": ir_version,
            },
            "torchscript": {**_file_info(c.torchscript_member(graph), files["torchscript"]), "precision": "float32"},
        },
    }


def _file_info(path: str, data: bytes) -> c.FileInfo:
    return {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}


def dumps(info: c.ExportsInfo) -> bytes:
    """Return `exports.json` as bytes, keys in the contract's order."""
    return (json.dumps(info, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
