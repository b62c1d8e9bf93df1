"""Reports for people who read pull requests: one table, and what changed between two."""

from __future__ import annotations

import re
from collections.abc import Mapping

from exporters.parity.report import ParityReport
from exporters.parity.rows import ParityRow
from ptycho_runtime.files import shown

_NOISE = 2.0  # an error that grew by more than this factor is worth a line


def to_markdown(report: ParityReport) -> str:
    """Return a report as a Markdown table, batches of one runtime and device in one line."""
    mark = "✅" if report.passed else "❌"
    lines = [f"### {mark} {in_markdown(report.name)}: {in_markdown(report.summary())}", ""]
    lines += [
        "| graph | runtime | device | precision | batches | max abs | relative L2 | share of allowed | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for rows in report.folded():
        first = rows[0]
        head = f"| {in_markdown(first.graph)} | {first.runtime} | {first.device} | {first.precision} "
        if first.verdict == "not run":
            lines.append(f"{head}| – | – | – | – | not run: {in_markdown(first.reason)} |")
            continue
        worst = max(rows, key=lambda row: row.gravity)
        name, share = worst.worst()
        figures = worst.outputs.get(name, {})
        numbers = [f"{figures[key]:.1e}" if key in figures else "–" for key in ("max_abs", "rel_l2")]
        failed = [row for row in rows if row.verdict == "failed"]
        which = ", ".join(str(row.batch) for row in failed)
        verdict = f"**failed** (batch {which}) {in_markdown(worst.reason)}".strip() if failed else "passed"
        batches = ", ".join(str(row.batch) for row in rows)
        shown = f"{share:.2f}" if name else "–"
        lines.append(f"{head}| {batches} | {' | '.join(numbers)} | {shown} | {verdict} |")
    lines += ["", *(f"- {in_markdown(problem)}" for problem in report.problems)]
    for found in report.divergence:
        lines += [f"- layer by layer, {in_markdown(found.summary())}"]
    for row in report.stitched:
        frc, amplitude, phase = (f"{value:.1e}" for value in row.deficits)
        verdict = "passed" if row.passed else "**failed**"
        where = f"stitched from {row.patterns} patterns, {row.runtime} on {row.device}"
        lines.append(f"- {where}: 1−FRC {frc}, 1−SSIM {amplitude} (amplitude), {phase} (phase), {verdict}")
    lines += [
        f"- {graph}, {kind}: sha256 {value}" for graph, files in report.files.items() for kind, value in files.items()
    ]
    packages = ", ".join(f"{name} {version}" for name, version in report.host.get("packages", {}).items())
    # GitHub takes a line right under a list for a part of its last item.
    host = "; ".join(str(report.host[key]) for key in ("platform", "processor", "gpu") if key in report.host)
    return "\n".join([*lines, "", in_markdown(f"{host}; {packages}")]) + "\n"


def in_markdown(text: str) -> str:
    """Return text as Markdown shows it: no link, picture, tag, table or line of its own comes of it."""
    return re.sub(r"([\\`*\[\]<>|~])", r"\\\1", shown(" ".join(text.split())))


def compare(first: ParityReport, second: ParityReport) -> list[str]:
    """Return what changed from one report to another, one line each: versions, verdicts, errors that grew or shrank much."""
    lines = []
    if first.passed != second.passed:
        lines.append(f"verdict: {_word(first)} → {_word(second)}")
    if first.name != second.name:
        lines.append(f"bundle: {first.name} → {second.name}")
    if first.required != second.required:
        lines.append(f"required devices: {_list(first.required)} → {_list(second.required)}")
    for graph in sorted({*first.files, *second.files}):
        a, b = first.files.get(graph, {}), second.files.get(graph, {})
        changed = [kind for kind in sorted({*a, *b}) if a.get(kind) != b.get(kind)]
        lines += [f"{graph} {kind}: another file ({_short(a, kind)} → {_short(b, kind)})" for kind in changed]
    inputs = [key for key in ("patterns", "groups", "sha256") if first.reference.get(key) != second.reference.get(key)]
    lines += [f"inputs, {key}: {first.reference.get(key)} → {second.reference.get(key)}" for key in inputs]
    if inputs:
        lines.append("errors are not compared, since the inputs differ")
    for key in ("platform", "machine", "processor", "gpu", "gpu_driver", "python"):
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
        elif not inputs:
            lines += _changes(label, before, row)
    lines += [f"{' '.join(map(str, key))}: gone" for key in rows]
    return lines + _lists(first, second)


def _lists(first: ParityReport, second: ParityReport) -> list[str]:
    """Return what came and went among problems and stitched objects."""
    lines = [f"problem gone: {problem}" for problem in first.problems if problem not in second.problems]
    lines += [f"problem new: {problem}" for problem in second.problems if problem not in first.problems]
    old, new = ({(row.runtime, row.device): row.passed for row in report.stitched} for report in (first, second))
    words = {True: "passed", False: "failed", None: "absent"}
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            lines.append(f"stitched object, {' on '.join(key)}: {words[old.get(key)]} → {words[new.get(key)]}")
    return lines


def _changes(label: str, before: ParityRow, after: ParityRow) -> list[str]:
    lines = []
    for name, figures in after.outputs.items():
        old = before.outputs.get(name, {})
        for key in ("max_abs", "rel_l2"):
            a, b = old.get(key), figures.get(key)
            if a is None or b is None or a == b:
                continue  # equal infinities too
            if min(a, b) == 0.0 or not 1 / _NOISE <= b / a <= _NOISE:
                lines.append(f"{label}: {name} {key} {a:.1e} → {b:.1e}")
    return lines


def _key(row: ParityRow) -> tuple[str, str, str, str, str]:
    return row.graph, row.runtime, row.device, row.precision, f"batch {row.batch}"


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"


def _short(files: Mapping[str, str], kind: str) -> str:
    return f"{files[kind][:12]}…" if kind in files else "absent"


def _word(report: ParityReport) -> str:
    return "passed" if report.passed else "failed"
