"""A `parity.json` read back: what was cut, edited or is of another kind is refused, not shown as a result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporters.parity.report import SCHEMA, SCHEMA_VERSION, ParityReport
from exporters.parity.rows import VERDICTS, Divergence, ParityRow, StitchedRow
from ptycho_runtime.export.proof import OBJECT, figures_fault
from ptycho_torch.errors import BundleError

_MOST_BYTES = 64 << 20
_TEXTS = ("graph", "runtime", "device", "precision", "inputs", "verdict", "reason")


def read_report(path: Path) -> ParityReport:
    """Return the report in a `parity.json`.

    Raises:
        FileNotFoundError: nothing is there.
        BundleError: it is no parity report, or its rows are not those of its verdict.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such report; export and verify --report leave parity.json in their folder")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        return report_from_json(path.read_text(encoding="utf-8"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        told = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise BundleError(
            f"{path}: is no whole parity report of ptycho-export ({told}); run the check again"
        ) from error


def report_from_json(text: str) -> ParityReport:
    """Return the report that `ParityReport.to_json` wrote; raises `ValueError`, `LookupError` or `TypeError` for anything else."""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError(f"it holds a {type(document).__name__}; expected an object")
    found = document.get("schema"), document.get("schema_version")
    if found != (SCHEMA, SCHEMA_VERSION):
        raise ValueError(f"schema {found[0]!r} {found[1]!r}; expected {SCHEMA} {SCHEMA_VERSION}")
    report = ParityReport(
        str(document["name"]),
        [_row(row) for row in document["rows"]],
        tuple(str(device) for device in document["required"]),
        _mapping(document["host"]),
        _mapping(document["reference"]),
        [str(problem) for problem in document["problems"]],
        tuple((str(g), str(r), str(d), str(p), int(b)) for g, r, d, p, b in document["planned"]),
        {graph: dict(files) for graph, files in _mapping(document["files"]).items()},
        [Divergence.from_dict(layers) for layers in document["divergence"]],
        [StitchedRow.from_dict(row) for row in document["stitched"]],
        notices=[str(notice) for notice in document.get("notices", [])],
        rule=str(document["rule"]),
    )
    _mapping(report.host.setdefault("packages", {}))
    cells = [row.cell for row in report.rows]
    if sorted(cells) != sorted(report.planned):
        raise ValueError(f"it has {len(cells)} rows; expected the {len(report.planned)} that were planned")
    verdict = "passed" if report.passed else "failed"
    if document["verdict"] != verdict:
        raise ValueError(f"its verdict is {document['verdict']!r}, its rows say {verdict!r}")
    return report


def _row(document: Mapping[str, Any]) -> ParityRow:
    outputs = {
        name: {key: float(value) for key, value in _mapping(figures).items()}
        for name, figures in _mapping(document["outputs"]).items()
    }
    texts = {key: str(document[key]) for key in _TEXTS}
    row = ParityRow(**texts, batch=int(document["batch"]), outputs=outputs, facts=_mapping(document["facts"]))
    if row.verdict not in VERDICTS:
        raise ValueError(f"a row's verdict is {row.verdict!r}; expected one of {', '.join(VERDICTS)}")
    for name, figures in outputs.items():
        if name == OBJECT:
            continue
        if fault := figures_fault(figures):
            raise ValueError(f"{' '.join(map(str, row.cell))}: {name} {fault}")
        if row.verdict == "passed" and not figures["share"] <= 1.0:
            raise ValueError(
                f"{' '.join(map(str, row.cell))}: its verdict is 'passed', its {name} is beyond what is allowed"
            )
    return row


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__} stands where an object is expected")
    return value
