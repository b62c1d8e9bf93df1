"""The outcome of a bench: ratios first, each the median of rounds in which both contenders took turns, with its spread."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from exporters.bench.contenders import EAGER, FROZEN, ONNX, ONNX_CENTRE, REDUCED
from exporters.bench.end_to_end import END_TO_END, EndToEnd
from exporters.bench.loading import Loading
from exporters.bench.profile import LayerTime
from exporters.bench.race import Turns

SCHEMA = "ptycho-export/bench"
SCHEMA_VERSION = 1
TARGET_BATCH = 16


@dataclass
class Row:
    """One contender on one device and batch size."""

    contender: str
    device: str
    batch: int  # groups
    turns: Turns

    @property
    def reason(self) -> str:
        """Return why it did not run; empty where it did."""
        return self.turns.reason

    @property
    def seconds(self) -> float:
        """Return the median time of a batch."""
        return statistics.median(self.turns.seconds)


@dataclass
class Cost:
    """What a contender costs beside its time per batch."""

    contender: str
    device: str
    cold_s: list[float] = field(default_factory=list)  # from starting a process to the first result of batch 1
    peak_bytes: list[int] = field(default_factory=list)  # of those processes
    file_bytes: int = 0
    accuracy: dict[str, float] = field(default_factory=dict)  # against eager float64
    reason: str = ""


@dataclass(frozen=True)
class Ratio:
    """A median of paired rounds with the quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the median with the quartiles behind it."""
        return f"{self.median:.2f} ({self.low:.2f}–{self.high:.2f})"


@dataclass(frozen=True)
class Target:
    """One goal, what was measured, and whether it is reached; None where the run did not measure it."""

    text: str
    goal: float
    found: float | None
    at_most: bool = False

    @property
    def verdict(self) -> str:
        """Return the outcome in words."""
        if self.found is None:
            return "not measured"
        reached = self.found <= self.goal if self.at_most else self.found >= self.goal
        return "reached" if reached else "not reached"


@dataclass
class BenchReport:
    """All of one run."""

    name: str
    threads: int
    patterns_per_group: int
    multiply_adds: int  # of one group
    rows: list[Row]
    costs: list[Cost]
    limits: dict[str, float]  # multiply-adds per second, by device
    centre_multiply_adds: int = 0  # of one group, where only the middle of the patches is computed
    centre_leaves_out: bool = False  # whole convolutions, since a mask keeps the outer path out of the middle
    export_s: float | None = None  # an export, parity included; None where the bundle came exported
    disturbance: dict[str, list[float]] = field(default_factory=dict)  # share of the cores others took, by device
    host: dict[str, Any] = field(default_factory=dict)
    loading: Loading | None = None
    end_to_end: EndToEnd | None = None  # where a scan was given
    layers: list[LayerTime] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def batches(self) -> list[int]:
        """Return the batch sizes, ascending."""
        return sorted({row.batch for row in self.rows})

    def row(self, contender: str, batch: int, device: str = "cpu") -> Row | None:
        """Return a row that was measured, or None."""
        return next((r for r in self.rows if self._is(r, contender, batch, device) and r.turns.seconds), None)

    @staticmethod
    def _is(row: Row, contender: str, batch: int, device: str) -> bool:
        return (row.contender, row.batch, row.device) == (contender, batch, device)

    def ratio(self, contender: str, batch: int, device: str = "cpu", against: str = EAGER) -> Ratio | None:
        """Return how many times as fast a contender is as another; None where either did not run."""
        mine, other = self.row(contender, batch, device), self.row(against, batch, device)
        if mine is None or other is None:
            return None
        return spread([b / a for a, b in zip(mine.turns.seconds, other.turns.seconds, strict=True)])

    def patterns_per_s(self, row: Row) -> float:
        """Return the diffraction patterns a second."""
        return row.batch * self.patterns_per_group / row.seconds

    def limit_share(self, contender: str, batch: int, device: str = "cpu") -> float | None:
        """Return the graph's multiply-adds a second over those of the fastest matrix product; None where either is unknown."""
        row, limit = self.row(contender, batch, device), self.limits.get(device)
        count = self.centre_multiply_adds if "centre" in contender else self.multiply_adds
        return None if row is None or not limit else count * row.batch / row.seconds / limit

    def layer_limit_share(self, layer: LayerTime) -> float | None:
        """Return at what share of the limit a layer of the profile multiplies, its share of the time taken as that of ONNX float32."""
        whole = self.limit_share(ONNX, TARGET_BATCH)
        return None if whole is None or not layer.share else whole * layer.multiply_adds_share / layer.share

    def without_products(self) -> dict[str, float]:
        """Return the shares of the profiled time by operator, of nodes that multiply nothing worth counting; longest first."""
        found: dict[str, float] = {}
        for layer in self.layers:
            if not layer.multiply_adds_share:
                found[layer.operator] = found.get(layer.operator, 0.0) + layer.share
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def cost(self, contender: str, device: str = "cpu") -> Cost | None:
        """Return a contender's costs, or None."""
        return next((c for c in self.costs if (c.contender, c.device) == (contender, device) and c.cold_s), None)

    def cold_ratio(self, contender: str, device: str = "cpu") -> float | None:
        """Return a contender's cold start as a share of eager's."""
        mine, eager = self.cost(contender, device), self.cost(EAGER, device)
        return (
            None if mine is None or eager is None else statistics.median(mine.cold_s) / statistics.median(eager.cold_s)
        )

    def memory_ratio(self, contender: str, device: str = "cpu") -> float | None:
        """Return a contender's peak memory as a share of eager's."""
        mine, eager = self.cost(contender, device), self.cost(EAGER, device)
        if mine is None or eager is None or not max(eager.peak_bytes):
            return None
        return statistics.median(mine.peak_bytes) / statistics.median(eager.peak_bytes)

    def targets(self) -> list[Target]:
        """Return the goals for ONNX float32 on the CPU with what was measured."""
        eager, frozen = (self.ratio(ONNX, TARGET_BATCH, against=other) for other in (EAGER, FROZEN))
        centre = self.ratio(ONNX_CENTRE, TARGET_BATCH, against=ONNX)
        reduced = [
            ratio.median
            for name, whole in REDUCED.items()
            if (ratio := self.ratio(name, TARGET_BATCH, against=whole)) is not None
        ]
        targets = [
            Target(f"ONNX float32 over eager, batch {TARGET_BATCH}", 2.5, eager.median if eager else None),
            Target(
                f"ONNX float32 over frozen TorchScript, batch {TARGET_BATCH}", 2.3, frozen.median if frozen else None
            ),
            Target(
                f"ONNX float32, share of the matrix-multiply limit, batch {TARGET_BATCH}",
                0.8,
                self.limit_share(ONNX, TARGET_BATCH),
            ),
        ]
        if self.centre_leaves_out:
            text = f"centre over the whole patches, ONNX float32, batch {TARGET_BATCH}"
            targets.append(Target(text, 1.15, centre.median if centre else None))
        if self.end_to_end is not None:
            whole = self.end_to_end
            text = f"{END_TO_END}, {whole.patterns} patterns:"
            targets += [
                Target(f"{text} share of the time in the session", 0.85, None if whole.reason else whole.share),
                Target(f"{text} rate over the session's alone", 0.9, None if whole.reason else whole.rate),
            ]
        return [
            *targets,
            Target(
                f"stored variant, within its budget, over the same graph in ONNX float32, batch {TARGET_BATCH}",
                2.5,
                max(reduced, default=None),
            ),
            Target("export, parity included (s)", 60.0, self.export_s, at_most=True),
            Target("cold start of ONNX float32 over eager's", 0.2, self.cold_ratio(ONNX), at_most=True),
        ]

    def missing(self) -> list[tuple[str, str, str]]:
        """Return (contender, device, reason) of what did not run, once each."""
        found = [(row.contender, row.device, row.reason) for row in self.rows if row.reason]
        found += [(cost.contender, cost.device, cost.reason) for cost in self.costs if cost.reason]
        if self.end_to_end is not None and self.end_to_end.reason:
            found.append((END_TO_END, "cpu", self.end_to_end.reason))
        return list(dict.fromkeys(found))

    def contenders(self, device: str = "cpu") -> list[str]:
        """Return the contenders that ran on a device, in order."""
        return list(dict.fromkeys(r.contender for r in self.rows if r.device == device and r.turns.seconds))

    def devices(self) -> list[str]:
        """Return the devices on which something ran."""
        return list(dict.fromkeys(r.device for r in self.rows if r.turns.seconds))

    def to_json(self) -> str:
        """Return the run as schema-versioned JSON, with what was computed from it."""
        document = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            **asdict(self),
            "targets": [{**asdict(target), "verdict": target.verdict} for target in self.targets()],
            "over_eager": [
                {"contender": name, "device": device, "batch": batch, **asdict(ratio)}
                for device in self.devices()
                for name in self.contenders(device)
                for batch in self.batches()
                if (ratio := self.ratio(name, batch, device)) is not None
            ],
        }
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> BenchReport:
        """Return the run that `to_json` wrote; raises `ValueError` for another schema."""
        document = json.loads(text)
        found = (document.get("schema"), document.get("schema_version"))
        if found != (SCHEMA, SCHEMA_VERSION):
            raise ValueError(f"schema {found}; expected {(SCHEMA, SCHEMA_VERSION)}")
        rows = [Row(**{**row, "turns": Turns(**row["turns"])}) for row in document.pop("rows")]
        costs = [Cost(**cost) for cost in document.pop("costs")]
        layers = [LayerTime(**layer) for layer in document.pop("layers")]
        loading, whole = document.pop("loading"), document.pop("end_to_end", None)
        for computed in ("schema", "schema_version", "targets", "over_eager"):
            document.pop(computed)
        return cls(
            **document,
            rows=rows,
            costs=costs,
            layers=layers,
            loading=loading and Loading(**loading),
            end_to_end=whole and EndToEnd(**whole),
        )


def spread(values: Sequence[float]) -> Ratio:
    """Return the median with the quartiles; of one number, that number thrice."""
    if len(values) == 1:
        return Ratio(values[0], values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Ratio(middle, low, high)
