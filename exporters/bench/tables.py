"""The bench report for people: one set of tables, as Markdown and on the terminal."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from exporters.bench.contenders import EAGER, ONNX
from exporters.bench.end_to_end import EndToEnd
from exporters.bench.profile import LayerTime
from exporters.bench.race import QUIET
from exporters.bench.report import TARGET_BATCH, BenchReport, Row, spread

TOP_LAYERS = 8
_NONE = "–"
_ERRORS = {"rel_l2": "relative L2", "amplitude_rel": "amplitude", "phase_rad": "phase (rad)"}


@dataclass(frozen=True)
class Sheet:
    """A table as text."""

    title: str
    head: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Return it as Markdown."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return f"### {self.title}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"

    def terminal(self) -> Group:
        """Return it for the terminal."""
        table = Table(box=SIMPLE_HEAD)
        for number, heading in enumerate(self.head):
            table.add_column(heading, justify="left" if number == 0 else "right", overflow="fold")
        for cells in self.rows:
            table.add_row(*cells)
        return Group(Text(self.title, style="bold"), table)


def sheets(report: BenchReport) -> list[Sheet]:
    """Return all tables, ratios before absolute numbers."""
    found = [_targets(report)]
    for device in report.devices():
        costs, absolute = _costs(report, device)
        found += [_over_eager(report, device), _limit(report, device), costs, _absolute(report, device), absolute]
    if report.end_to_end is not None and not report.end_to_end.reason:
        found.append(_end_to_end(report.end_to_end))
    if report.layers:
        found.append(_layers(report))
    if report.missing():
        found.append(Sheet("Not run", ["contender", "device", "reason"], [list(row) for row in report.missing()]))
    return found


def remarks(report: BenchReport) -> list[str]:
    """Return what is said beside the tables, a line each."""
    lines = list(report.notes)
    for device, shares in report.disturbance.items():
        quiet = sum(share <= QUIET for share in shares)
        lines.append(
            f"{device}: other processes took {statistics.median(shares):.0%} of the cores in the median round, "
            f"{max(shares):.0%} at most; {quiet} of {len(shares)} rounds were quiet (≤ {QUIET:.0%})"
            + ("" if quiet == len(shares) else "; measure again on an idle machine before believing a figure")
        )
    if report.loading is not None:
        lines.append(report.loading.line())
    lines.append(
        f"{report.multiply_adds / report.patterns_per_group / 1e6:.1f} million multiply-adds a pattern, "
        f"{report.patterns_per_group} pattern{'s' * (report.patterns_per_group > 1)} a group; a batch counts groups"
    )
    lines += [
        f"limit on {device}: {rate / 1e9:.1f} thousand million multiply-adds a second in a matrix product"
        for device, rate in report.limits.items()
    ]
    lines += _why(report)
    packages = ", ".join(f"{name} {version}" for name, version in report.host.get("packages", {}).items())
    threads = f"{report.threads} thread{'s' * (report.threads > 1)}"
    return [*lines, f"{report.host.get('platform', '')}; {threads}; {packages}"]


def to_markdown(report: BenchReport) -> str:
    """Return the report as Markdown."""
    parts = [f"## Bench of {report.name}\n", *(sheet.markdown() for sheet in sheets(report))]
    return "\n".join([*parts, *(f"- {line}" for line in remarks(report))]) + "\n"


def _why(report: BenchReport) -> list[str]:
    """Say in a line what keeps ONNX float32 from the limit."""
    whole, others = report.limit_share(ONNX, TARGET_BATCH), report.without_products()
    if whole is None or not report.layers:
        return []
    idle = sum(others.values())
    most = ", ".join(f"{operator} {share:.0%}" for operator, share in list(others.items())[:4])
    slow = [f"{item.layer} ({item.product})" for item in report.layers if _is_slow(report, item, whole)]
    line = (
        f"ONNX float32 multiplies at {whole:.0%} of the limit on cpu: {idle:.0%} of the time goes into nodes without products"
        f"{f' ({most})' if most else ''}, the rest runs at {whole / (1 - idle):.0%} of the limit"
    )
    return [line + (f"; below {whole:.0%} of it, by time: {', '.join(slow[:3])}" if slow else "")]


def _is_slow(report: BenchReport, item: LayerTime, whole: float) -> bool:
    reached = report.layer_limit_share(item)
    return bool(item.product) and reached is not None and reached < whole


def _targets(report: BenchReport) -> Sheet:
    rows = []
    for target in report.targets():
        goal = f"{'≤' if target.at_most else '≥'} {target.goal:g}"
        rows.append([target.text, goal, _NONE if target.found is None else f"{target.found:.2f}", target.verdict])
    return Sheet("Targets (ratios)", ["target", "goal", "measured", "verdict"], rows)


def _end_to_end(found: EndToEnd) -> Sheet:
    """Return where the time of a whole reconstruction went."""
    rows = [
        ["share of the time in the session", f"{found.share:.2f}", f"{found.share_of_all:.2f}"],
        ["rate over the session's alone", f"{found.rate:.2f}", f"{found.rate_of_all:.2f}"],
        ["patterns/s", f"{found.rate * found.alone_per_s:.0f}", f"{found.rate_of_all * found.alone_per_s:.0f}"],
        ["seconds", f"{found.reconstruct_s:.1f}", f"{found.reconstruct_s + found.look_s:.1f}"],
        ["of these the verdict", f"{found.verdict_s:.1f}", f"{found.verdict_s:.1f}"],
    ]
    title = f"End to end: {found.patterns} patterns from gzip HDF5 to image and verdict, {found.engine}"
    return Sheet(title, ["", "reconstruct", "with the pass that opens the scan"], rows)


def _over_eager(report: BenchReport, device: str) -> Sheet:
    batches = report.batches()
    rows = []
    for name in report.contenders(device):
        ratios = [report.ratio(name, batch, device) for batch in batches]
        rows.append([name, *(_NONE if ratio is None else str(ratio) for ratio in ratios)])
    title = f"Times as fast as eager, {device}: median of paired rounds (quartiles)"
    return Sheet(title, ["contender", *(f"batch {b}" for b in batches)], rows)


def _limit(report: BenchReport, device: str) -> Sheet:
    batches = report.batches()
    rows = []
    for name in report.contenders(device):
        shares = [report.limit_share(name, batch, device) for batch in batches]
        rows.append([name, *(_NONE if share is None else f"{share:.0%}" for share in shares)])
    return Sheet(f"Share of the matrix-multiply limit, {device}", ["contender", *(f"batch {b}" for b in batches)], rows)


def _costs(report: BenchReport, device: str) -> list[Sheet]:
    ratios, absolute = [], []
    eager = report.cost(EAGER, device)
    for cost in report.costs:
        if cost.device != device or cost.reason:
            continue
        found = [report.cold_ratio(cost.contender, device), report.memory_ratio(cost.contender, device)]
        found.append(cost.file_bytes / eager.file_bytes if eager is not None else None)
        ratios.append([cost.contender, *(_NONE if value is None else f"{value:.2f}" for value in found)])
        ratios[-1] += [f"{cost.accuracy[key]:.1e}" if key in cost.accuracy else _NONE for key in _ERRORS]
        seconds = f"{statistics.median(cost.cold_s):.2f}" if cost.cold_s else _NONE
        peak = f"{statistics.median(cost.peak_bytes) / 1e6:.0f}" if cost.peak_bytes else _NONE
        absolute.append([cost.contender, seconds, peak, f"{cost.file_bytes / 1e6:.2f}"])
    return [
        Sheet(
            f"Costs as multiples of eager's, {device}; errors against eager float64",
            ["contender", "cold start", "memory", "file", *_ERRORS.values()],
            ratios,
        ),
        Sheet(
            f"This run, {device}: a fresh process up to its first result of batch 1",
            ["contender", "cold start (s)", "peak memory (MB)", "file (MB)"],
            absolute,
        ),
    ]


def _absolute(report: BenchReport, device: str) -> Sheet:
    batches = report.batches()
    rows = []
    for name in report.contenders(device):
        found = [report.row(name, batch, device) for batch in batches]
        rows.append([name, *(_NONE if row is None else _cell(report, row) for row in found)])
    title = f"This run, {device}: ms a batch (interquartile range), patterns/s"
    return Sheet(title, ["contender", *(f"batch {b}" for b in batches)], rows)


def _cell(report: BenchReport, row: Row) -> str:
    found = spread(row.turns.seconds)
    width = (found.high - found.low) * 1e3
    return f"{found.median * 1e3:.1f} ({width:.1f}), {report.patterns_per_s(row):.0f}/s"


def _layers(report: BenchReport) -> Sheet:
    rows = []
    for item in report.layers[:TOP_LAYERS]:
        reached = report.layer_limit_share(item) if item.multiply_adds_share else None
        share = _NONE if reached is None else f"{reached:.0%}"
        shares = [f"{item.share:.1%}", f"{item.multiply_adds_share:.1%}", share]
        rows.append([item.layer, item.operator, item.product or _NONE, *shares])
    title = f"Where ONNX float32 spends its time, batch {TARGET_BATCH}, CPU"
    head = ["layer", "operator", "kernel", "share of time", "share of multiply-adds", "share of the limit"]
    return Sheet(title, head, rows)
