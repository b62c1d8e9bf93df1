"""The report's tables for the terminal: the matrix, layer by layer, and stitched objects."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from exporters.parity.report import ParityReport
from exporters.parity.rows import Divergence, ParityRow, StitchedRow


def matrix_table(report: ParityReport) -> Table:
    """Return the rows, one line for all batches of a runtime and device."""
    batches = sorted({row.batch for row in report.rows})
    title = f"Parity of {report.name}, batches {', '.join(map(str, batches))}"
    table = Table(title=title, caption=report.summary(), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("runtime", no_wrap=True)
    # Lines break between words alone.
    for heading in ("device", "precision"):
        table.add_column(heading, min_width=len("precision"))
    for heading in ("max abs", "rel. L2", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    folded = report.folded()
    for graph in dict.fromkeys(row.graph for row in report.rows):
        table.add_section()
        table.add_row(Text(graph, style="bold"))
        for rows in folded:
            if rows[0].graph != graph:
                continue
            if any(row.verdict != "not run" for row in rows):
                table.add_row(*_line(rows))
    return table


def not_run_lines(report: ParityReport) -> list[str]:
    """Return one line for each device on which something did not run, with the runtimes and the reasons."""
    groups: dict[str, list[ParityRow]] = {}
    for row in report.rows:
        if row.verdict == "not run":
            groups.setdefault(row.device, []).append(row)
    return [
        f"not run on {device}: {', '.join(dict.fromkeys(row.runtime for row in rows))} "
        f"({'; '.join(dict.fromkeys(row.reason for row in rows))})"
        for device, rows in groups.items()
    ]


def _line(rows: list[ParityRow]) -> tuple[str | Text, ...]:
    """Return one line of the table: the batches of one runtime, device and precision, by the worst of them."""
    worst = max(rows, key=lambda row: row.gravity)
    name, share = worst.worst()
    figures = worst.outputs.get(name, {})
    failed = [str(row.batch) for row in rows if row.verdict == "failed"]
    verdict = _verdict(not failed)
    if failed:
        verdict.append(f" (batch {', '.join(failed)}){': ' if worst.reason else ''}{worst.reason}", style="default")
    numbers = [f"{figures[key]:.1e}" if key in figures else "–" for key in ("max_abs", "rel_l2")]
    shown = f"{share:.3g}" if name else "–"
    return worst.runtime, worst.device, worst.precision, *numbers, shown, verdict


def _verdict(passed: bool) -> Text:
    return Text("passed", style="green") if passed else Text("failed", style="red")


def layer_table(found: Divergence) -> Table:
    """Return the layers around the first that is beyond its share."""
    table = Table(
        title=f"Layer by layer: {found.graph}, {found.runtime} on {found.device}",
        caption=found.summary(),
        box=SIMPLE_HEAD,
    )
    table.add_column("layer", overflow="fold")
    for heading in ("rel. L2", "allowed", "share", "growth"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in found.around():
        cells = (f"{layer.rel_l2:.1e}", f"{layer.allowed_rel_l2:.1e}", f"{layer.share:.3g}", f"{layer.growth:.3g}")
        table.add_row(layer.layer, *cells, style="red" if found.blames(layer) else None)
    return table


def stitched_table(rows: list[StitchedRow]) -> Table:
    """Return how far each runtime's stitched object is from eager float64's."""
    title = f"Objects stitched from {rows[0].patterns} patterns, against eager float64"
    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column("runtime", no_wrap=True)
    table.add_column("device", no_wrap=True)
    for heading in ("1 − FRC, lowest ring", "1 − SSIM amplitude", "1 − SSIM phase"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for row in rows:
        cells = (f"{found:.1e} of {limit:.1e}" for found, limit in zip(row.deficits, row.allowed, strict=True))
        table.add_row(row.runtime, row.device, *cells, _verdict(row.passed))
    return table
