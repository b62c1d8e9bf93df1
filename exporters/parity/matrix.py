"""Run every runtime on every device over every graph and batch, against the eager model in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import torch

from exporters.graph.graphs import graph_io
from exporters.host import host_facts
from exporters.options import BATCHES, Progress, silent
from exporters.parity.alone import SCRIPT, alone_rows
from exporters.parity.evidence import Evidence
from exporters.parity.inputs import Source
from exporters.parity.layers import bisect_graph
from exporters.parity.metrics import RULE
from exporters.parity.precision import tf32_eager
from exporters.parity.prepare import Prepared, prepare, telling_batches
from exporters.parity.report import ParityReport
from exporters.parity.rows import Divergence, ParityRow
from exporters.parity.script_steps import script_steps
from exporters.parity.sweep import sweep_rows
from exporters.parity.trials import GraphCase, TrialsAhead, trials_of
from ptycho_torch.models.module import PtychoModel
from ptycho_torch.spec import ModelSpec

DEVICES = ("cpu", "cuda", "tensorrt")
_BISECT_VALUES = (
    8 * 64 * 64 * 4
)  # pattern pixels run layer by layer: every intermediate of them is in memory three times


@dataclass(frozen=True, kw_only=True)
class ParityOptions:
    """What a parity check runs."""

    name: str = "bundle"
    """The bundle's, for the report."""
    batches: Iterable[int] = BATCHES
    """Each is a slice of one pool of groups. See `telling_batches` for those that are added."""
    stored_batches: Iterable[int] = ()
    """Sizes of which it is known that they were tried; one larger than these is tried too."""
    devices: Iterable[str] = DEVICES
    """Which to try; one that is absent gives rows `not run`."""
    require: Iterable[str] = ()
    """Devices that must have run, see `ParityReport.missing_devices`."""
    layers: bool = False
    """Look layer by layer where the ONNX files diverge even if they do not fail; those that fail are looked at anyway."""
    progress: Progress = silent
    """Called with a short text before each runtime."""


def run_parity(
    models: Mapping[str, PtychoModel],
    spec: ModelSpec,
    artifacts: Mapping[str, Mapping[str, bytes]],
    source: Source | None = None,
    options: ParityOptions | None = None,
    **fields: Any,
) -> ParityReport:
    """Compare the stored files with the untouched eager models.

    Args:
        models: eager float32 models on the CPU, by graph.
        spec: what they are.
        artifacts: file contents by graph and format (`onnx`, `torchscript`).
        source: the bundle's scale, and a scan whose patterns are used in place of simulated ones.
        options: what is run; the defaults where None.
        **fields: fields of `ParityOptions` in place of those of `options`.

    Raises:
        ValueError: no batch sizes, or one below 1.
        ScanError: the scan cannot be used.
    """
    options = replace(options or ParityOptions(), **fields)
    batches = telling_batches(options.batches, options.stored_batches)
    prepared = prepare({graph: models[graph] for graph in artifacts}, spec, batches, source, options.progress)
    return judge_files(prepared, artifacts, options)


def judge_files(
    prepared: Prepared,
    artifacts: Mapping[str, Mapping[str, bytes]],
    options: ParityOptions | None = None,
    **fields: Any,
) -> ParityReport:
    """Compare files with eager models for which everything else is there already.

    Args:
        prepared: inputs and references of the models of all of the files, and maybe of others; they stay as they are.
        artifacts: file contents by graph and format (`onnx`, `torchscript`).
        options: what is run, but for batches, which are prepared; the defaults where None.
        **fields: fields of `ParityOptions` in place of those of `options`.
    """
    options = replace(options or ParityOptions(), **fields)
    devices, batches = tuple(options.devices), prepared.batches
    models, spec, pool = prepared.models, prepared.spec, prepared.pool
    rows = [copy.deepcopy(row) for row in prepared.independent if row.graph in artifacts]
    evidence = Evidence(options.name, artifacts)
    divergence: list[Divergence] = []
    cases = {graph: _case(prepared, graph) for graph in artifacts}
    trials = {
        graph: trials_of(models[graph], graph, files, devices, prepared.eagers32[graph])
        for graph, files in artifacts.items()
    }
    with TrialsAhead(cases, trials, batches) as ahead:
        options.progress("sweep behind the networks")
        rows += sweep_rows(models, artifacts, pool)
        options.progress("each layer by itself")
        alone = alone_rows(prepared.layers, artifacts)
        rows += [tried.row for tried in alone]
        planned = [row.cell for row in rows]
        for graph, case in cases.items():
            for trial in trials[graph]:
                planned += [(graph, trial.runtime, trial.device, trial.precision, batch) for batch in batches]
                options.progress(f"{graph}: {trial.runtime} on {trial.device}")
                rows += ahead.rows(case, trial, evidence)
                if trial.precision == "float32" and "tf32" not in case.limits and torch.cuda.is_available():
                    case.limits["tf32"] = tf32_eager(models[graph], graph, case.pool, case.reference)
    scripts = {tried.row.graph: tried for tried in alone if tried.row.runtime == SCRIPT}
    for graph, files in artifacts.items():
        graph_pool = cases[graph].pool
        failed = [r for r in rows if r.graph == graph and r.runtime == "onnx" and r.verdict == "failed"]
        if failed or options.layers:
            options.progress(f"{graph}: layer by layer")
            device = failed[0].device if failed else "cpu"
            groups = _bisected_groups(spec, failed, batches)
            divergence.append(bisect_graph(models[graph], graph, files["onnx"], graph_pool, groups, device))
        failed = [r for r in rows if r.graph == graph and r.runtime == "torchscript" and r.verdict == "failed"]
        if failed or options.layers:
            groups = _bisected_groups(spec, failed, batches)
            steps = script_steps(models[graph], graph, files["torchscript"], graph_pool, groups)
            divergence.append(scripts[graph].divergence(failed[0] if failed else None, steps))
    reach = prepared.reach
    return ParityReport(
        options.name,
        rows,
        tuple(options.require),
        host_facts(),
        {
            "model": "eager float64 on the CPU, this project's rebuild of PtychoPINN's",
            "groups": len(pool),
            "patterns": pool.origin,
            "positions": pool.positions,
            "sha256": pool.sha256(),
            "reach": reach.words(),
        },
        planned=tuple(planned),
        files=digests(artifacts),
        divergence=divergence,
        rule=RULE,
        notices=[reach.words()] if reach.unseen else [],
        evidence=evidence,
    )


def _case(prepared: Prepared, graph: str) -> GraphCase:
    inputs, outputs = graph_io(prepared.spec, graph)
    pool = prepared.pool.only({info["name"] for info in inputs})
    shapes = {info["name"]: (list(info["shape"]), info["dtype"]) for info in outputs}
    return GraphCase(graph, pool, prepared.references[graph], {"float32": prepared.rounded[graph]}, shapes)


def _bisected_groups(spec: ModelSpec, failed: list[ParityRow], batches: tuple[int, ...]) -> int:
    """Return how many groups are looked into: those of the first row that failed, as far as memory goes."""
    batch = failed[0].batch if failed else max(batches)
    return max(1, min(batch, _BISECT_VALUES // (spec.C * spec.N**2)))


def digests(artifacts: Mapping[str, Mapping[str, bytes]]) -> dict[str, dict[str, str]]:
    """Return the sha256 of each file, by graph and format."""
    return {
        graph: {kind: sha256(data).hexdigest() for kind, data in files.items()} for graph, files in artifacts.items()
    }
