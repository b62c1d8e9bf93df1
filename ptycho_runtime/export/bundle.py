"""Open what an exporter left: an augmented bundle or a bare `.onnx`. Never a pickle; sha256 before use."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_runtime import contract as c
from ptycho_runtime.errors import DamagedExportError, NotExportedError, UnsafeGraphError
from ptycho_runtime.export.onnx_file import look_into
from ptycho_runtime.export.precision import VARIANT_PRECISIONS, Budget, PrecisionErrors, Variant
from ptycho_runtime.files import other_name, printable

MAX_MEMBER_BYTES = 2 << 30  # protobuf's own limit for one file
MAX_JSON_BYTES = 64 << 20
_TENSORS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "diffraction_to_obj": ((c.DIFFRACTION, c.INPUT_SCALE), (c.OBJECT_REAL, c.OBJECT_IMAG)),
    c.CENTRE: ((c.DIFFRACTION, c.INPUT_SCALE), (c.OBJECT_REAL, c.OBJECT_IMAG)),
    "autoencoder": (
        (c.DIFFRACTION, c.INPUT_SCALE, c.POSITIONS, c.PROBE_REAL, c.PROBE_IMAG, c.OUTPUT_SCALE, c.EXPERIMENT_ID),
        (c.PREDICTED, c.AMPLITUDE, c.PHASE, c.OBJECT_REAL, c.OBJECT_IMAG),
    ),
}


@dataclass(frozen=True)
class Export:
    """One export: its graphs and what a scan must be for it."""

    path: Path
    graphs: dict[str, bytes]
    N: int  # side of a pattern, pixels
    gridsize: int
    domain: str  # "amplitude" or "counts": what a pattern fed to the graphs is
    scale_formula: c.InputScaleFormula
    scale_value: float | None  # frozen by the bundle, else computed once per scan
    era: str
    info: Mapping[str, Any] = field(default_factory=dict, repr=False)
    golden: bytes | None = field(default=None, repr=False)
    variants: Mapping[tuple[str, str], Variant] = field(
        default_factory=dict, repr=False
    )  # in reduced precision, by graph and device
    patterns: bytes | None = field(default=None, repr=False)  # by which the variants were judged

    @property
    def C(self) -> int:
        """Patterns in one group."""
        return self.gridsize**2

    def variant_patterns(self) -> dict[str, np.ndarray]:
        """Return the patterns that the variants were judged by, by tensor name; raises `DamagedExportError` where they are garbled."""
        found = _arrays(self.patterns or b"", f"{self.path.name}: {c.VARIANT_NPZ}")
        lacking = {c.DIFFRACTION, c.INPUT_SCALE, c.OBJECT_REAL, c.OBJECT_IMAG} - set(found)
        if lacking:
            raise DamagedExportError(
                f"{self.path.name}: {c.VARIANT_NPZ} lacks {', '.join(sorted(lacking))}; export the bundle again"
            )
        return found

    @property
    def positions_sign(self) -> float:
        """Sign with which a pattern's offset from its group's centre is fed to `positions` in this release's models."""
        return c.positions_sign(self.era)


def open_export(path: str | Path) -> Export:
    """Return the exports in an augmented bundle (`.zip`) or in a bare `.onnx` file.

    Raises:
        FileNotFoundError: nothing is there.
        NotExportedError: the bundle holds no exports.
        DamagedExportError: a file is cut short, or its sha256 is not what `exports.json` says.
        UnsafeGraphError: a graph is not the contract's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected an exported bundle (.zip) or a .onnx file")
    with path.open("rb") as file:
        head = file.read(4)
    return _from_zip(path) if head == b"PK\x03\x04" else _from_onnx(path)


def _from_zip(path: Path) -> Export:
    label = path.name
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(set(names)) != len(names):
                raise DamagedExportError(f"{label}: a member name occurs twice")
            for entry in archive.infolist():
                if problem := other_name(entry):
                    raise DamagedExportError(
                        f"{label}: member {printable(ascii(entry.orig_filename))} {problem}; refused"
                    )
            if c.EXPORTS_JSON not in names:
                raise NotExportedError(
                    f"{label}: holds no {c.EXPORTS_JSON}; export the bundle with ptycho-export first"
                )
            info = _json(_read(archive, c.EXPORTS_JSON, label, MAX_JSON_BYTES), label)
            graphs = {}
            for graph, entry in _graphs(info, label).items():
                graphs[graph] = _verified(archive, entry["files"]["onnx"], c.onnx_member(graph), label)
                _check_graph(graphs[graph], graph, f"{label}: {c.onnx_member(graph)}", entry)
            golden = _verified(archive, info["golden"], c.GOLDEN_NPZ, label) if "golden" in info else None
            variants, patterns = _variants(archive, info, graphs, label)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DamagedExportError(
            f"{label}: the zip archive is cut short or corrupt ({error}); copy it again"
        ) from error
    try:
        spec, scale = info["spec"], info["input_scale"]
        return Export(
            path=path,
            graphs=graphs,
            N=_whole(spec["N"]),
            gridsize=_whole(spec["gridsize"]),
            domain=_one_of(info["data"]["domain"], ("amplitude", "counts")),
            scale_formula=_one_of(scale["formula"], tuple(c.INPUT_SCALE_FORMULAS)),  # type: ignore[arg-type]
            scale_value=None if scale["value"] is None else _positive(scale["value"]),
            era=str(spec["era"]),
            info=info,
            golden=golden,
            variants=variants,
            patterns=patterns,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedExportError(
            f"{label}: {c.EXPORTS_JSON} lacks or garbles {error}; export the bundle again"
        ) from error


def _from_onnx(path: Path) -> Export:
    if path.stat().st_size > MAX_MEMBER_BYTES:
        raise DamagedExportError(f"{path.name}: is larger than an ONNX file can be")
    data = path.read_bytes()
    told = look_into(data, path.name).metadata
    values = {key: told.get(c.META_PREFIX + key) for key in c.META_KEYS}
    missing = [key for key, value in values.items() if value is None]
    if missing:
        raise NotExportedError(
            f"{path.name}: its metadata lacks {', '.join(missing[:4])}; expected a file that ptycho-export wrote"
        )
    graph = str(values["graph"])
    if graph not in c.ALL_GRAPHS:
        raise UnsafeGraphError(f"{path.name}: is the graph {graph!r}; expected {' or '.join(c.ALL_GRAPHS)}")
    _check_graph(data, graph, path.name, None)
    formula = str(values["input_scale_formula"]).split(":")[0]
    try:
        return Export(
            path=path,
            graphs={graph: data},
            N=_whole(int(str(values["N"]))),
            gridsize=_whole(int(str(values["gridsize"]))),
            domain=_one_of(values["data_domain"], ("amplitude", "counts")),
            scale_formula=_one_of(formula, tuple(c.INPUT_SCALE_FORMULAS)),  # type: ignore[arg-type]
            scale_value=_positive(float(str(values["input_scale_value"]))) if values["input_scale_value"] else None,
            era=str(values["era"]),
        )
    except ValueError as error:
        raise DamagedExportError(f"{path.name}: its metadata is garbled ({error})") from error


def load_golden(export: Export) -> dict[str, np.ndarray]:
    """Return `golden.npz` by array name; raises `NotExportedError` where the export has none."""
    if export.golden is None:
        raise NotExportedError(f"{export.path.name}: holds no {c.GOLDEN_NPZ}; export the bundle again")
    return _arrays(export.golden, f"{export.path.name}: {c.GOLDEN_NPZ}")


def _arrays(data: bytes, label: str) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedExportError(f"{label} cannot be read ({error})") from error


def _variants(
    archive: zipfile.ZipFile, info: Mapping[str, Any], graphs: Mapping[str, bytes], label: str
) -> tuple[dict[tuple[str, str], Variant], bytes | None]:
    """Return the variants in reduced precision by graph and device, and the patterns that they were judged by."""
    listed = info.get("variants", [])
    if not listed:
        return {}, None
    found: dict[tuple[str, str], Variant] = {}
    try:
        for entry in listed:
            graph = _one_of(entry["graph"], tuple(graphs))
            engine = _one_of(entry["engine"], tuple(VARIANT_PRECISIONS))
            precision = _one_of(entry["precision"], VARIANT_PRECISIONS[engine])
            layers = tuple(str(layer) for layer in entry["int8_layers"])
            model = graphs[graph]
            if layers or engine == "onnxruntime":
                member = c.float16_member(graph) if engine == "onnxruntime" else c.int8_member(graph)
                model = _verified(archive, entry["file"], member, label)
                _check_graph(model, graph, f"{label}: {member}", info["graphs"][graph])
            figures = [
                [_positive(entry[kind][name]) for name in ("phase_rad", "amplitude_rel")]
                for kind in ("budget", "errors")
            ]
            made = Variant(graph, model, engine, precision, layers, Budget(*figures[0]), PrecisionErrors(*figures[1]))
            found[graph, made.device] = made
        patterns = _verified(archive, info["variant_patterns"], c.VARIANT_NPZ, label)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedExportError(
            f"{label}: {c.EXPORTS_JSON} garbles its variants ({error}); export the bundle again"
        ) from error
    return found, patterns


def _read(archive: zipfile.ZipFile, name: str, label: str, limit_bytes: int) -> bytes:
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise NotExportedError(f"{label}: lacks {name}, which it should hold; export the bundle again") from None
    with archive.open(entry) as member:
        data = member.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise DamagedExportError(f"{label}: {name} is larger than {limit_bytes} bytes")
    return data


def _verified(archive: zipfile.ZipFile, entry: Mapping[str, Any], name: str, label: str) -> bytes:
    if entry.get("path") != name:
        raise DamagedExportError(f"{label}: {c.EXPORTS_JSON} names {entry.get('path')!r}; expected {name}")
    size = entry.get("size_bytes")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= MAX_MEMBER_BYTES:
        raise DamagedExportError(f"{label}: {c.EXPORTS_JSON} says {name} has {size!r} bytes")
    data = _read(archive, name, label, size)
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.get("sha256"):
        raise DamagedExportError(
            f"{label}: {name} is not the file that was exported (sha256 {digest[:12]}…, {c.EXPORTS_JSON} says "
            f"{str(entry.get('sha256'))[:12]}…); do not use it, copy or export the bundle again"
        )
    return data


def _json(data: bytes, label: str) -> dict[str, Any]:
    try:
        info = json.loads(data)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DamagedExportError(f"{label}: {c.EXPORTS_JSON} is no JSON ({error})") from error
    found = (info.get("schema"), info.get("schema_version")) if isinstance(info, dict) else None
    if found != (c.SCHEMA, c.SCHEMA_VERSION):
        raise NotExportedError(f"{label}: {c.EXPORTS_JSON} has schema {found}; expected {(c.SCHEMA, c.SCHEMA_VERSION)}")
    return dict(info)


def _graphs(info: Mapping[str, Any], label: str) -> dict[str, Any]:
    graphs = info.get("graphs")
    well_formed = isinstance(graphs, dict) and graphs and set(graphs) <= set(c.ALL_GRAPHS)
    if not well_formed or not all(isinstance(g, dict) and "onnx" in (g.get("files") or {}) for g in graphs.values()):  # type: ignore[union-attr]
        raise DamagedExportError(f"{label}: {c.EXPORTS_JSON} lists no graphs as expected; export the bundle again")
    return dict(graphs)  # type: ignore[arg-type]  # looked at just above


def _check_graph(data: bytes, graph: str, label: str, entry: Mapping[str, Any] | None) -> None:
    found = look_into(data, label)
    inputs, outputs = _TENSORS[graph]
    for what, tensors, known in (("input", found.inputs, inputs), ("output", found.outputs, outputs)):
        names = [info["name"] for info in tensors]
        if not set(names) <= set(known) or (graph != "autoencoder" and names != list(known)):
            raise UnsafeGraphError(f"{label}: has the {what}s {', '.join(names)}; expected of {', '.join(known)}")
        if entry is not None and tensors != entry.get(f"{what}s"):
            raise UnsafeGraphError(f"{label}: its {what}s are not those that {c.EXPORTS_JSON} lists")


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 4096:
        raise ValueError(f"the size {value!r}")
    return value


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < 1e30:
        raise ValueError(f"the scale {value!r}")
    return float(value)


def _one_of(value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{value!r}; known are {', '.join(known)}")
    return str(value)
