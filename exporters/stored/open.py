"""A bundle's stored exports before they are run: the files that `exports.json` names, whole and of these weights."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from typing import Self

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.errors import DamagedExportError, NotExportedError
from ptycho_runtime.export.bundle import refuse_other_metadata, refuse_unnamed_graphs
from ptycho_runtime.export.npz import read_npz
from ptycho_runtime.export.onnx_file import CheckedModel
from ptycho_runtime.export.parse import parse
from ptycho_runtime.export.record import ExportRecord, StoredFile, StoredVariant
from ptycho_torch.bundle import BundleRecord
from ptycho_torch.errors import DamagedBundleError

GOLDEN_FACTOR = 4.0  # between allowed errors computed on two hosts: eager float32's own rounding differs by processor
GOLDEN_TOLERANCE = 1e-9  # relative L2 between a stored float64 reference and the same one computed on another host


class StoredExports:
    """The exports in a bundle; what is wrong with a file is noted in `problems` when it is read.

    Attributes:
        bundle: what they lie in.
        record: its `exports.json`.
        problems: files that are not those that were exported, a line each.
    """

    def __init__(self, bundle: BundleRecord, record: ExportRecord) -> None:
        """Take a bundle and its record; `open` reads and checks the record."""
        self.bundle, self.record = bundle, record
        self.problems: list[str] = []

    @classmethod
    def open(cls, bundle: BundleRecord) -> Self:
        """Return a bundle's exports.

        Raises:
            NotExportedError: there are none, or they are of another schema.
            DamagedExportError: `exports.json` is garbled, or does not name a graph that lies in the bundle.
            DamagedBundleError: PtychoPINN's own members are not those that were exported.
        """
        label = bundle.path.name
        members = [name for name, _ in bundle.members]
        if contract.EXPORTS_JSON not in members:
            raise NotExportedError(f"{label}: holds no exports; run ptycho-export export on it first")
        record = parse(bundle.read_member(contract.EXPORTS_JSON), label)
        refuse_unnamed_graphs(members, record.graphs, label)
        if record.bundle.members_sha256 != bundle.members_sha256:
            raise DamagedBundleError(
                f"{label}: PtychoPINN's own members changed since they were exported (sha256 {bundle.members_sha256[:12]}…, "
                f"exports.json says {record.bundle.members_sha256[:12]}…); export the bundle again"
            )
        return cls(bundle, record)

    def onnx(self, graph: str) -> CheckedModel:
        """Return a graph's ONNX file; one that says something else of itself than `exports.json` says of it is a problem.

        Raises:
            NotExportedError: it is absent.
            UnsafeGraphError: it asks for more than any export has.
            DamagedExportError: it is no ONNX file.
        """
        return self._model(self._files(graph)["onnx"], graph)

    def torchscript(self, graph: str) -> bytes:
        """Return a graph's TorchScript file, by anybody: see `exporters.stored.torchscript` before it is run."""
        return self._read(self._files(graph)["torchscript"])

    @property
    def golden(self) -> bytes:
        """The stored `golden.npz`."""
        return self._read(self.record.golden)

    @property
    def variants(self) -> tuple[StoredVariant, ...]:
        """The variants in reduced precision."""
        return self.record.variants

    def variant(self, entry: StoredVariant) -> CheckedModel:
        """Return a variant's ONNX file; errors as of `onnx`."""
        return self._model(entry.file, entry.graph)

    @property
    def variant_patterns(self) -> bytes:
        """The patterns that the variants were judged by; raises `NotExportedError` where there are none."""
        if self.record.variant_patterns is None:
            raise NotExportedError(f"{self.bundle.path.name}: has no variants in reduced precision")
        return self._read(self.record.variant_patterns)

    @property
    def checkpoint_params(self) -> dict[str, object] | None:
        """What the bundle itself lacks: a checkpoint's parameters were given at export."""
        return dict(self.record.params) if self.bundle.kind == "ckpt" else None

    def refuse_other_graphs(self, graphs: Iterable[str]) -> None:
        """Raise `NotExportedError` unless `exports.json` names the graphs that the bundle's weights give, no fewer and no others."""
        named, given = sorted(self.record.graphs), sorted(graphs)
        if named != given:
            raise NotExportedError(
                f"{self.bundle.path.name}: exports.json names {', '.join(named)}; the bundle's own weights give {', '.join(given)}; "
                "export the bundle again"
            )

    def refuse_problems(self) -> None:
        """Raise `DamagedBundleError` where a file that was read is not the one that was exported."""
        if self.problems:
            raise DamagedBundleError(f"{self.bundle.path.name}: {'; '.join(self.problems)}; export the bundle again")

    def _files(self, graph: str) -> dict[str, StoredFile]:
        if graph not in self.record.graphs:
            raise NotExportedError(f"{self.bundle.path.name}: holds no {graph} graph")
        return dict(self.record.graphs[graph].files)

    def _read(self, stored: StoredFile) -> bytes:
        if stored.path not in dict(self.bundle.members):
            raise NotExportedError(
                f"{self.bundle.path.name}: lacks {stored.path}, which exports.json names; export the bundle again"
            )
        data = self.bundle.read_member(stored.path)
        digest = hashlib.sha256(data).hexdigest()
        if digest != stored.sha256:
            self._note(
                f"{stored.path} is not the file that was exported (sha256 {digest[:12]}…, exports.json says {stored.sha256[:12]}…)"
            )
        return data

    def _model(self, stored: StoredFile, graph: str) -> CheckedModel:
        """Return an ONNX file that passed the gate before every session."""
        model = CheckedModel(self._read(stored), f"{self.bundle.path.name}: {stored.path}")
        try:
            refuse_other_metadata(model.told, self.record, graph, stored.path)
        except DamagedExportError as error:
            self._note(str(error))
        return model

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def golden_problems(stored: bytes, fresh: bytes) -> list[str]:
    """Return what in a stored `golden.npz` the original weights do not give again; allowed errors may differ by host."""
    try:
        old = read_npz(stored, contract.GOLDEN_NPZ)
    except DamagedExportError as error:
        return [str(error)]
    with np.load(io.BytesIO(fresh)) as new:
        if sorted(old) != sorted(new.files):
            return [f"{contract.GOLDEN_NPZ} holds other arrays than the models have"]
        # What was computed tells more than what it allows, so that comes last.
        for name in sorted(new.files, key=lambda name: (".allowed." in name, name)):
            a, b = old[name], new[name]
            if a.shape != b.shape or a.dtype != b.dtype:
                return [f"{contract.GOLDEN_NPZ}: {name} is {a.dtype} {a.shape}; expected {b.dtype} {b.shape}"]
            kind = name.split(".")[1]
            if kind == "allowed":
                if not ((a >= b / GOLDEN_FACTOR) & (a <= b * GOLDEN_FACTOR)).all():
                    return [f"{contract.GOLDEN_NPZ}: {name} is {a.tolist()}; the weights give {b.tolist()}"]
                continue
            distance = float(np.linalg.norm(a.ravel() - b.ravel())) / max(float(np.linalg.norm(b.ravel())), 1e-300)
            limit = 0.0 if kind == "input" else GOLDEN_TOLERANCE
            if not distance <= limit:
                return [
                    f"{contract.GOLDEN_NPZ}: {name} is {distance:.1e} away from what the weights give (relative L2)"
                ]
    return []
