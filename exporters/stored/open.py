"""What a bundle's stored exports are before they are run: the files that `exports.json` names, whole and of these weights."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from ptycho_runtime import contract as c
from ptycho_runtime.errors import NotExportedError
from ptycho_runtime.export.onnx_file import CheckedModel
from ptycho_torch.bundle import BundleRecord
from ptycho_torch.errors import DamagedBundleError

GOLDEN_FACTOR = 4.0  # between allowed errors computed on two hosts: eager float32's own rounding differs by processor
GOLDEN_TOLERANCE = 1e-9  # relative L2 between a stored float64 reference and the same one computed on another host


def refuse_other_graphs(record: BundleRecord, exports: c.ExportsInfo, graphs: Iterable[str]) -> None:
    """Raise `NotExportedError` unless `exports.json` names the graphs that the bundle's own weights give, no fewer and no others."""
    named, given = sorted(exports["graphs"]), sorted(graphs)
    if named != given:
        raise NotExportedError(
            f"{record.path.name}: exports.json names {', '.join(named)}; the bundle's own weights give {', '.join(given)}; "
            "export the bundle again"
        )


def stored_exports(record: BundleRecord) -> c.ExportsInfo:
    """Return a bundle's `exports.json`, checked as far as verification depends on it.

    Raises:
        NotExportedError: there is none, or it is of another schema or incomplete.
        DamagedBundleError: PtychoPINN's own members are not those that were exported.
    """
    label = record.path.name
    exports: Any = record.exports
    if exports is None:
        raise NotExportedError(f"{label}: holds no exports; run ptycho-export export on it first")
    found = (exports.get("schema"), exports.get("schema_version"))
    if found != (c.SCHEMA, c.SCHEMA_VERSION):
        raise NotExportedError(
            f"{label}: exports.json has schema {found}; expected {(c.SCHEMA, c.SCHEMA_VERSION)}; export the bundle again"
        )
    try:
        graphs, spec, golden = dict(exports["graphs"]), dict(exports["spec"]), dict(exports["golden"])
        members_sha256 = exports["bundle"]["members_sha256"]
        complete = bool(graphs) and isinstance(exports["params"], dict) and bool(spec) and "sha256" in golden
        complete &= set(graphs) <= set(c.ALL_GRAPHS)
        files = [(golden["path"], c.GOLDEN_NPZ, golden["sha256"])]
        for graph, info in graphs.items():
            complete &= set(info["files"]) == {"onnx", "torchscript"}
            for kind, name in (("onnx", c.onnx_member(graph)), ("torchscript", c.torchscript_member(graph))):
                files.append((info["files"][kind]["path"], name, info["files"][kind]["sha256"]))
        complete &= all(isinstance(digest, str) for _, _, digest in files)
    except (KeyError, TypeError, ValueError) as error:
        raise NotExportedError(f"{label}: exports.json lacks {error}; export the bundle again") from error
    if not complete:
        raise NotExportedError(f"{label}: exports.json is incomplete; export the bundle again")
    # A host runs the file of this name, so no other one is worth a proof.
    for found_name, name, _ in files:
        if found_name != name:
            raise NotExportedError(
                f"{label}: exports.json names {found_name!r}; expected {name}; export the bundle again"
            )
    if members_sha256 != record.members_sha256:
        raise DamagedBundleError(
            f"{label}: PtychoPINN's own members changed since they were exported (sha256 {record.members_sha256[:12]}…, "
            f"exports.json says {str(members_sha256)[:12]}…); export the bundle again"
        )
    return exports  # type: ignore[no-any-return]  # its parts that matter were looked at


def stored_member(record: BundleRecord, info: c.FileInfo, problems: list[str]) -> bytes:
    """Return a stored export; a digest other than `exports.json` has is added to the problems.

    An ONNX file has passed the gate before every session then (`CheckedModel`).

    Raises:
        NotExportedError: the member is absent.
        UnsafeGraphError: an ONNX file asks for more than any export has.
        DamagedExportError: it is no ONNX file.
    """
    name = info["path"]
    if name not in dict(record.members):
        raise NotExportedError(f"{record.path.name}: lacks {name}, which exports.json names; export the bundle again")
    data = record.read_member(name)
    digest = hashlib.sha256(data).hexdigest()
    if digest != info["sha256"]:
        problems.append(
            f"{name} is not the file that was exported (sha256 {digest[:12]}…, exports.json says {info['sha256'][:12]}…)"
        )
    return CheckedModel(data, f"{record.path.name}: {name}") if name.endswith(".onnx") else data


def golden_problems(stored: bytes, fresh: bytes) -> list[str]:
    """Return what in a stored `golden.npz` the original weights do not give again; allowed errors may differ by host."""
    try:
        if not zipfile.is_zipfile(io.BytesIO(stored)):
            return [f"{c.GOLDEN_NPZ} is no NPZ file"]
        with np.load(io.BytesIO(stored), allow_pickle=False) as old, np.load(io.BytesIO(fresh)) as new:
            if sorted(old.files) != sorted(new.files):
                return [f"{c.GOLDEN_NPZ} holds other arrays than the models have"]
            # What was computed tells more than what it allows, so that comes last.
            for name in sorted(new.files, key=lambda name: (".allowed." in name, name)):
                a, b = old[name], new[name]
                if a.shape != b.shape or a.dtype != b.dtype:
                    return [f"{c.GOLDEN_NPZ}: {name} is {a.dtype} {a.shape}; expected {b.dtype} {b.shape}"]
                kind = name.split(".")[1]
                if kind == "allowed":
                    if not ((a >= b / GOLDEN_FACTOR) & (a <= b * GOLDEN_FACTOR)).all():
                        return [f"{c.GOLDEN_NPZ}: {name} is {a.tolist()}; the weights give {b.tolist()}"]
                    continue
                distance = float(np.linalg.norm(a.ravel() - b.ravel())) / max(float(np.linalg.norm(b.ravel())), 1e-300)
                limit = 0.0 if kind == "input" else GOLDEN_TOLERANCE
                if not distance <= limit:
                    return [f"{c.GOLDEN_NPZ}: {name} is {distance:.1e} away from what the weights give (relative L2)"]
    except (ValueError, TypeError, OSError, EOFError, LookupError, zipfile.BadZipFile, zlib.error) as error:
        return [f"{c.GOLDEN_NPZ} cannot be read ({error})"]
    return []
