"""Open what an exporter left: an augmented bundle or a bare `.onnx`. Never a pickle; sha256 before use."""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.errors import DamagedExportError, NotExportedError, ReconstructionError, UnsafeGraphError
from ptycho_runtime.export.golden import check_golden
from ptycho_runtime.export.json_fields import MAX_JSON_BYTES, Field
from ptycho_runtime.export.npz import read_npz
from ptycho_runtime.export.onnx_file import CheckedModel, GraphFile
from ptycho_runtime.export.parse import MAX_GRIDSIZE, MAX_MEMBER_BYTES, MAX_SIDE_PX, NEGATIVE_IN_VERSION_1, parse
from ptycho_runtime.export.precision import Variant
from ptycho_runtime.export.record import DOMAINS, ExportRecord, StoredFile, StoredGraph
from ptycho_runtime.files import check_is_file, other_name, printable

_MAX_MEMBERS, _MAX_RATIO, _FREE_BYTES = 10_000, 100, 4 << 20
_ENCRYPTED = 1  # flag of a zip entry
_SHA256 = re.compile("[0-9a-fA-F]{64}")
_OBJECT_TENSORS = ((contract.DIFFRACTION, contract.INPUT_SCALE), (contract.OBJECT_REAL, contract.OBJECT_IMAG))
_TENSORS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    contract.DIFFRACTION_TO_OBJ: _OBJECT_TENSORS,
    contract.CENTRE: _OBJECT_TENSORS,
    contract.AUTOENCODER: (
        (
            contract.DIFFRACTION,
            contract.INPUT_SCALE,
            contract.POSITIONS,
            contract.PROBE_REAL,
            contract.PROBE_IMAG,
            contract.OUTPUT_SCALE,
            contract.EXPERIMENT_ID,
        ),
        (contract.PREDICTED, contract.AMPLITUDE, contract.PHASE, contract.OBJECT_REAL, contract.OBJECT_IMAG),
    ),
}


@dataclass(frozen=True)
class Export:
    """One export: its graphs and what a scan must be for it.

    Examples:
        >>> import ptycho_runtime
        >>> from ptycho_runtime import demo
        >>> ptycho_runtime.open_export(demo.MODEL)
        <Export model.onnx: diffraction_to_obj, 64 px, amplitude, era J>
    """

    path: Path
    graphs: Mapping[str, bytes]
    N: int
    """Side of a pattern, pixels."""
    gridsize: int
    domain: str
    """"amplitude" or "counts": what a pattern fed to the graphs is."""
    scale_formula: contract.InputScaleFormula
    scale_value: float | None
    """Frozen by the bundle, else computed once per scan."""
    era: str
    positions_sign: float
    """With which a pattern's offset from its group's centre is fed to `positions`: 1 or −1."""
    sha256: str = ""
    """Of the file."""
    domain_note: str = ""
    """What is to be said where the host chose the domain."""
    exporter_version: str = ""
    """The release that made it."""
    record: ExportRecord | None = field(default=None, repr=False)
    """`exports.json`; a bare `.onnx` has none."""
    golden: bytes | None = field(default=None, repr=False)
    variants: Mapping[tuple[str, str], Variant] = field(default_factory=dict, repr=False)
    """In reduced precision, by graph and device."""
    patterns: bytes | None = field(default=None, repr=False)
    """By which the variants were judged."""

    def __repr__(self) -> str:
        """Return what it is in one line."""
        graphs = ", ".join(sorted(self.graphs))
        return f"<Export {printable(self.path.name)}: {graphs}, {self.N} px, {self.domain}, era {printable(self.era)}>"

    @property
    def C(self) -> int:
        """Patterns in one group."""
        return self.gridsize**2

    def variant_patterns(self) -> dict[str, np.ndarray]:
        """Return the patterns that the variants were judged by, by tensor name; raises `DamagedExportError` where they are garbled."""
        label = f"{self.path.name}: {contract.VARIANT_NPZ}"
        arrays = read_npz(self.patterns or b"", label)
        expected = {contract.DIFFRACTION, contract.INPUT_SCALE, contract.OBJECT_REAL, contract.OBJECT_IMAG}
        if lacking := sorted(expected - set(arrays)):
            raise DamagedExportError(f"{label} lacks {', '.join(lacking)}; export the bundle again")
        return arrays


def open_export(path: str | Path, sha256: str | None = None) -> Export:
    """Return the exports in an augmented bundle (`.zip`) or in a bare `.onnx` file.

    Args:
        path: of either.
        sha256: what the file has to have, 64 hexadecimal digits; any where None.

    Raises:
        FileNotFoundError: nothing is there.
        NotExportedError: the bundle holds no exports.
        DamagedExportError: a file is cut short, is not what `exports.json` says, or says something else of itself; it has another
            sha256 than is asked for.
        ReconstructionError: `sha256` is none.
        UnsafeGraphError: a graph is not the contract's.

    Examples:
        >>> import ptycho_runtime
        >>> from ptycho_runtime import demo
        >>> export = ptycho_runtime.open_export(demo.MODEL)
        >>> export.N, export.domain, sorted(export.graphs)
        (64, 'amplitude', ['diffraction_to_obj'])
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected an exported bundle (.zip) or a .onnx file")
    check_is_file(path, "exported bundle (.zip) or .onnx file")
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ReconstructionError(
            f"sha256 {printable(sha256)}; expected 64 hexadecimal digits, as sha256sum prints them"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 is not None and digest != sha256.lower():
            raise DamagedExportError(
                f"{path.name}: has sha256 {digest}, and {sha256.lower()} was asked for; it is another file, do not use it"
            )
        # The file that was hashed is the one that is read, whatever the name stands for meanwhile.
        file.seek(0)
        head = file.read(4)
        file.seek(0)
        found = _from_zip(path, file) if head == b"PK\x03\x04" else _from_onnx(path, file)
    return replace(found, sha256=digest)


def _from_zip(path: Path, file: IO[bytes]) -> Export:
    label = path.name
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if len(set(names)) != len(names):
                raise DamagedExportError(f"{label}: a member name occurs twice")
            if len(names) > _MAX_MEMBERS:
                raise DamagedExportError(f"{label}: holds {len(names)} members; a bundle has at most {_MAX_MEMBERS}")
            for entry in archive.infolist():
                if problem := other_name(entry) or _unusual(entry):
                    raise DamagedExportError(
                        f"{label}: member {printable(ascii(entry.orig_filename))} {problem}; refused"
                    )
            if contract.EXPORTS_JSON not in names:
                raise NotExportedError(
                    f"{label}: holds no {contract.EXPORTS_JSON}; export the bundle with ptycho-export first"
                )
            record = parse(_read(archive, contract.EXPORTS_JSON, label, MAX_JSON_BYTES), label)
            refuse_unnamed_graphs(names, record.graphs, label)
            graphs = {
                graph: _graph(
                    _verified(archive, stored.files["onnx"], label), record, graph, stored.files["onnx"], label
                )
                for graph, stored in record.graphs.items()
            }
            golden = _verified(archive, record.golden, label)
            variants = _variants(archive, record, graphs, label)
            patterns = None if record.variant_patterns is None else _verified(archive, record.variant_patterns, label)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DamagedExportError(
            f"{label}: the zip archive is cut short or corrupt ({error}); copy it again"
        ) from error
    return Export(
        path=path,
        graphs=graphs,
        N=record.N,
        gridsize=record.gridsize,
        domain=record.data.domain,
        scale_formula=record.input_scale.formula,
        scale_value=record.input_scale.value,
        era=record.era,
        positions_sign=float(record.positions.sign),
        record=record,
        golden=golden,
        variants=variants,
        patterns=patterns,
    )


def _unusual(entry: zipfile.ZipInfo) -> str:
    """Return in words what no exporter makes of a zip entry; empty where it is an ordinary one."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"uses compression {entry.compress_type}, not deflate"
    if entry.file_size > _FREE_BYTES and entry.file_size > _MAX_RATIO * entry.compress_size:
        return f"unpacks to more than {_MAX_RATIO} times its size"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    return ""


def refuse_unnamed_graphs(members: Collection[str], graphs: Collection[str], label: str) -> None:
    """Raise `DamagedExportError` where a bundle holds a graph's files that `exports.json` does not name: it was taken out there."""
    for graph in contract.ALL_GRAPHS:
        for member in (contract.onnx_member(graph), contract.torchscript_member(graph)):
            if graph not in graphs and member in members:
                raise DamagedExportError(
                    f"{label}: holds {member}, which {contract.EXPORTS_JSON} does not name; export the bundle again"
                )


def refuse_other_metadata(model: GraphFile, record: ExportRecord, graph: str, label: str) -> None:
    """Raise `DamagedExportError` where an ONNX file says something else of itself than `exports.json` says of it."""
    for key, expected in record.metadata(graph).items():
        said = model.metadata.get(contract.META_PREFIX + key)
        if said is None and key in _lacking(record.exporter_version):
            continue
        if said != expected:
            raise DamagedExportError(
                f"{label}: says of itself {key} = {printable(repr(said))}; {contract.EXPORTS_JSON} says {printable(repr(expected))}; "
                "do not use it, export the bundle again"
            )


def _lacking(exporter_version: str) -> tuple[str, ...]:
    """Return the metadata that files of a version do not have yet."""
    return ("positions_sign",) if exporter_version.startswith("0.1.") else ()


def _from_onnx(path: Path, file: IO[bytes]) -> Export:
    data = file.read(MAX_MEMBER_BYTES + 1)
    if len(data) > MAX_MEMBER_BYTES:
        raise DamagedExportError(f"{path.name}: is larger than an ONNX file can be")
    checked = CheckedModel(data, path.name)
    model = checked.told
    entries = {key: model.metadata.get(contract.META_PREFIX + key) for key in contract.META_KEYS}
    optional = _lacking(str(entries["exporter_version"]))
    missing = [key for key, value in entries.items() if value is None and key not in optional]
    if missing:
        raise NotExportedError(
            f"{path.name}: its metadata lacks {', '.join(missing[:4])}; expected a file that ptycho-export wrote"
        )
    graph = str(entries["graph"])
    if graph not in contract.ALL_GRAPHS:
        raise UnsafeGraphError(
            f"{path.name}: is the graph {printable(repr(graph))}; expected {' or '.join(contract.ALL_GRAPHS)}"
        )
    _check_tensors(model, graph, path.name, None)
    metadata = Field(entries, f"{path.name}: its metadata")
    formula, _, text = metadata["input_scale_formula"].text().partition(": ")
    said = Field({"formula": formula, "text": text}, metadata.label)
    said["formula"].one_of(contract.INPUT_SCALE_FORMULAS)
    said["text"].one_of((contract.INPUT_SCALE_FORMULAS[formula],))
    domain = metadata["data_domain"].one_of(DOMAINS)
    for key, expected in (
        ("axes", contract.AXES),
        ("dc_position", contract.DC_POSITION),
        ("units", contract.UNITS[domain]),
    ):
        metadata[key].one_of((expected,))
    era = metadata["era"].text(64)
    sign = -1.0 if era in NEGATIVE_IN_VERSION_1 else 1.0
    if entries["positions_sign"] is not None:
        sign = float(metadata["positions_sign"].one_of(("1", "-1")))
    return Export(
        path=path,
        graphs={graph: checked},
        N=_parsed(metadata["N"], int).whole(1, MAX_SIDE_PX),
        gridsize=_parsed(metadata["gridsize"], int).whole(1, MAX_GRIDSIZE),
        domain=domain,
        exporter_version=str(entries["exporter_version"]),
        scale_formula=formula,  # type: ignore[arg-type]  # one of them, as was seen above
        scale_value=_parsed(metadata["input_scale_value"], float).positive() if entries["input_scale_value"] else None,
        era=era,
        positions_sign=sign,
    )


def _parsed(entry: Field, kind: type[int] | type[float]) -> Field:
    """Return a number that is written as text."""
    try:
        return Field(kind(entry.text(64)), entry.label, entry.path)
    except ValueError:
        raise entry.fault("a number") from None


def load_golden(export: Export) -> dict[str, np.ndarray]:
    """Return `golden.npz` by array name.

    Raises:
        NotExportedError: the export has none.
        DamagedExportError: it cannot be read, holds other graphs than the export, or would let anything pass.
    """
    if export.golden is None:
        raise NotExportedError(f"{export.path.name}: holds no {contract.GOLDEN_NPZ}; export the bundle again")
    label = f"{export.path.name}: {contract.GOLDEN_NPZ}"
    arrays = read_npz(export.golden, label)
    held = {name.partition(".")[0] for name in arrays}
    if held != set(export.graphs):
        raise DamagedExportError(
            f"{label} is of {printable(', '.join(sorted(held)))}; the export has {', '.join(sorted(export.graphs))}; "
            "export the bundle again"
        )
    check_golden(arrays, {graph: CheckedModel(model).told for graph, model in export.graphs.items()}, label)
    return arrays


def _variants(
    archive: zipfile.ZipFile, record: ExportRecord, graphs: Mapping[str, bytes], label: str
) -> dict[tuple[str, str], Variant]:
    """Return the variants in reduced precision by graph and device."""
    variants: dict[tuple[str, str], Variant] = {}
    for entry in record.variants:
        own = record.graphs[entry.graph].files["onnx"]
        model = graphs[entry.graph]
        if entry.file.path != own.path:
            model = _graph(_verified(archive, entry.file, label), record, entry.graph, entry.file, label)
        elif entry.file != StoredFile(own.path, own.sha256, own.size_bytes):
            raise DamagedExportError(
                f"{label}: {contract.EXPORTS_JSON} gives a variant's {own.path} another sha256 than the graph's; export the bundle again"
            )
        variant = Variant(
            entry.graph, model, entry.engine, entry.precision, entry.int8_layers, entry.budget, entry.errors
        )
        variants[entry.graph, variant.device] = variant
    return variants


def _graph(data: bytes, record: ExportRecord, graph: str, stored: StoredFile, label: str) -> CheckedModel:
    """Return an ONNX file that is whole, of the contract's tensors, and says of itself what `exports.json` says."""
    label = f"{label}: {stored.path}"
    model = CheckedModel(data, label)
    _check_tensors(model.told, graph, label, record.graphs[graph])
    refuse_other_metadata(model.told, record, graph, label)
    return model


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


def _verified(archive: zipfile.ZipFile, stored: StoredFile, label: str) -> bytes:
    data = _read(archive, stored.path, label, stored.size_bytes)
    digest = hashlib.sha256(data).hexdigest()
    if digest != stored.sha256:
        raise DamagedExportError(
            f"{label}: {stored.path} is not the file that was exported (sha256 {digest[:12]}…, {contract.EXPORTS_JSON} says "
            f"{stored.sha256[:12]}…); do not use it, copy or export the bundle again"
        )
    return data


def _check_tensors(model: GraphFile, graph: str, label: str, stored: StoredGraph | None) -> None:
    inputs, outputs = _TENSORS[graph]
    listed: tuple[Any, Any] = ((), ()) if stored is None else (stored.inputs, stored.outputs)
    for what, tensors, known, expected in (
        ("input", model.inputs, inputs, listed[0]),
        ("output", model.outputs, outputs, listed[1]),
    ):
        names = [info["name"] for info in tensors]
        if not set(names) <= set(known) or (graph != contract.AUTOENCODER and names != list(known)):
            raise UnsafeGraphError(f"{label}: has the {what}s {', '.join(names)}; expected of {', '.join(known)}")
        if stored is not None and tuple(tensors) != expected:
            raise UnsafeGraphError(f"{label}: its {what}s are not those that {contract.EXPORTS_JSON} lists")
