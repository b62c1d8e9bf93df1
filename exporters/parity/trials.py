"""One runtime on one device over one graph: its rows, a batch each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from exporters.formats.torchscript_run import StoredTorchScript
from exporters.graph.graphs import graph_io
from exporters.parity.devices import why_unproven
from exporters.parity.evidence import Evidence
from exporters.parity.inputs import Pool
from exporters.parity.metrics import MOST, MOST_TF32, Budget, budget, figures
from exporters.parity.reference import one_thread
from exporters.parity.rows import ParityRow
from exporters.parity.runners import FAILURES, EagerRunner, NotRunnable, OnnxRunner, Outputs, TorchScriptRunner
from ptycho_runtime import contract
from ptycho_runtime.engine.batching import Feed
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.engine.session import BaseSession, Session
from ptycho_runtime.metrics import field_errors
from ptycho_torch.models.module import PtychoModel


class Trial(NamedTuple):
    """One row's runtime, device and precision, and how to open it, whether or not this host can run it."""

    runtime: str
    device: str
    precision: str
    open_runner: Callable[[], Session]
    ahead: bool = False
    """Whether it is one thread's work, which may be done while others are."""


def trials_of(
    model: PtychoModel, graph: str, files: Mapping[str, bytes], devices: Iterable[str], eager32: Outputs
) -> list[Trial]:
    """Return what is tried on a graph, in order: every runtime on every device in every precision.

    Args:
        model: the eager float32 model on the CPU.
        graph: its name.
        files: contents by format.
        devices: to try.
        eager32: what the model gave for the pool already.
    """
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
                ahead = device == "cpu" and not isinstance(script, StoredTorchScript)
                trials.append(Trial("torchscript", device, precision, stored, ahead))
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
    limits: dict[str, Outputs]
    """Eager outputs that budgets are made of, by precision; those in TF32 are added once there is a GPU."""
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
    runtime, device, precision = trial.runtime, trial.device, trial.precision

    def row(batch: int, verdict: str, reason: str = "") -> ParityRow:
        made = ParityRow(case.graph, runtime, device, precision, batch, pool.kind(0, batch), verdict, reason)
        rows.append(made)
        return made

    def fail(batch: int, what: str, error: Exception) -> None:
        first = str(error).splitlines()[0] if str(error) else ""
        row(batch, "failed", f"{what} {type(error).__name__}: {first}")

    try:
        with trial.open_runner() as runner:
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


class TrialsAhead:
    """Trials of TorchScript files on the CPU, which are one thread's work each: a thread beside this one does them meanwhile."""

    def __init__(
        self, cases: Mapping[str, GraphCase], trials: Mapping[str, list[Trial]], batches: tuple[int, ...]
    ) -> None:
        """Take all trials, in order; a stranger's file is run when its turn comes."""
        self._batches = batches
        self._own = [(cases[graph], trial) for graph, of_graph in trials.items() for trial in of_graph if trial.ahead]
        self._begun: dict[tuple[str, str, str], Future[tuple[list[ParityRow], Evidence]]] = {}

    def __enter__(self) -> Self:
        """Begin. PyTorch computes with one thread until the end, as it does in each of these rows."""
        with ExitStack() as opened:
            opened.enter_context(one_thread())
            pool = ThreadPoolExecutor(1, thread_name_prefix="trials ahead")
            opened.callback(pool.shutdown, cancel_futures=True)
            for case, trial in self._own:
                self._begun[case.graph, trial.runtime, trial.device] = pool.submit(self._run, case, trial)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """End, without the trials that were not asked for."""
        self._opened.close()

    def _run(self, case: GraphCase, trial: Trial) -> tuple[list[ParityRow], Evidence]:
        evidence = Evidence(case.graph)
        return trial_rows(case, trial, self._batches, evidence), evidence

    def rows(self, case: GraphCase, trial: Trial, evidence: Evidence) -> list[ParityRow]:
        """Return a trial's rows, a batch each; `evidence` takes what is worth showing, in the order in which rows are asked for."""
        begun = self._begun.pop((case.graph, trial.runtime, trial.device), None)
        if begun is None:
            return trial_rows(case, trial, self._batches, evidence)
        rows, found = begun.result()
        evidence.merge(found)
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
        if not judge_output(row, name, got, reference, allowed):
            return
    row.outputs["object"] = field_errors(found, reference)


def judge_output(row: ParityRow, name: str, value: np.ndarray, reference: Outputs, allowed: Budget) -> bool:
    """Fill a row's figures of one output, and its verdict where they are beyond what is allowed; False where nothing can be."""
    if allowed.objection:
        row.verdict, row.reason = "failed", f"{name}: {allowed.objection}"
        return False
    row.outputs[name] = figures(name, value, reference, allowed)
    if not row.outputs[name]["share"] <= 1.0:
        row.verdict = "failed"
    return True
