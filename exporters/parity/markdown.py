"""Reports for people who read pull requests: one table, and what changed between two."""

from __future__ import annotations

from exporters.parity.report import ParityReport, ParityRow

_NOISE = 2.0  # an error that grew by more than this factor is worth a line


def to_markdown(report: ParityReport) -> str:
    """Return a report as a Markdown table, batches of one runtime and device in one line."""
    mark = "✅" if report.passed else "❌"
    lines = [f"### {mark} {report.name}: {report.summary()}", ""]
    lines += [
        "| graph | runtime | device | precision | batches | max abs | relative L2 | share of allowed | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for rows in report.folded():
        first = rows[0]
        head = f"| {first.graph} | {first.runtime} | {first.device} | {first.precision} "
        if first.verdict == "not run":
            lines.append(f"{head}| – | – | – | – | not run: {first.reason} |")
            continue
        worst = max(rows, key=lambda row: row.worst()[1])
        name, share = worst.worst()
        figures = worst.outputs.get(name, {})
        numbers = [f"{figures[key]:.1e}" if key in figures else "–" for key in ("max_abs", "rel_l2")]
        failed = [row for row in rows if row.verdict == "failed"]
        verdict = f"**failed** {failed[0].reason}".strip() if failed else "passed"
        batches = ", ".join(str(row.batch) for row in rows)
        lines.append(f"{head}| {batches} | {' | '.join(numbers)} | {share:.2f} | {verdict} |")
    lines += ["", *(f"- {problem}" for problem in report.problems)]
    for found in report.divergence:
        lines += [f"- layer by layer, {found.summary()}"]
    for row in report.stitched:
        frc, amplitude, phase = (f"{value:.1e}" for value in row.deficits)
        verdict = "passed" if row.passed else "**failed**"
        lines.append(
            f"- stitched from {row.patterns} patterns, {row.runtime}: 1−FRC {frc}, 1−SSIM {amplitude} (amplitude), {phase} (phase), {verdict}"
        )
    packages = ", ".join(f"{name} {version}" for name, version in report.host.get("packages", {}).items())
    return "\n".join([*lines, f"{report.host.get('platform', '')}; {packages}"]) + "\n"


def compare(first: ParityReport, second: ParityReport) -> list[str]:
    """Return what changed from one report to another, one line each: versions, verdicts, errors that grew or shrank much."""
    lines = []
    if first.passed != second.passed:
        lines.append(f"verdict: {_word(first)} → {_word(second)}")
    for key in ("platform", "machine", "python"):
        if first.host.get(key) != second.host.get(key):
            lines.append(f"{key}: {first.host.get(key)} → {second.host.get(key)}")
    old, new = first.host.get("packages", {}), second.host.get("packages", {})
    lines += [
        f"{p}: {old.get(p, 'absent')} → {new.get(p, 'absent')}"
        for p in sorted({*old, *new})
        if old.get(p) != new.get(p)
    ]
    rows = {_key(row): row for row in first.rows}
    for row in second.rows:
        before = rows.pop(_key(row), None)
        label = " ".join(map(str, _key(row)))
        if before is None:
            lines.append(f"{label}: new, {row.verdict}")
        elif before.verdict != row.verdict:
            lines.append(f"{label}: {before.verdict} → {row.verdict}{f' ({row.reason})' if row.reason else ''}")
        else:
            lines += _changes(label, before, row)
    return lines + [f"{' '.join(map(str, key))}: gone" for key in rows]


def _changes(label: str, before: ParityRow, after: ParityRow) -> list[str]:
    lines = []
    for name, figures in after.outputs.items():
        old = before.outputs.get(name, {})
        for key in ("max_abs", "rel_l2"):
            a, b = old.get(key), figures.get(key)
            if a is None or b is None or a == b:
                continue
            if min(a, b) == 0.0 or not 1 / _NOISE <= b / a <= _NOISE:
                lines.append(f"{label}: {name} {key} {a:.1e} → {b:.1e}")
    return lines


def _key(row: ParityRow) -> tuple[str, str, str, str, str]:
    return row.graph, row.runtime, row.device, row.precision, f"batch {row.batch}"


def _word(report: ParityReport) -> str:
    return "passed" if report.passed else "failed"
