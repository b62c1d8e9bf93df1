"""Run every runtime on every device over every graph and batch, against the eager model in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import torch

from exporters.graph.graphs import graph_io
from exporters.host import host_facts
from exporters.options import BATCHES, Progress, silent
from exporters.parity.alone import SCRIPT, alone_rows
from exporters.parity.devices import why_unproven
from exporters.parity.evidence import Evidence
from exporters.parity.inputs import Pool, Source
from exporters.parity.layers import bisect_graph
from exporters.parity.metrics import MOST, MOST_TF32, RULE, budget, figures
from exporters.parity.precision import tf32_eager
from exporters.parity.prepare import Prepared, prepare, telling_batches
from exporters.parity.report import ParityReport
from exporters.parity.rows import Divergence, ParityRow
from exporters.parity.runners import FAILURES, EagerRunner, NotRunnable, OnnxRunner, Outputs, TorchScriptRunner
from exporters.parity.script_steps import script_steps
from exporters.parity.sweep import sweep_rows
from ptycho_runtime import contract
from ptycho_runtime.engine.batching import Feed
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.engine.session import BaseSession, Session
from ptycho_runtime.metrics import field_errors
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
    options.progress("sweep behind the networks")
    rows += sweep_rows(models, artifacts, pool)
    options.progress("each layer by itself")
    alone = alone_rows(prepared.layers, artifacts)
    rows += [tried.row for tried in alone]
    scripts = {tried.row.graph: tried for tried in alone if tried.row.runtime == SCRIPT}
    planned = [row.cell for row in rows]
    for graph, files in artifacts.items():
        inputs, outputs = graph_io(spec, graph)
        graph_pool = pool.only({info["name"] for info in inputs})
        reference = prepared.references[graph]
        shapes = {info["name"]: (list(info["shape"]), info["dtype"]) for info in outputs}
        limits = {"float32": prepared.rounded[graph]}
        case = GraphCase(graph, graph_pool, reference, limits, shapes)
        for trial in _trials(models[graph], graph, files, devices, prepared.eagers32[graph]):
            planned += [(graph, trial.runtime, trial.device, trial.precision, batch) for batch in batches]
            options.progress(f"{graph}: {trial.runtime} on {trial.device}")
            rows += trial_rows(case, trial, batches, evidence)
            if trial.precision == "float32" and "tf32" not in limits and torch.cuda.is_available():
                limits["tf32"] = tf32_eager(models[graph], graph, graph_pool, reference)
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


def _bisected_groups(spec: ModelSpec, failed: list[ParityRow], batches: tuple[int, ...]) -> int:
    """Return how many groups are looked into: those of the first row that failed, as far as memory goes."""
    batch = failed[0].batch if failed else max(batches)
    return max(1, min(batch, _BISECT_VALUES // (spec.C * spec.N**2)))


def digests(artifacts: Mapping[str, Mapping[str, bytes]]) -> dict[str, dict[str, str]]:
    """Return the sha256 of each file, by graph and format."""
    return {
        graph: {kind: sha256(data).hexdigest() for kind, data in files.items()} for graph, files in artifacts.items()
    }


class Trial(NamedTuple):
    """One row's runtime, device and precision, and how to open it, whether or not this host can run it."""

    runtime: str
    device: str
    precision: str
    open_runner: Callable[[], Session]


def _trials(
    model: PtychoModel, graph: str, files: Mapping[str, bytes], devices: Iterable[str], eager32: Outputs
) -> list[Trial]:
    inputs, outputs = graph_io(model.spec, graph)
    trials = []
    for device in devices:
        # TensorRT rounds to TF32 where the GPU has it, and onnxruntime has no option against that.
        for precision in {"cpu": ("float32",), "tensorrt": ("tf32",)}.get(device, ("float32", "tf32")):
            tf32 = precision == "tf32"
            script = files["torchscript"]
            if device != "tensorrt":
                # On the CPU it has run already, to know what rounding does.
                eager = (
                    partial(Recorded, eager32)
                    if device == "cpu"
                    else partial(EagerRunner, model, graph, device, tf32=tf32)
                )
                trials.append(Trial("eager", device, precision, eager))
                stored = partial(TorchScriptRunner, script, inputs, outputs, device, tf32=tf32)
                trials.append(Trial("torchscript", device, precision, stored))
            # The runtime cuts large batches among its threads; here each is one run, or a file wrong at that size would pass.
            onnx = partial(OnnxRunner, files["onnx"], device, tf32=tf32, whole=device == "cpu")
            trials.append(Trial("onnx", device, precision, onnx))
    return trials


class Recorded(BaseSession):
    """Eager float32's outputs as a session: what it gave for the pool, one thread for each few groups."""

    engine, device, options = "torch", "cpu", RunOptions("cpu", threads=1)

    def __init__(self, arrays: Outputs) -> None:
        """Take outputs for the whole pool."""
        self.arrays, self.inputs, self.outputs = arrays, {}, list(arrays)

    def run(self, feed: Feed) -> Outputs:
        """Return the outputs of the first groups of the pool, as many as the feed has."""
        batch = len(feed[contract.DIFFRACTION])
        return {name: value[np.arange(batch) % len(value)] for name, value in self.arrays.items()}

    def facts(self) -> dict[str, Any]:
        """Return PyTorch's version and that one thread ran it."""
        return {"torch": torch.__version__, "threads": 1, "outputs_on": ["cpu"]}

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""


def in_chunks(runner: Session, pool: Pool, size: int = 8) -> Outputs:
    """Return a runner's outputs for a whole pool, in chunks that keep memory small."""
    parts = [runner.run(pool.slice(i, min(i + size, len(pool)))) for i in range(0, len(pool), size)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


@dataclass(frozen=True)
class GraphCase:
    """One graph with what its runtimes are fed and judged by."""

    graph: str
    pool: Pool
    """Inputs of this graph."""
    reference: Outputs
    """Eager float64's, for the whole pool."""
    limits: Mapping[str, Outputs]
    """Eager outputs that budgets are made of, by precision."""
    shapes: dict[str, tuple[list[int | str], str]]
    """Shape and dtype of each output."""


def trial_rows(case: GraphCase, trial: Trial, batches: tuple[int, ...], evidence: Evidence) -> list[ParityRow]:
    """Return one runtime's rows, a batch each.

    Args:
        case: what is run, and how it is judged.
        trial: how the runtime is opened.
        batches: sizes of slices of the pool.
        evidence: takes what is worth showing.
    """
    rows: list[ParityRow] = []
    pool = case.pool
    runtime, device, precision, open_runner = trial

    def row(batch: int, verdict: str, reason: str = "") -> ParityRow:
        made = ParityRow(case.graph, runtime, device, precision, batch, pool.kind(0, batch), verdict, reason)
        rows.append(made)
        return made

    def fail(batch: int, what: str, error: Exception) -> None:
        first = str(error).splitlines()[0] if str(error) else ""
        row(batch, "failed", f"{what} {type(error).__name__}: {first}")

    try:
        with open_runner() as runner:
            repeats: bool | None = None
            for batch in batches:
                feed = pool.slice(0, batch)
                try:
                    found = runner.run(feed)
                    if repeats is None and not isinstance(runner, Recorded):
                        repeats = _same_bits(found, runner.run(feed))
                except FAILURES as error:
                    fail(batch, "it raised", error)
                    continue
                rows_of = pool.rows(0, batch)
                wanted = {k: v[rows_of] for k, v in case.reference.items()}
                eager = {k: v[rows_of] for k, v in case.limits[precision].items()}
                made = row(batch, "passed")
                judge(made, found, wanted, eager, case.shapes)
                evidence.add(made, [pool.kinds[i] for i in rows_of], feed, found, wanted, eager)
            facts = runner.facts() | ({} if repeats is None else {"repeats_bit_exact": repeats})
            doubt = why_unproven(runtime, device, precision, facts)
            for made in rows:
                made.facts = facts
                if doubt:
                    made.verdict, made.reason = "failed", doubt
    except NotRunnable as error:
        rows.clear()
        for batch in batches:
            row(batch, "not run", str(error))
    except FAILURES as error:
        rows.clear()
        for batch in batches:
            fail(batch, "it cannot be opened:", error)
    return rows


def _same_bits(first: Outputs, second: Outputs) -> bool:
    return first.keys() == second.keys() and all(first[k].tobytes() == second[k].tobytes() for k in first)


def judge(
    row: ParityRow,
    found: Outputs,
    reference: Outputs,
    eager32: Outputs,
    shapes: dict[str, tuple[list[int | str], str]],
) -> None:
    """Fill a row's figures and verdict; a missing output, another shape or dtype, or any NaN fails it."""
    if set(found) != set(reference) or set(found) != set(shapes):
        row.verdict, row.reason = "failed", f"outputs {sorted(found)}; expected {sorted(shapes)}"
        return
    if not reference or not all(value.size for value in reference.values()):
        row.verdict, row.reason = "failed", "there was nothing to compare"
        return
    for name, wanted in reference.items():
        got = found[name]
        if got.shape != wanted.shape or str(got.dtype) != shapes[name][1]:
            row.verdict, row.reason = (
                "failed",
                f"{name} is {got.dtype} {got.shape}; expected {shapes[name][1]} {wanted.shape}",
            )
            return
        if not np.isfinite(got).all():
            row.verdict, row.reason = (
                "failed",
                f"{name} holds {int((~np.isfinite(got)).sum())} values that are not finite",
            )
            return
        allowed = budget(name, eager32, reference, MOST_TF32 if row.precision == "tf32" else MOST)
        if (row.device, row.precision) == ("cuda", "float32"):
            allowed = allowed.on_gpu()
        if allowed.objection:
            row.verdict, row.reason = "failed", f"{name}: {allowed.objection}"
            return
        row.outputs[name] = figures(name, got, reference, allowed)
        if not row.outputs[name]["share"] <= 1.0:
            row.verdict = "failed"
    row.outputs["object"] = field_errors(found, reference)
