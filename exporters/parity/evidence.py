"""What a report keeps to show and to replay: the worst row of each graph with its arrays, and how errors are spread."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exporters.parity.rows import STORED_RUNTIMES, ParityRow
from ptycho_runtime.export.npz import read_npz
from ptycho_runtime.files import printable
from ptycho_runtime.metrics import difference, object_field, phase_weight
from ptycho_torch.bundle.write import npz_bytes
from ptycho_torch.errors import BundleError

Arrays = Mapping[str, np.ndarray]
REPLAY_SCHEMA = "ptycho-export/replay"
REPLAY_VERSION = 1
MAX_REPLAY_BYTES = 4 << 30
BINS = np.arange(
    -12.0, 0.51, 0.25
)  # log10 of an error over the output's largest magnitude; smaller ones fall in the first


@dataclass(frozen=True)
class Case:
    """One row's arrays: enough to run it again and to look at it."""

    graph: str
    runtime: str
    device: str
    precision: str
    share: float
    failed: bool
    kinds: list[str]
    feed: Arrays
    found: Arrays
    reference: Arrays
    eager32: Arrays  # what the budget is made of
    worst_output: str = ""  # which of the outputs is nearest to its limits

    def group_errors(self) -> np.ndarray:
        """Return each group's relative error of the object, (batch,); of the first output where the row holds no object."""
        got, wanted = object_field(self.found), object_field(self.reference)
        if got is None or wanted is None:
            name = next(iter(self.reference))
            got, wanted = self.found[name].astype(np.float64), self.reference[name]
        axes = tuple(range(1, got.ndim))
        norm = np.sqrt((np.abs(wanted) ** 2).sum(axes))
        found: np.ndarray = np.sqrt((np.abs(got - wanted) ** 2).sum(axes)) / np.where(norm > 0.0, norm, 1.0)
        return found


@dataclass(frozen=True)
class SpeedPoint:
    """One way of running a graph in reduced precision: how fast it is, and what it errs."""

    graph: str
    label: str
    times_as_fast: float
    """As float32 under onnxruntime."""
    phase_rad: float
    allowed_rad: float
    stored: bool


@dataclass
class Evidence:
    """Collects while the rows are judged."""

    name: str
    artifacts: Mapping[str, Mapping[str, bytes]] = field(
        default_factory=dict
    )  # the exported files, by graph and format
    worst: dict[str, Case] = field(default_factory=dict)  # by graph; of the stored files
    shown: dict[str, Case] = field(default_factory=dict)  # the same among the largest batches, which have a median
    histograms: dict[tuple[str, str], np.ndarray] = field(
        default_factory=dict
    )  # by (graph, "runtime device precision")
    speeds: list[SpeedPoint] = field(default_factory=list)
    """What was tried in reduced precision."""

    def add(
        self, row: ParityRow, kinds: list[str], feed: Arrays, found: Arrays, reference: Arrays, eager32: Arrays
    ) -> None:
        """Take a judged row; its arrays are kept if it is the worst of its graph."""
        comparable = [k for k in reference if k in found and found[k].shape == reference[k].shape]
        counts = np.zeros(len(BINS) - 1, np.int64)
        for name in comparable:
            largest = float(np.abs(reference[name]).max(initial=0.0)) or 1.0
            delta = (
                np.abs(
                    np.nan_to_num(
                        difference(name, found[name], reference[name], phase_weight(name, reference)), nan=1e3
                    )
                )
                / largest
            )
            counts += np.histogram(np.clip(np.log10(delta + 1e-300), BINS[0], BINS[-1]), BINS)[0]
        label = f"{row.runtime} {row.device}" + ("" if row.precision == "float32" else f" {row.precision}")
        key = row.graph, label
        self.histograms[key] = self.histograms.get(key, 0) + counts
        if row.runtime not in STORED_RUNTIMES or not comparable:
            return
        failed = row.verdict == "failed"
        share = row.worst()[1] if row.outputs else float("inf")
        case = Case(
            row.graph,
            row.runtime,
            row.device,
            row.precision,
            share,
            failed,
            kinds,
            feed,
            found,
            reference,
            eager32,
            row.worst()[0],
        )
        self._keep_worst(case)
        self._keep_shown(case)

    def merge(self, later: Evidence) -> None:
        """Take what was collected elsewhere of rows that come after those that are here."""
        for key, counts in later.histograms.items():
            self.histograms[key] = self.histograms.get(key, 0) + counts
        for case in later.worst.values():
            self._keep_worst(case)
        for case in later.shown.values():
            self._keep_shown(case)

    def _keep_worst(self, case: Case) -> None:
        held = self.worst.get(case.graph)
        if held is None or (case.failed, case.share) > (held.failed, held.share):
            self.worst[case.graph] = case

    def _keep_shown(self, case: Case) -> None:
        seen = self.shown.get(case.graph)
        if seen is None or (case.failed, len(case.kinds), case.share) > (seen.failed, len(seen.kinds), seen.share):
            self.shown[case.graph] = case

    def replay_files(self) -> dict[str, bytes]:
        """Return a file for `ptycho-export replay` for each graph, by name; one that failed holds the exported file too."""
        files = {}
        for graph, case in self.worst.items():
            kind = "onnx" if case.runtime == "onnx" else "torchscript"
            model = self.artifacts[graph][kind] if case.failed else None
            files[f"worst.{graph}.npz"] = replay_bytes(self.name, case, model)
        return files


def replay_bytes(name: str, case: Case, model: bytes | None) -> bytes:
    """Return a case as the bytes of an NPZ file."""
    about = {
        "schema": REPLAY_SCHEMA,
        "schema_version": REPLAY_VERSION,
        "name": name,
        **{key: getattr(case, key) for key in ("graph", "runtime", "device", "precision", "failed", "kinds")},
    }
    arrays = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
    if model is not None:
        arrays["model"] = np.frombuffer(model, np.uint8)
    for part in ("feed", "found", "reference", "eager32"):
        arrays |= {f"{part}.{key}": value for key, value in getattr(case, part).items()}
    return npz_bytes(arrays)


def read_replay(data: bytes, where: str) -> tuple[Case, str, bytes | None]:
    """Return (case, the bundle's name, the exported file if it is in there).

    Raises `BundleError` where it is no replay file.
    """
    try:
        arrays = read_npz(data, "it", MAX_REPLAY_BYTES)
        about: dict[str, Any] = json.loads(arrays.pop("about").tobytes())
        if (about.pop("schema"), about.pop("schema_version")) != (REPLAY_SCHEMA, REPLAY_VERSION):
            raise ValueError("another schema")
        name, model = str(about.pop("name")), arrays.pop("model", None)
        parts: dict[str, dict[str, np.ndarray]] = {"feed": {}, "found": {}, "reference": {}, "eager32": {}}
        for key, value in arrays.items():
            part, _, output = key.partition(".")
            parts[part][output] = value
        graph, runtime, device, precision = (str(about[key]) for key in ("graph", "runtime", "device", "precision"))
        kinds, failed = [str(kind) for kind in about["kinds"]], bool(about["failed"])
        case = Case(
            graph,
            runtime,
            device,
            precision,
            0.0,
            failed,
            kinds,
            parts["feed"],
            parts["found"],
            parts["reference"],
            parts["eager32"],
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"{where}: is no replay file of ptycho-export ({type(error).__name__}: {printable(error, 200)})"
        ) from error
    return case, name, None if model is None else model.tobytes()
