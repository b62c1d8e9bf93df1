"""The outcome of a parity check: rows with figures, a verdict that cannot pass by accident, and its forms."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from exporters.parity.rows import STORED_RUNTIMES, Cell, Divergence, ParityRow, StitchedRow, finite
from ptycho_runtime.files import printable

if TYPE_CHECKING:
    from exporters.parity.evidence import Evidence

SCHEMA = "ptycho-export/parity"
SCHEMA_VERSION = 2


@dataclass
class ParityReport:
    """All rows of one check."""

    name: str
    rows: list[ParityRow]
    required: tuple[str, ...] = ()
    host: dict[str, Any] = field(default_factory=dict)
    reference: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)  # stored files that are not what was exported
    planned: tuple[Cell, ...] = ()  # every row that the check set out to give; a lost one fails it
    files: dict[str, dict[str, str]] = field(default_factory=dict)  # sha256 of what was judged, by graph and format
    divergence: list[Divergence] = field(
        default_factory=list
    )  # layer by layer, of graphs that failed or were asked for
    stitched: list[StitchedRow] = field(default_factory=list)  # of a scan
    rule: str = ""  # by which rows passed or failed, in words
    evidence: Evidence | None = field(default=None, repr=False, compare=False)  # arrays to show and replay
    notices: list[str] = field(
        default_factory=list
    )  # what a reader of the verdict must know, such as a file that was not run

    def __repr__(self) -> str:
        """Return what it is in one line."""
        return (
            f"<ParityReport of {printable(self.name)}: {'passed' if self.passed else 'failed'}, {len(self.rows)} rows>"
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the verdict, and each runtime and device by its worst batch."""
        from exporters.parity.forms.notebook import to_fragment

        return to_fragment(self)

    @property
    def passed(self) -> bool:
        """Say whether the exports agree with the original and every required device took part."""
        return self.agrees and not self.missing_devices()

    @property
    def agrees(self) -> bool:
        """Say whether no row is lost, every row that ran passed, and each stored file was really compared per graph."""
        compared = {(row.graph, row.runtime) for row in self.rows if row.verdict == "passed" and row.worst()[0]}
        graphs = {row.graph for row in self.rows} | {cell[0] for cell in self.planned}
        wanted = {(graph, runtime) for graph in graphs for runtime in STORED_RUNTIMES}
        whole = not self.lost_rows() and not self.failures() and not self.problems
        return bool(wanted) and wanted <= compared and whole and self.stitched_well

    @property
    def stitched_well(self) -> bool:
        """Say whether no runtime's stitched object differs by more than rounding explains."""
        return all(row.passed for row in self.stitched)

    def add_rows(self, rows: Iterable[ParityRow]) -> None:
        """Add rows that were planned after the matrix was."""
        added = list(rows)
        self.rows += added
        self.planned = (*self.planned, *(row.cell for row in added))

    def failures(self) -> list[ParityRow]:
        """Return the rows that failed."""
        return [row for row in self.rows if row.verdict == "failed"]

    def lost_rows(self) -> list[Cell]:
        """Return the rows that were planned and are not there."""
        return [cell for cell in self.planned if cell not in {row.cell for row in self.rows}]

    def missing_devices(self) -> list[str]:
        """Return the required devices that have no rows, or rows that did not run."""
        lacking = []
        for device in self.required:
            rows = [row for row in self.rows if row.device == device]
            if not rows or any(row.verdict == "not run" for row in rows):
                lacking.append(device)
        return lacking

    def summary(self) -> str:
        """Return one line: the verdict, and the graph and figure that failed or what did not run."""
        if not self.agrees:
            return f"parity failed: {self._disagreement()}"
        ran = [row for row in self.rows if row.verdict == "passed"]
        worst = max(row.worst()[1] for row in ran)
        on = ", ".join(dict.fromkeys(row.device for row in ran))
        figures = f"{len(ran)} rows on {on}, worst error {worst:.2f} of what is allowed"
        if missing := self.missing_devices():
            reasons = "; ".join(f"{device}: {self.why_not_run(device)}" for device in missing)
            return f"parity failed: required device did not run ({reasons}); what ran passed: {figures}"
        absent = dict.fromkeys(row.device for row in self.rows if row.verdict == "not run")
        return f"parity passed: {figures}{'; not run: ' if absent else ''}{', '.join(absent)}"

    def why_not_run(self, device: str) -> str:
        """Return the reason that a device's rows give for not having run."""
        reasons = (row.reason for row in self.rows if row.device == device and row.verdict == "not run")
        return next(reasons, "not tried")

    def _disagreement(self) -> str:
        stored = "".join(f"; {problem}" for problem in self.problems)
        if failures := self.failures():
            row = max(failures, key=lambda row: row.gravity)
            what = row.reason
            if not what:
                figures = row.outputs[name := row.worst()[0]]
                what = (
                    f"{name} max abs {figures['max_abs']:.2e} (allowed {figures['allowed_max_abs']:.2e}), "
                    f"relative L2 {figures['rel_l2']:.2e} (allowed {figures['allowed_rel_l2']:.2e})"
                )
            found = next((d for d in self._divergences(row) if d.first is not None), None)
            where = "" if found is None or found.first is None else f"; it diverges first at {found.first.layer}"
            return f"{row.graph} {row.runtime} on {row.device}, batch {row.batch}: {what}{where}{stored}"
        if self.problems:
            return "; ".join(self.problems)
        if lost := self.lost_rows():
            return f"{len(lost)} planned rows are lost, the first is {' '.join(map(str, lost[0]))}"
        if not self.stitched_well:
            worst_row = next(row for row in self.stitched if not row.passed)
            deficits = ", ".join(f"{value:.1e}" for value in worst_row.deficits)
            return f"the object that {worst_row.runtime} stitches on {worst_row.device} differs (1−FRC, 1−SSIM: {deficits})"
        return "nothing was compared"

    def _divergences(self, row: ParityRow) -> list[Divergence]:
        return [d for d in self.divergence if d.graph == row.graph and row.runtime.startswith(d.runtime)]

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
            "rule": self.rule,
            "required": list(self.required),
            "host": self.host,
            "reference": self.reference,
            "problems": self.problems,
            "notices": self.notices,
            "files": self.files,
            "planned": self.planned,
            "rows": [asdict(row) for row in self.rows],
            "divergence": [asdict(found) for found in self.divergence],
            "stitched": [asdict(row) for row in self.stitched],
        }
        return json.dumps(finite(document), indent=1, sort_keys=False, ensure_ascii=False) + "\n"
