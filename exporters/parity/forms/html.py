"""The report as one page that opens anywhere: no scripts, no fetches."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from exporters.parity.report import ParityReport
from exporters.parity.rows import Divergence, ParityRow
from ptycho_runtime import contract
from ptycho_runtime.files import shown

if TYPE_CHECKING:
    from exporters.parity.forms.pictures import Picture

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --page: #fff; --quiet: #4b5563; --line: #e5e7eb; --track: #e4e7eb;
  --good: #14532d; --good-page: #e2f4e6; --bad: #7f1d1d; --bad-page: #fde4e1; --bar: #3b7ddd; --bad-bar: #c0392b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --page: #15181c; --quiet: #a3abb5; --line: #30363d; --track: #30363d;
  --good: #b7ebc6; --good-page: #123820; --bad: #ffc9c2; --bad-page: #4a1613; --bar: #6ba3f0; --bad-bar: #ff7b6b; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: var(--ink); background: var(--page); }
h1 { font-size: 1.5rem; margin-bottom: .2rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { padding: .6rem .9rem; border-radius: .4rem; font-weight: 600; overflow-wrap: anywhere; }
.passed { background: var(--good-page); color: var(--good); } .failed { background: var(--bad-page); color: var(--bad); }
.skipped { color: var(--quiet); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .4rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-size: .82rem; color: var(--quiet); white-space: nowrap; } td.n, th.n { text-align: right; white-space: nowrap; }
td.passed, td.failed { font-weight: 600; position: sticky; right: 0; } table code { overflow-wrap: normal; } td.share { white-space: nowrap; }
.bar { display: inline-block; width: 3rem; height: .55rem; background: var(--track); border-radius: .3rem; overflow: hidden; vertical-align: middle; }
.bar i { display: block; height: 100%; background: var(--bar); } .failed .bar i { background: var(--bad-bar); }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .2rem 1rem; } dt { color: var(--quiet); overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; } code { font-size: .92em; overflow-wrap: anywhere; }
figure { margin: 1rem 0; } figure img { max-width: 100%; background: #fff; border-radius: .3rem; }
figcaption { color: var(--quiet); font-size: .9rem; }
p, li { overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { margin: 1rem auto; padding: 0 .7rem; } dl { grid-template-columns: 1fr; } dt { margin-top: .4rem; }
  ul { padding-left: 1.2rem; } thead { display: none; }
  tr { display: flex; flex-wrap: wrap; gap: 0 .7rem; padding: .45rem 0; border-bottom: 1px solid var(--line); }
  td, td.n { border: 0; padding: .05rem 0; text-align: left; overflow-wrap: anywhere; white-space: normal; }
  td[data-is]::before { content: attr(data-is) " "; color: var(--quiet); }
  td { order: 1; } td:first-child { order: 0; font-weight: 600; flex: 1 0 72%; } td.skipped { order: 2; }
  td.passed, td.failed { order: 0; position: static; padding: .05rem .4rem; border-radius: .2rem; margin-left: auto; } }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 0 1.5rem; align-items: start; }
"""

_PICTURES = """<p>Reference and error of the first pattern of a group. Each map has a colour scale of its own, so rounding fills one as a fault does:
read the numbers beside it.</p>"""

# Column headings; a leading # marks numbers, which are set to the right.
_MATRIX = (
    "graph", "runtime", "device", "precision", "#batch", "output",
    "#max abs", "#allowed", "#relative L2", "#allowed", "share", "verdict",
)  # fmt: skip
_STITCHED = (
    "runtime", "device", "#1 − FRC", "#allowed", "#1 − SSIM, amplitude", "#allowed", "#1 − SSIM, phase", "#allowed", "verdict",
)  # fmt: skip
_OUTPUT_UNITS = {contract.PHASE: "rad", contract.PREDICTED: "as measured, over output_scale_factor"}
_LAYERS = ("layer", "#relative L2", "#allowed", "#share", "#growth")
_OBJECTS = ("graph", "runtime", "device", "precision", "#amplitude error, relative", "#phase error, rad")
# What the numbers of a row are where a small screen shows no heads of columns, in their order.
_MATRIX_NUMBERS = {"max_abs": "max abs", "allowed_max_abs": "of", "rel_l2": "relative L2", "allowed_rel_l2": "of"}
_LAYER_NUMBERS = ("relative L2", "of", "share", "growth")
_STITCHED_NUMBERS = ("1 − FRC", "of", "1 − SSIM, amplitude", "of", "1 − SSIM, phase", "of")
_OBJECT_NUMBERS = {"amplitude_rel": "amplitude error", "phase_rad": "phase error, rad"}


def escape(text: str) -> str:
    """Return text as HTML shows it: no tag, and no character that a terminal would obey."""
    return html.escape(shown(text))


def to_html(report: ParityReport, figures: Iterable[Picture] = ()) -> str:
    """Return the report as one self-contained HTML page.

    Args:
        report: what to show.
        figures: pictures to show under the matrix.
    """
    verdict = "passed" if report.passed else "failed"
    problems = "".join(f"<li>{escape(problem)}</li>" for problem in report.problems)
    notices = "".join(f"<li>{escape(notice)}</li>" for notice in report.notices)
    images = "".join(
        f'<figure><img alt="{escape(picture.alt)}" src="{picture.uri}"><figcaption>{escape(picture.caption)}</figcaption></figure>'
        for picture in figures
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Parity of {escape(report.name)}: {verdict}</title><style>{_STYLE}</style></head><body>
<h1>Parity of {escape(report.name)}</h1>
<p class="verdict {verdict}">{escape(report.summary())}</p>
{f"<h2>What is stored is not what was exported</h2><ul>{problems}</ul>" if problems else ""}
{f"<h2>To be known</h2><ul>{notices}</ul>" if notices else ""}
<p>Reference: {escape(str(report.reference.get("model", "")))}.{escape(_required(report))}
Rule: {escape(report.rule.rstrip("."))}. The bar shows the larger of the two errors as a share of what is allowed;
max abs is in the output's own unit, relative L2 and share have none.
{escape(_batches(report.rows))}</p>
<h2>Inputs</h2>
<dl>{"".join(_inputs(report))}</dl>
<h2>Matrix</h2>
{_table(_MATRIX, "".join(_rows(rows) for rows in _by_graph(report)) + _not_run(report.rows))}
{"".join(_divergence(found) for found in report.divergence)}
{_stitched(report)}
{f'<h2>Pictures</h2>{_PICTURES}<div class="pictures">{images}</div>' if images else ""}
<h2>Objects</h2>
<p>What the errors mean for an image, in the batch where they are largest: amplitude error relative to the amplitude, and wrapped phase
error weighted by the squared amplitude.</p>
{_table(_OBJECTS, "".join(_object_row(rows) for rows in _by_graph(report) if any(row.outputs.get("object") for row in rows)))}
<h2>Host</h2>
<dl>{"".join(_facts(report.host))}</dl>
<h2>Files that were judged</h2>
<dl>{"".join(_files(report))}</dl>
<h2>Devices, read back</h2>
<dl>{"".join(_device_facts(report.rows))}</dl>
</body></html>
"""


def _stitched(report: ParityReport) -> str:
    if not report.stitched:
        return ""
    rows = ""
    for row in report.stitched:
        pairs = zip(row.deficits, row.allowed, strict=True)
        cells = _numbers(_STITCHED_NUMBERS, [f"{value:.1e}" for pair in pairs for value in pair])
        verdict = "passed" if row.passed else "failed"
        names = f"<td>{escape(row.runtime)}</td><td>{escape(row.device)}</td>"
        rows += f'<tr>{names}{cells}<td class="{verdict}">{verdict}</td></tr>'
    return f"""<h2>Stitched objects</h2>
<p>The first {report.stitched[0].patterns} patterns of the scan, stitched from each runtime and compared with eager float64: what is missing from 1 in
the lowest ring of the Fourier ring correlation, and in the structural similarity of amplitude and phase.</p>
{_table(_STITCHED, rows)}"""


def _divergence(found: Divergence) -> str:
    rows = ""
    for layer in found.around():
        verdict = "failed" if found.blames(layer) else ""
        figures = f"{layer.rel_l2:.1e}", f"{layer.allowed_rel_l2:.1e}", f"{layer.share:.3g}", f"{layer.growth:.3g}"
        cells = _numbers(_LAYER_NUMBERS, figures)
        rows += f'<tr class="{verdict}"><td><code>{_breakable(layer.layer)}</code></td>{cells}</tr>'
    table = _table(_LAYERS, rows) if rows else ""
    how = f"Each layer of the ONNX file on {found.device} beside the eager layer of that name, in the order they are computed."
    if found.runtime != "onnx":
        how = (
            "Each layer of the TorchScript file by itself, on numbers of its own, beside the eager layer of that name."
        )
    return f"""<h2>Layer by layer: {escape(found.name)}</h2>
<p>{escape(found.summary())}. {escape(how)}</p>
{table}"""


def _table(headings: tuple[str, ...], rows: str) -> str:
    cells = (f'<th class="n">{h[1:]}</th>' if h.startswith("#") else f"<th>{h}</th>" for h in headings)
    head = f"<thead><tr>{''.join(cells)}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>{rows}</tbody></table></div>'


def _numbers(labels: Iterable[str], figures: Iterable[str]) -> str:
    return "".join(
        f'<td class="n" data-is="{escape(label)}">{escape(figure)}</td>'
        for label, figure in zip(labels, figures, strict=True)
    )


def _by_graph(report: ParityReport) -> list[list[ParityRow]]:
    """Return the report's rows folded, those of one graph together, in the order in which graphs have files."""
    order = list(dict.fromkeys([*report.files, *(row.graph for row in report.rows)]))
    return sorted(report.folded(), key=lambda rows: order.index(rows[0].graph))


def _required(report: ParityReport) -> str:
    return f" Required devices: {', '.join(report.required)}." if report.required else ""


def _batches(rows: list[ParityRow]) -> str:
    kinds = {row.batch: row.inputs for row in sorted(rows, key=lambda row: row.batch)}
    return "Batches hold: " + "; ".join(f"{batch}: {inputs}" for batch, inputs in kinds.items()) + "."


def _rows(rows: list[ParityRow]) -> str:
    """Return the table rows of one runtime and device that ran."""
    return "".join(_row(row) for row in rows if row.verdict != "not run")


def _not_run(rows: list[ParityRow]) -> str:
    """Return one table row for each device on which something did not run, with the reasons."""
    groups: dict[str, list[ParityRow]] = {}
    for row in rows:
        if row.verdict == "not run":
            groups.setdefault(row.device, []).append(row)
    lines = ""
    for device, group in groups.items():
        graphs, runtimes, precisions = (
            ", ".join(dict.fromkeys(getattr(row, name) for row in group)) for name in ("graph", "runtime", "precision")
        )
        reasons = "; ".join(dict.fromkeys(row.reason for row in group))
        cells = "".join(f"<td>{escape(text)}</td>" for text in (graphs, runtimes, device, precisions))
        batches = ", ".join(str(batch) for batch in sorted({row.batch for row in group}))
        cells += f'<td class="n" data-is="batch">{batches}</td>'
        lines += f'<tr>{cells}<td class="skipped" colspan="7">{escape(f"not run: {reasons}")}</td></tr>'
    return lines


def _inputs(report: ParityReport) -> list[str]:
    """Return what the runtimes were fed: how much, from where, and the digest that another run can be compared by."""
    words = {"groups": "groups", "patterns": "patterns", "positions": "positions", "sha256": "sha256 of all inputs"}
    return _facts({word: report.reference[key] for key, word in words.items() if report.reference.get(key)})


def _names(row: ParityRow) -> str:
    return "".join(f"<td>{escape(text)}</td>" for text in (row.graph, row.runtime, row.device, row.precision))


def _row(row: ParityRow) -> str:
    cells = f'{_names(row)}<td class="n" data-is="batch">{row.batch}</td>'
    name, share = row.worst()
    if not name:
        text = escape(f"{row.verdict}{': ' if row.reason else ''}{row.reason}")
        return f'<tr class="{row.verdict}">{cells}<td class="{row.verdict}" colspan="7">{text}</td></tr>'
    figures = row.outputs[name]
    numbers = _numbers(_MATRIX_NUMBERS.values(), [f"{figures[key]:.1e}" for key in _MATRIX_NUMBERS])
    bar = f'<span class="bar"><i style="width:{min(share, 1.0) * 100:.0f}%"></i></span> {share:.3g}'
    reason = f": {row.reason}" if row.reason else ""
    return (
        f'<tr class="{"failed" if row.verdict == "failed" else ""}">{cells}<td>{_breakable(_with_unit(name))}</td>{numbers}'
        f'<td class="share" data-is="share">{bar}</td><td class="{row.verdict}">{escape(row.verdict + reason)}</td></tr>'
    )


def _breakable(text: str) -> str:
    """Return text as HTML that may go on in the next line behind each dot: a layer's path is longer than a column is wide."""
    return escape(text).replace(".", ".<wbr>")


def _with_unit(name: str) -> str:
    """Return an output's name with the unit of its max abs, where it has one."""
    return f"{name}, {_OUTPUT_UNITS[name]}" if name in _OUTPUT_UNITS else name


def _object_row(rows: list[ParityRow]) -> str:
    """Return the row of one runtime and device: the largest errors of its batches."""
    objects = [row.outputs["object"] for row in rows if row.outputs.get("object")]
    figures = [f"{max(figures[key] for figures in objects):.1e}" for key in _OBJECT_NUMBERS]
    return f"<tr>{_names(rows[0])}{_numbers(_OBJECT_NUMBERS.values(), figures)}</tr>"


def _files(report: ParityReport) -> list[str]:
    """Return the digest of each file, so that a reader can tell whether it is the one that runs."""
    return [
        f"<dt>{escape(graph)}, {escape(kind)}</dt><dd>sha256 <code>{escape(digest)}</code></dd>"
        for graph, files in report.files.items()
        for kind, digest in files.items()
    ]


def _facts(facts: dict[str, Any]) -> list[str]:
    lines = []
    for key, value in facts.items():
        text = ", ".join(f"{k} {_text(v)}" for k, v in value.items()) if isinstance(value, dict) else _text(value)
        lines.append(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>")
    return lines


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_text(item)}" for key, item in value.items()) + ")"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _device_facts(rows: list[ParityRow]) -> list[str]:
    seen: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.facts:
            seen.setdefault(f"{row.graph}, {row.runtime} on {row.device}, {row.precision}", row.facts)
    return _facts(seen)
