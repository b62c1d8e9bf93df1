"""The outcome of a parity check: rows with figures, a verdict that cannot pass by accident, and its forms."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from rich.box import SIMPLE_HEAD
from rich.table import Table

from exporters.parity.bisect import Divergence
from exporters.parity.metrics import RULE
from exporters.parity.stitched import StitchedRow
from ptycho_runtime import contract as c
from ptycho_torch.errors import BundleError

if TYPE_CHECKING:
    from exporters.parity.evidence import Evidence

SCHEMA = "ptycho-export/parity"
SCHEMA_VERSION = 1
STORED_RUNTIMES = ("torchscript", "onnx")


@dataclass
class ParityRow:
    """One graph on one runtime, device and batch size."""

    graph: str
    runtime: str
    device: str
    precision: str
    batch: int
    inputs: str
    verdict: str  # "passed", "failed" or "not run"
    reason: str = ""
    outputs: dict[str, dict[str, float]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def worst(self) -> tuple[str, float]:
        """Return (output, error as a share of what is allowed) of the worst output."""
        shares = {name: figures["share"] for name, figures in self.outputs.items() if "share" in figures}
        name = max(shares, key=lambda key: shares[key]) if shares else ""
        return name, shares.get(name, 0.0)


@dataclass
class ParityReport:
    """All rows of one check."""

    name: str
    rows: list[ParityRow]
    required: tuple[str, ...] = ()
    host: dict[str, Any] = field(default_factory=dict)
    reference: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)  # stored files that are not what was exported
    divergence: list[Divergence] = field(
        default_factory=list
    )  # layer by layer, of graphs that failed or were asked for
    stitched: list[StitchedRow] = field(default_factory=list)  # of a scan
    evidence: Evidence | None = field(default=None, repr=False, compare=False)  # arrays to show and replay

    @property
    def passed(self) -> bool:
        """Say whether every row that ran passed and at least one stored file was really compared per graph."""
        compared = {(row.graph, row.runtime) for row in self.rows if row.verdict == "passed" and row.outputs}
        wanted = {(row.graph, runtime) for row in self.rows for runtime in STORED_RUNTIMES}
        return bool(wanted) and wanted <= compared and not self.failures() and not self.problems and self.stitched_well

    @property
    def stitched_well(self) -> bool:
        """Say whether no runtime's stitched object differs by more than rounding explains."""
        return all(row.passed for row in self.stitched)

    def failures(self) -> list[ParityRow]:
        """Return the rows that failed."""
        return [row for row in self.rows if row.verdict == "failed"]

    def missing_devices(self) -> list[str]:
        """Return the required devices on which no row passed for every graph, or some row did not run."""
        lacking = []
        for device in self.required:
            rows = [row for row in self.rows if row.device == device and row.runtime == "onnx"]
            if not rows or any(row.verdict == "not run" for row in rows):
                lacking.append(device)
        return lacking

    def summary(self) -> str:
        """Return one line: the verdict, or the graph and figure that failed."""
        failures = self.failures()
        if failures:
            row = max(failures, key=lambda row: row.worst()[1])
            stored = "".join(f"; {problem}" for problem in self.problems)
            what = row.reason
            if not what:
                figures = row.outputs[name := row.worst()[0]]
                what = (
                    f"{name} max abs {figures['max_abs']:.2e} (allowed {figures['allowed_max_abs']:.2e}), "
                    f"relative L2 {figures['rel_l2']:.2e} (allowed {figures['allowed_rel_l2']:.2e})"
                )
            found = next((d for d in self.divergence if d.graph == row.graph and d.first is not None), None)
            where = "" if found is None or found.first is None else f"; it diverges first at {found.first.layer}"
            return f"parity failed: {row.graph} {row.runtime} on {row.device}, batch {row.batch}: {what}{where}{stored}"
        if self.problems:
            return f"parity failed: {'; '.join(self.problems)}"
        if not self.stitched_well:
            worst_row = next(row for row in self.stitched if not row.passed)
            deficits = ", ".join(f"{value:.1e}" for value in worst_row.deficits)
            return f"parity failed: the object that {worst_row.runtime} stitches differs (1−FRC, 1−SSIM: {deficits})"
        if not self.passed:
            return "parity failed: nothing was compared"
        ran = sum(row.verdict == "passed" for row in self.rows)
        worst = max((row.worst()[1] for row in self.rows), default=0.0)
        return f"parity passed: {ran} rows, worst error {worst:.2f} of what is allowed"

    def table(self) -> Table:
        """Return the rows as a table for the terminal, one line for all batches of a runtime and device."""
        batches = sorted({row.batch for row in self.rows})
        title = f"Parity of {self.name}, batches {', '.join(map(str, batches))}"
        table = Table(title=title, caption=self.summary(), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("runtime", no_wrap=True)
        for heading in ("device", "precision"):
            table.add_column(heading, overflow="fold")
        for heading in ("max abs", "rel. L2", "share"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("verdict", overflow="fold")
        folded = self.folded()
        for graph in dict.fromkeys(row.graph for row in self.rows):
            table.add_section()
            table.add_row(f"[bold]{graph}[/]")
            absent: dict[str, list[ParityRow]] = {}
            for rows in folded:
                if rows[0].graph != graph:
                    continue
                if all(row.verdict == "not run" for row in rows):
                    absent.setdefault(rows[0].reason, []).append(rows[0])
                else:
                    table.add_row(*self._line(rows))
            for reason, group in absent.items():
                devices, precisions = (
                    ", ".join(dict.fromkeys(getattr(r, k) for r in group)) for k in ("device", "precision")
                )
                runtimes = "all" if len({r.runtime for r in group}) > 1 else group[0].runtime
                table.add_row(runtimes, devices, precisions, "–", "–", "–", f"not run: {reason}")
        return table

    @staticmethod
    def _line(rows: list[ParityRow]) -> tuple[str, ...]:
        """Return one line of the table: the batches of one runtime, device and precision, by the worst of them."""
        first = rows[0]
        worst = max(rows, key=lambda row: row.worst()[1])
        name, share = worst.worst()
        figures = worst.outputs.get(name, {})
        failed = [str(row.batch) for row in rows if row.verdict == "failed"]
        verdict = f"[red]failed[/] (batch {', '.join(failed)})" if failed else "[green]passed[/]"
        numbers = [f"{figures[key]:.1e}" if key in figures else "–" for key in ("max_abs", "rel_l2")]
        return first.runtime, first.device, first.precision, *numbers, f"{share:.3g}", verdict

    def folded(self) -> list[list[ParityRow]]:
        """Return the rows by graph, runtime, device and precision; each list holds its batches."""
        groups: dict[tuple[str, ...], list[ParityRow]] = {}
        for row in self.rows:
            groups.setdefault((row.graph, row.runtime, row.device, row.precision), []).append(row)
        return list(groups.values())

    def to_json(self) -> str:
        """Return the whole report as schema-versioned JSON text."""
        document = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "verdict": "passed" if self.passed else "failed",
            "summary": self.summary(),
            "rule": RULE,
            "required": list(self.required),
            "host": self.host,
            "reference": self.reference,
            "problems": self.problems,
            "rows": [asdict(row) for row in self.rows],
            "divergence": [asdict(found) for found in self.divergence],
            "stitched": [asdict(row) for row in self.stitched],
        }
        return json.dumps(_finite(document), indent=1, sort_keys=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ParityReport:
        """Return the report that `to_json` wrote; raises `ValueError` for anything else."""
        document = json.loads(text)
        if document.get("schema") != SCHEMA or document.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(
                f"schema {document.get('schema')!r} {document.get('schema_version')!r}; expected {SCHEMA} {SCHEMA_VERSION}"
            )
        rows = [ParityRow(**row) for row in document["rows"]]
        return cls(
            document["name"],
            rows,
            tuple(document["required"]),
            document["host"],
            document["reference"],
            document["problems"],
            [Divergence.from_dict(found) for found in document.get("divergence", [])],
            [StitchedRow.from_dict(row) for row in document.get("stitched", [])],
        )

    def contract_info(self) -> c.ParityInfo:
        """Return the verdict as `exports.json` keeps it: without host facts, so that equal exports have equal bytes."""
        rows: list[c.ParityRowInfo] = []
        for row in self.rows:
            info: c.ParityRowInfo = {
                "graph": row.graph,
                "runtime": row.runtime,
                "device": row.device,
                "precision": row.precision,
                "batch": row.batch,
                "inputs": row.inputs,
                "verdict": row.verdict,  # type: ignore[typeddict-item]  # one of the three by construction
                "reason": row.reason,
                "outputs": {name: _finite(figures) for name, figures in row.outputs.items()},
            }
            rows.append(info)
        return {"verdict": "passed" if self.passed else "failed", "rule": RULE, "rows": rows}

    def to_junit(self) -> str:
        """Return the rows as JUnit XML: one test case a row."""
        counts = {v: sum(row.verdict == v for row in self.rows) for v in ("failed", "not run")}
        suite = ElementTree.Element(
            "testsuite", name=f"parity of {self.name}", skipped=str(counts["not run"]), errors="0"
        )
        for row in self.rows:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=f"parity.{row.graph}",
                name=f"{row.runtime} {row.device} {row.precision} batch {row.batch}",
            )
            if row.verdict == "failed":
                ElementTree.SubElement(
                    case, "failure", message=row.reason or "beyond what rounding explains"
                ).text = json.dumps(_finite(row.outputs))
            elif row.verdict == "not run":
                ElementTree.SubElement(case, "skipped", message=f"not run: {row.reason}")
        for problem in self.problems:
            case = ElementTree.SubElement(suite, "testcase", classname="parity.stored", name=problem.split(" ")[0])
            ElementTree.SubElement(case, "failure", message=problem)
        suite.attrib |= {
            "tests": str(len(self.rows) + len(self.problems)),
            "failures": str(counts["failed"] + len(self.problems)),
        }
        ElementTree.indent(suite)
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def read_report(path: Path) -> ParityReport:
    """Return the report in a `parity.json`.

    Raises:
        FileNotFoundError: nothing is there.
        BundleError: it is no parity report.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such report")
    try:
        return ParityReport.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: is no parity report of ptycho-export ({error})") from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return str(value)
    return value


def host_facts() -> dict[str, Any]:
    """Return versions and hardware, for the report."""
    packages = {}
    for package in ("ptycho-export", "torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "command": " ".join(sys.argv),
        "packages": packages,
    }
