"""A model repository for NVIDIA's Triton Inference Server: the object graphs of an export with their `config.pbtxt`.

The text is written here and not by Triton's own schema, so that exporting needs none of its packages; a test reads it with that
schema and holds it against the ONNX files. Nothing here was run under Triton, and each file says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ptycho_runtime import contract
from ptycho_runtime.errors import NotExportedError, OutputError
from ptycho_runtime.export.bundle import Export
from ptycho_runtime.export.onnx_file import CheckedModel
from ptycho_runtime.export.record import ExportRecord
from ptycho_runtime.files import write_file

GRAPHS = (contract.DIFFRACTION_TO_OBJ, contract.CENTRE)
CONFIG = "config.pbtxt"
NOT_RUN = "not run under Triton"
_TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64"}
_MARK = f"# written by ptycho-export; {NOT_RUN}"
_NOTES = (
    "# Each input is (batch, …); Triton's dims leave the batch out. A result does not depend on what shares its batch.",
    "# Products are rounded to TF32 by GPUs that can, unless NVIDIA_TF32_OVERRIDE=0 is in the server's environment.",
    "# input_scale_factor is one number a scan, by the formula below; it is fed for each group.",
)


@dataclass(frozen=True)
class ServedModel:
    """A graph as a repository has it."""

    folder: Path
    version: int
    new: bool
    """False where this file was there already."""


def write_repository(export: Export, folder: Path) -> tuple[ServedModel, ...]:
    """Write or bring up to date a model repository with the object graphs of an export.

    A file that is not there yet becomes the next version of its model, and the configuration has Triton serve that one alone: scale
    and conventions in it are those of that file. Older versions stay where they are.

    Args:
        export: an opened bundle; a bare `.onnx` has no proof, by which the largest batch is known.
        folder: the repository; made if missing.

    Raises:
        NotExportedError: the export has no `exports.json`.
        OutputError: a model's folder is somebody else's, or cannot be written.

    Examples:
        >>> write_repository(open_export("wts.h5.zip"), Path("models"))  # doctest: +SKIP
        (ServedModel(folder=PosixPath('models/diffraction_to_obj'), version=1, new=True), ...)
    """
    if export.record is None:
        raise NotExportedError(
            f"{export.path.name}: has no {contract.EXPORTS_JSON}; give the bundle and not one of its files"
        )
    refuse_foreign(folder)
    present = [graph for graph in GRAPHS if graph in export.graphs]
    return tuple(
        _write_model(export.record, CheckedModel(export.graphs[graph], graph), folder / graph) for graph in present
    )


def _write_model(record: ExportRecord, model: CheckedModel, folder: Path) -> ServedModel:
    versions = _versions(folder)
    digest = hashlib.sha256(model).hexdigest()
    same = [number for number, path in versions.items() if hashlib.sha256(path.read_bytes()).hexdigest() == digest]
    version = max(same) if same else max(versions, default=0) + 1
    if not same:
        write_file(folder / str(version) / contract.ONNX_FILE, model)
    # After the file that it speaks of: a server that looks in between still serves the version before.
    write_file(folder / CONFIG, config(record, model, folder.name, version).encode())
    return ServedModel(folder, version, not same)


def _versions(folder: Path) -> dict[int, Path]:
    """Return the model files of a folder by version."""
    return {
        int(path.parent.name): path for path in folder.glob(f"*/{contract.ONNX_FILE}") if path.parent.name.isdecimal()
    }


def refuse_foreign(repository: Path) -> None:
    """Raise `OutputError` where a folder of one of the models is there and holds what is none of this project."""
    for graph in GRAPHS:
        _refuse_foreign(repository / graph)


def _refuse_foreign(folder: Path) -> None:
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        # A run that was killed before the configuration leaves version folders alone.
        if all(path.name.isdecimal() for path in folder.glob("*")):
            return
        text = ""
    except OSError as error:
        raise OutputError(f"{folder / CONFIG}: cannot be read ({error.strerror or error})") from error
    if not text.startswith(_MARK):
        raise OutputError(
            f"{folder}: is there already, and ptycho-export did not write it; give another folder to --triton"
        )


def config(record: ExportRecord, model: CheckedModel, graph: str, version: int) -> str:
    """Return the `config.pbtxt` of a graph.

    Args:
        record: what is known of the export.
        model: the graph's ONNX file; inputs and outputs are those that it has.
        graph: its name, and the model's in Triton.
        version: the one version that is served.
    """
    told = model.told
    parameters = {
        **{f"{contract.META_PREFIX}{key}": value for key, value in record.metadata(graph).items()},
        f"{contract.META_PREFIX}onnx_sha256": hashlib.sha256(model).hexdigest(),
        f"{contract.META_PREFIX}members_sha256": record.bundle.members_sha256,
        f"{contract.META_PREFIX}triton": NOT_RUN,
    }
    parts = [
        *(_MARK, *_NOTES),
        f"name: {_quoted(graph)}",
        'backend: "onnxruntime"',
        f"default_model_filename: {_quoted(contract.ONNX_FILE)}",
        f"max_batch_size: {_largest_proven(record, graph)}",
        f"version_policy {{ specific {{ versions: [ {version} ] }} }}",
        *(_tensor("input", info) for info in told.inputs),
        *(_tensor("output", info) for info in told.outputs),
        "dynamic_batching { }",
        *(_parameter(key, value) for key, value in parameters.items()),
    ]
    return "\n".join(parts) + "\n"


def _largest_proven(record: ExportRecord, graph: str) -> int:
    """Return the most groups at a time with which the ONNX file was proven; 1 is proven always."""
    rows = record.parity.rows
    return max(
        (row.batch for row in rows if (row.graph, row.runtime, row.verdict) == (graph, "onnx", "passed")), default=1
    )


def _tensor(what: str, info: contract.TensorInfo) -> str:
    batch, *sizes = info["shape"]
    if batch != contract.BATCH_AXIS or not all(isinstance(size, int) for size in sizes):
        raise NotExportedError(
            f"{info['name']} has shape {info['shape']}; expected {contract.BATCH_AXIS} first and fixed sizes behind it"
        )
    return f"{what} {{ name: {_quoted(info['name'])} data_type: {_TYPES[info['dtype']]} dims: {json.dumps(sizes)} }}"


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"


def _quoted(text: str) -> str:
    """Return text as protobuf's text format writes it: bytes beyond printable ASCII in octal."""
    plain = (chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(plain)}"'


def summary(models: Sequence[ServedModel]) -> Mapping[str, str]:
    """Return what a repository has of each model, by name, in words."""
    return {
        model.folder.name: f"version {model.version}{'' if model.new else ', which was there already'} ({NOT_RUN})"
        for model in models
    }
