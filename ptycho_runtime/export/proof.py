"""The parity verdict that is stored with an export, as values: what it says must follow from its own figures."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from ptycho_runtime.errors import DamagedExportError
from ptycho_runtime.export.json_fields import Field
from ptycho_runtime.files import printable

STORED_RUNTIMES: Final = ("torchscript", "onnx")
VERDICTS: Final = ("passed", "failed", "not run")
# The figures of a whole object, which is not judged by itself: its real and imaginary parts are.
OBJECT: Final = "object"
ALLOWED: Final = "allowed_"
# Of relative L2 and of a variant's amplitude: a larger allowance would let another object through.
MOST_RELATIVE: Final = 0.1
# A share is written with all its digits; a reader may round.
_SHARE_TOLERANCE = 1e-6
_MAX_BATCH = 1 << 14


@dataclass(frozen=True)
class ProofRow:
    """One row of the stored verdict."""

    graph: str
    runtime: str
    device: str
    precision: str
    batch: int
    inputs: str
    verdict: str
    """One of `VERDICTS`."""
    reason: str
    outputs: Mapping[str, Mapping[str, float]]
    """Output name → metric → figure."""


@dataclass(frozen=True)
class Proof:
    """The verdict; the whole report lies beside the bundle as parity.json."""

    verdict: str
    rule: str
    rows: tuple[ProofRow, ...]


def figures_fault(figures: Mapping[str, float]) -> str:
    """Return why an output's figures do not belong together or prove nothing; empty where they do.

    Args:
        figures: each error with its allowance (`allowed_` before the error's name), and `share`: the largest error over its allowance.
    """
    limits = {name: value for name, value in figures.items() if name.startswith(ALLOWED)}
    if not limits or "share" not in figures:
        return (
            f"has the figures {', '.join(sorted(figures)) or 'none'}; expected errors with their allowances and a share"
        )
    share = 0.0
    for name, limit in limits.items():
        error = figures.get(name.removeprefix(ALLOWED))
        if error is None or not error >= 0.0 or not 0.0 <= limit < math.inf:
            return f"has no error that its {name} of {limit:g} could belong to"
        share = max(share, error / limit if limit > 0.0 else (0.0 if error == 0.0 else math.inf))
    if figures.get(f"{ALLOWED}rel_l2", 0.0) > MOST_RELATIVE:
        return f"allows a relative error of {figures[f'{ALLOWED}rel_l2']:g}, which proves nothing"
    said = figures["share"]
    if not (said == share or abs(said - share) <= _SHARE_TOLERANCE * max(share, 1.0)):
        return f"says its error is {said:g} of what is allowed; its figures say {share:g}"
    return ""


def parse_proof(field: Field, graphs: Collection[str]) -> Proof:
    """Return the stored verdict.

    Args:
        field: `parity` of `exports.json`.
        graphs: those that are stored.

    Raises:
        DamagedExportError: it is incomplete, did not pass, or says what its rows do not.
    """
    verdict = field["verdict"].one_of(("passed", "failed"))
    if verdict != "passed":
        raise DamagedExportError(
            f"{field.label}: the export failed its proof (parity.verdict is {verdict!r}); do not use it, export the bundle again"
        )
    rows = tuple(_row(row) for row in field["rows"].each())
    proven = {(row.graph, row.runtime) for row in rows if row.verdict == "passed" and set(row.outputs) - {OBJECT}}
    lacking = [
        f"{graph} in {runtime}" for graph in graphs for runtime in STORED_RUNTIMES if (graph, runtime) not in proven
    ]
    if lacking:
        raise DamagedExportError(
            f"{field.label}: parity.rows prove nothing of {', '.join(lacking)}; expected each stored graph; export the bundle again"
        )
    return Proof(verdict, field["rule"].text(), rows)


def _row(field: Field) -> ProofRow:
    texts = {name: field[name].text() for name in ("graph", "runtime", "device", "precision", "inputs", "reason")}
    row = ProofRow(
        **texts,
        batch=field["batch"].whole(1, _MAX_BATCH),
        verdict=field["verdict"].one_of(VERDICTS),
        outputs={
            name: {key: _figure(value) for key, value in figures.items()} for name, figures in field["outputs"].items()
        },
    )
    if row.verdict == "failed":
        raise DamagedExportError(
            f"{field.label}: {field.path} failed and the verdict is 'passed'; do not use it, export the bundle again"
        )
    for name, figures in row.outputs.items():
        if name == OBJECT:
            continue
        fault = figures_fault(figures) or ("is beyond what is allowed" if figures["share"] > 1.0 else "")
        if fault:
            raise DamagedExportError(
                f"{field.label}: {field.path}.outputs.{printable(name)} {fault}; export the bundle again"
            )
    return row


def _figure(field: Field) -> float:
    """Return a figure; JSON has no word for infinity, so a text stands for it."""
    return float("inf") if field.value == "inf" else field.number(0.0)
