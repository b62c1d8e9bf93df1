"""What a bundle is, in words and numbers, without PyTorch and without building a model."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ptycho_runtime import contract
from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.export.parse import parse
from ptycho_runtime.export.precision import variant_precision
from ptycho_torch import params as params_module
from ptycho_torch.architecture import Architecture, Detection, detect, role_weights
from ptycho_torch.bundle import BundleRecord, Sentinel
from ptycho_torch.eras import ERAS
from ptycho_torch.errors import BundleError

SCHEMA = "ptycho-export/inspect"
SCHEMA_VERSION = 1
REFERENCE = (
    "this project's rebuild of PtychoPINN's models, not PtychoPINN itself; "
    "ptycho-export verify --against FILE compares with numbers that PtychoPINN computed"
)
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def inspect(record: BundleRecord, architecture: Architecture | None = None) -> dict[str, Any]:
    """Return what a bundle is as plain JSON values.

    Args:
        record: from `read_bundle`.
        architecture: fields that settle what the bundle leaves open.

    An architecture that stays undecided is no error here: `refusal` says why, and the rest is still told.
    """
    detection, refusal = None, None
    try:
        detection = detect(record, architecture=architecture)
    except BundleError as error:
        refusal = {"error": type(error).__name__, "message": str(error)}
    sentinels = [role for role, weights in record.weights.items() if isinstance(weights, Sentinel)]
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "path": str(record.path),
        "kind": record.kind,
        "sha256": record.sha256,
        "manifest": params_module.plain(record.manifest),
        "architecture": None if detection is None else detection.spec.to_json(),
        "evidence": None if detection is None else _evidence(detection),
        "assumed": [] if detection is None else detection.assumed,
        "notices": [] if detection is None else _notices(detection),
        "refusal": refusal,
        "parameter_count": parameter_count(record),
        "sentinels": sentinels,
        "members": [{"name": name, "size_bytes": size} for name, size in record.members],
        "params": params_module.plain(next(iter(record.params.values()), {})),
        "exports": exports_verdict(record),
        "reference": REFERENCE,
    }


def parameter_count(record: BundleRecord) -> int:
    """Return how many numbers the weights hold; aliases of one tensor count once."""
    weights = role_weights(record, "diffraction_to_obj")
    distinct: dict[tuple[int, int], int] = {}
    for key, value in weights.items():
        if not key.endswith(_BUFFERS):
            # The reader gives aliases of one tensor as views of one buffer.
            distinct[value.__array_interface__["data"][0], value.size] = value.size
    return sum(distinct.values())


def exports_verdict(record: BundleRecord) -> dict[str, Any] | None:
    """Return what `exports.json` says of stored exports, or None where there are none."""
    if record.exports is None:
        return None
    members = {name for name, _ in record.members}
    verdict: dict[str, Any] = {
        "schema_version": record.exports.get("schema_version"),
        "members": [name for name in contract.export_members() if name in members],
        "fault": None,
    }
    try:
        exports = parse(record.exports, record.path.name)
    except ReconstructionError as error:
        return {**verdict, "fault": str(error)}
    return {
        **verdict,
        "exporter_version": exports.exporter_version,
        "tools": dict(exports.tools),
        "graphs": sorted(exports.graphs),
        "left_out": dict(exports.left_out),
        "variants": [
            f"{entry.graph}: {entry.engine} {variant_precision(entry.precision, len(entry.int8_layers))}, within {entry.budget}"
            for entry in exports.variants
        ],
        "parity": exports.parity.verdict,
        "current": exports.bundle.members_sha256 == record.members_sha256,
    }


def _evidence(detection: Detection) -> dict[str, dict[str, Any]]:
    return {
        name: {"value": params_module.plain(s.value), "source": s.source, "note": s.note}
        for name, s in detection.evidence.items()
    }


def _notices(detection: Detection) -> list[str]:
    refusal = detection.autoencoder_refusal
    return [*detection.notices, *([f"autoencoder: {refusal}"] if refusal else [])]


def render(found: dict[str, Any]) -> Group:
    """Return `inspect`'s answer for the terminal."""
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    spec = found["architecture"]
    facts.add_row("bundle", f"{found['path']} ({found['kind']}, sha256 {found['sha256'][:16]}…)")
    if spec is None:
        facts.add_row("architecture", Text(found["refusal"]["message"], style="red"))
    else:
        facts.add_row("era", f"{spec['era']} ({ERAS[spec['era']].note})")
        facts.add_row("generator", spec["generator"] + (", supervised" if spec["supervised"] else ""))
        facts.add_row("N, gridsize", f"{spec['N']} px, {spec['gridsize']} ({spec['gridsize'] ** 2} patterns a group)")
        facts.add_row("data", spec["measurement_domain"])
    facts.add_row("parameters", f"{found['parameter_count']:,}")
    for role in found["sentinels"]:
        facts.add_row("sentinel", f"{role} holds a marker in place of weights; the other model's weights serve both")
    exports = found["exports"]
    if exports is None:
        facts.add_row("exports", "none")
    elif exports["fault"] is not None:
        facts.add_row("exports", Text(exports["fault"], style="red"))
    else:
        stale = "" if exports["current"] else "; the original members changed since"
        facts.add_row("exports", f"{', '.join(exports['graphs'])}; parity {exports['parity']}{stale}")
        for variant in exports["variants"]:
            facts.add_row("variant", variant)
    facts.add_row("parity's reference", found["reference"])
    for notice in found["notices"]:
        facts.add_row("notice", notice)
    parts: list[Any] = [facts]
    if spec is not None:
        parts.append(_evidence_table(found["evidence"]))
    members = Table(title="Members", box=None, pad_edge=False, title_justify="left")
    members.add_column("name", overflow="fold")
    members.add_column("bytes", justify="right", no_wrap=True)
    for member in found["members"]:
        members.add_row(member["name"], f"{member['size_bytes']:,}")
    parts.append(members)
    if found["params"]:
        table = Table(title="Params", box=None, pad_edge=False, title_justify="left")
        table.add_column("name")
        table.add_column("value", overflow="fold")
        for name, value in sorted(found["params"].items()):
            text = json.dumps(value, ensure_ascii=False)
            table.add_row(name, Text(text if len(text) <= 200 else f"{text[:200]}… ({len(text):,} characters)"))
        parts.append(table)
    return Group(*parts)


def _evidence_table(evidence: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Architecture", box=None, pad_edge=False, title_justify="left")
    for heading in ("field", "value", "settled by"):
        table.add_column(heading, overflow="fold")
    for name, settled in evidence.items():
        style = "yellow" if settled["source"] == "assumed" else ""
        by = settled["source"] + (f": {settled['note']}" if settled["note"] else "")
        table.add_row(name, str(settled["value"]), Text(by, style=style))
    return table
