"""What a batch came to, in three forms: a table, a document, and a sheet of pictures."""

from __future__ import annotations

import csv
import html
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from ptycho_runtime.contract import CREATOR
from ptycho_runtime.files import printable, write_file
from ptycho_runtime.many.records import ScanRecord, gravest

COLUMNS = (
    "scan", "name", "verdict", "exit_code", "message", "patterns", "flagged", "disagreement", "input_scale_factor", "seconds",
)  # fmt: skip
FAILED = "failed"
EVERY_S = 30.0  # of a batch or a watch that is at it
_ORDER = (FAILED, "not trusted", "doubtful", "trusted")
_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5em; color: #1c2430; background: #fff }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(22em, 1fr)); gap: 1em }
article { border: 1px solid #cfd6df; border-left-width: 6px; padding: .6em; overflow-wrap: anywhere }
article img { width: 100%; height: auto }
h2 { font-size: 1em; margin: 0 } p { margin: .3em 0 }
.trusted { border-left-color: #006e28 } .doubtful { border-left-color: #aa5f00 }
.not-trusted, .failed { border-left-color: #be0000 }
"""


def outcome(record: ScanRecord) -> str:
    """Return how a scan ended in one word or two: its verdict, or that it failed."""
    return FAILED if record.failed else record.verdict


def counts(records: Sequence[ScanRecord]) -> dict[str, int]:
    """Return how many scans ended in which way, the worst first; ways that none ended in are left out."""
    found = Counter(map(outcome, records))
    return {name: found[name] for name in _ORDER if found[name]}


def write_summary(folder: Path, records: Sequence[ScanRecord], scans: int) -> list[Path]:
    """Write `summary.csv`, `summary.json` and `summary.html`; returns their paths.

    Args:
        folder: of the results.
        records: in any order; the summary has them by the scans' paths.
        scans: how many there are in all; more than there are records while some are still to come.

    Raises:
        OutputError: the folder cannot be written.
    """
    records = sorted(records, key=lambda record: record.scan)
    forms = {"csv": table(records), "json": document(records, scans), "html": sheet(records, scans)}
    for suffix, text in forms.items():
        write_file(folder / f"summary.{suffix}", text.encode())
    return [folder / f"summary.{suffix}" for suffix in forms]


def table(records: Sequence[ScanRecord]) -> str:
    """Return a line a scan, comma-separated, with `COLUMNS` above."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    for record in records:
        values = {**asdict(record), "verdict": outcome(record)}
        lines.writerow([_cell(values[name]) for name in COLUMNS])
    return text.getvalue()


def _cell(value: object) -> object:
    """Return a value as a spreadsheet takes it: text is never a formula."""
    if not isinstance(value, str):
        return "" if value is None else value
    text = printable(value, limit=2000)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def document(records: Sequence[ScanRecord], scans: int) -> str:
    """Return all of it as JSON."""
    exit_code = gravest(record.exit_code for record in records)
    top = {"creator": CREATOR, "scans": scans, "outcomes": counts(records), "exit_code": exit_code}
    return json.dumps({**top, "records": [asdict(record) for record in records]}, indent=1) + "\n"


def sheet(records: Sequence[ScanRecord], scans: int) -> str:
    """Return a page with the picture of each scan and its verdict; what failed stands first. It needs nothing but the folder."""
    numbers = ", ".join(f"{count} {name}" for name, count in counts(records).items())
    left = f"; {scans - len(records)} to come" if scans > len(records) else ""
    ordered = sorted(records, key=lambda record: _ORDER.index(outcome(record)))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="generator" content="{CREATOR}">'
        f'<meta name="viewport" content="width=device-width"><title>{scans} scans</title><style>{_STYLE}</style></head>\n'
        f"<body><h1>{scans} scans: {numbers or 'none done'}{left}</h1><main>\n"
        + "\n".join(map(_card, ordered))
        + "\n</main></body></html>\n"
    )


def _link(name: str) -> str:
    """Return a name as a link has it, the bytes of one that is no UTF-8 included."""
    return quote(name, errors="surrogateescape")


def _card(record: ScanRecord) -> str:
    way = outcome(record)
    picture = next((name for name in record.files if name.endswith(".png")), None)
    parts = [f"<h2>{_text(record.name)}: {way}</h2>"]
    if picture is not None:
        link = _link(record.files[0])
        parts.append(
            f'<a href="{link}"><img src="{_link(picture)}" alt="object of {_text(record.name)}" loading="lazy"></a>'
        )
    if record.message:
        parts.append(f"<p>{_text(record.message)}</p>")
    if not record.failed:
        unlike = "" if record.disagreement is None else f"; overlapping patches differ by {record.disagreement:.3f}"
        parts.append(f"<p>{record.patterns} patterns, {record.flagged} flagged{unlike}</p>")
    parts.append(f"<p><small>{_text(record.scan)}, {record.seconds:.1f} s</small></p>")
    return f'<article class="{way.replace(" ", "-")}">{"".join(parts)}</article>'


def _text(text: str) -> str:
    return html.escape(printable(text, limit=2000))
