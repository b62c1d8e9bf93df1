"""What a notebook shows of a parity report: a fragment of HTML, without scripts."""

from __future__ import annotations

from exporters.parity.forms.html import escape
from exporters.parity.report import ParityReport
from exporters.parity.rows import ParityRow

_HEADINGS = ("graph", "runtime", "device", "precision", "batches", "worst share of what is allowed", "verdict")


def to_fragment(report: ParityReport) -> str:
    """Return verdict and matrix; each runtime, device and precision is shown by its worst batch."""
    head = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
    lines = "".join(_line(rows) for rows in report.folded())
    return (
        f"<div><p><strong>{'passed' if report.passed else 'failed'}</strong>: {escape(report.summary())}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _line(rows: list[ParityRow]) -> str:
    worst = max(rows, key=lambda row: row.gravity)
    name, share = worst.worst()
    verdict = worst.verdict + (f": {worst.reason}" if worst.reason else "")
    cells = (
        worst.graph, worst.runtime, worst.device, worst.precision, ", ".join(str(row.batch) for row in rows),
        f"{share:.3g} ({name})" if name else "–", verdict,
    )  # fmt: skip
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
