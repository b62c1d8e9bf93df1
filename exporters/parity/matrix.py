"""Run every runtime on every device over every graph and batch, against the eager model in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from exporters.graphs import graph_io
from exporters.parity.inputs import Pool, make_pool
from exporters.parity.metrics import Budget, budget, field_errors
from exporters.parity.report import ParityReport, ParityRow, host_facts
from exporters.parity.runners import EagerRunner, NotRunnable, OnnxRunner, Outputs, Runner, TorchScriptRunner
from ptycho_runtime.contract import TensorInfo
from ptycho_runtime.devices import ORT_ERRORS
from ptycho_runtime.metrics import errors
from ptycho_torch.models.module import PtychoModel
from ptycho_torch.spec import ModelSpec

BATCHES = (1, 3, 16, 33)
FAILURES: tuple[type[Exception], ...] = (*ORT_ERRORS, TypeError, KeyError)
POOL_GROUPS = 8  # at least: the edges are among them
DEVICES = ("cpu", "cuda", "tensorrt")


def run_parity(
    models: Mapping[str, PtychoModel],
    spec: ModelSpec,
    artifacts: Mapping[str, Mapping[str, bytes]],
    *,
    name: str = "bundle",
    batches: Iterable[int] = BATCHES,
    scan: Path | None = None,
    devices: Iterable[str] = DEVICES,
    require: Iterable[str] = (),
    progress: Callable[[str], None] | None = None,
) -> ParityReport:
    """Compare the stored files with the untouched eager models.

    Args:
        models: eager float32 models on the CPU, by graph.
        spec: what they are.
        artifacts: file contents by graph and format (`onnx`, `torchscript`).
        name: the bundle's, for the report.
        batches: batch sizes; each is a slice of one pool of groups.
        scan: a scan whose patterns are used in place of simulated ones.
        devices: which to try; one that is absent gives rows `not run`.
        require: devices that must have run, see `ParityReport.missing_devices`.
        progress: called with a short text before each runtime.
    """
    batches = tuple(sorted(set(batches)))
    if not batches:
        raise ValueError("no batch sizes given; expected at least one")
    pool = make_pool(spec, max(*batches, POOL_GROUPS), scan)
    rows: list[ParityRow] = []
    for graph, files in artifacts.items():
        inputs, outputs = graph_io(spec, graph)
        feed_names = {info["name"] for info in inputs}
        graph_pool = Pool({k: v for k, v in pool.feed.items() if k in feed_names}, pool.kinds)
        if progress:
            progress(f"{graph}: float64 reference")
        reference = in_chunks(EagerRunner(models[graph], graph, dtype=torch.float64), graph_pool)
        eager32 = in_chunks(EagerRunner(models[graph], graph), graph_pool)
        shapes = {info["name"]: (list(info["shape"]), info["dtype"]) for info in outputs}
        trials = _trials(models[graph], graph, files, inputs, outputs, devices)
        for runtime, device, open_runner in trials:
            if progress:
                progress(f"{graph}: {runtime} on {device}")
            rows += _rows(graph, runtime, device, open_runner, graph_pool, batches, reference, eager32, shapes)
    return ParityReport(
        name, rows, tuple(require), host_facts(), {"model": "eager float64 on the CPU", "groups": len(pool)}
    )


def _trials(
    model: PtychoModel,
    graph: str,
    files: Mapping[str, bytes],
    inputs: list[TensorInfo],
    outputs: list[TensorInfo],
    devices: Iterable[str],
) -> list[tuple[str, str, Callable[[], Runner]]]:
    """Return (runtime, device, how to open it) for every row that a report has, whether or not this host can run it."""
    trials: list[tuple[str, str, Callable[[], Runner]]] = []
    for device in devices:
        if device != "tensorrt":
            trials.append(("eager", device, partial(EagerRunner, model, graph, device)))
            script = partial(TorchScriptRunner, files["torchscript"], inputs, outputs, device)
            trials.append(("torchscript", device, script))
        trials.append(("onnx", device, partial(OnnxRunner, files["onnx"], device)))
    return trials


def in_chunks(runner: Runner, pool: Pool, size: int = 8) -> Outputs:
    """Return a runner's outputs for a whole pool, in chunks that keep memory small."""
    parts = [runner.run(pool.slice(i, i + size)) for i in range(0, len(pool), size)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _rows(
    graph: str,
    runtime: str,
    device: str,
    open_runner: Callable[[], Runner],
    pool: Pool,
    batches: tuple[int, ...],
    reference: Outputs,
    eager32: Outputs,
    shapes: dict[str, tuple[list[int | str], str]],
) -> list[ParityRow]:
    rows = []

    def row(batch: int, verdict: str, reason: str = "") -> ParityRow:
        made = ParityRow(graph, runtime, device, "float32", batch, pool.kind(0, batch), verdict, reason)
        rows.append(made)
        return made

    try:
        with open_runner() as runner:
            for batch in batches:
                try:
                    found = runner.run(pool.slice(0, batch))
                except FAILURES as error:
                    row(
                        batch,
                        "failed",
                        f"it raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                    )
                    continue
                judge(
                    row(batch, "passed"),
                    found,
                    {k: v[:batch] for k, v in reference.items()},
                    {k: v[:batch] for k, v in eager32.items()},
                    shapes,
                )
            facts = runner.facts()
            strangers = [p for p in facts.get("node_providers", {}) if device != "cpu" and p == "CPUExecutionProvider"]
            for made in rows:
                made.facts = facts
                if strangers:
                    made.verdict, made.reason = "failed", "onnxruntime ran part of the graph on the CPU"
    except NotRunnable as error:
        rows.clear()
        for batch in batches:
            row(batch, "not run", str(error))
    except FAILURES as error:
        rows.clear()
        for batch in batches:
            row(
                batch,
                "failed",
                f"it cannot be opened: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            )
    return rows


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
        allowed = budget(name, eager32[name], wanted)
        row.outputs[name] = figures(name, got, wanted, allowed)
        if row.outputs[name]["share"] > 1.0:
            row.verdict = "failed"
    row.outputs["object"] = field_errors(found, reference)


def figures(name: str, got: np.ndarray, wanted: np.ndarray, allowed: Budget) -> dict[str, float]:
    """Return one output's errors, what is allowed, and the larger of the two shares."""
    max_abs, rel_l2 = errors(name, got, wanted)
    share = 0.0
    for error, limit in ((max_abs, allowed.max_abs), (rel_l2, allowed.rel_l2)):
        share = max(share, error / limit if limit > 0.0 else (0.0 if error == 0.0 else float("inf")))
    return {
        "max_abs": max_abs,
        "rel_l2": rel_l2,
        "allowed_max_abs": allowed.max_abs,
        "allowed_rel_l2": allowed.rel_l2,
        "share": share,
    }
