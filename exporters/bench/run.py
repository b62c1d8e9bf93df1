"""The whole bench: export if need be, write out what the contenders open, race them, and say what each costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from exporters.bench.case import CENTRE, VARIANT_GPU, WHOLE, CannotRun
from exporters.bench.contenders import CONTENDERS, GRAPH, LIMITS, REWRITTEN, Contender, matrix_multiply_adds
from exporters.bench.end_to_end import END_TO_END, end_to_end
from exporters.bench.loading import compare_loading
from exporters.bench.plot import plot_png
from exporters.bench.prepare import BenchOptions, Prepared, prepare
from exporters.bench.profile import profile
from exporters.bench.race import Child, Turns, cold_start, race
from exporters.bench.report import SCHEMA, TARGET_BATCH, BenchReport, Cost, Row
from exporters.bench.tables import to_markdown
from exporters.host import host_facts
from exporters.parity.runners import EagerRunner
from exporters.stored import places
from ptycho_runtime import contract
from ptycho_runtime.engine.hardware import reduced_arithmetic
from ptycho_runtime.files import write_file
from ptycho_runtime.metrics import field_errors, object_field
from ptycho_torch import params as params_module
from ptycho_torch.build import require_torch
from ptycho_torch.bundle import read_bundle

COMPILED = "torch.compile"
STOPPED = "stopped before all was measured"
BENCH_JSON, BENCH_MARKDOWN, BENCH_PNG = "bench.json", "bench.md", "bench.png"


def run_bench(
    source: str | Path, out: str | Path | None = None, options: BenchOptions | None = None, **fields: Any
) -> tuple[BenchReport, Path]:
    """Measure every way of running a bundle's `diffraction_to_obj` side by side, and write the report.

    `params.cfg` is left as it was.

    Args:
        source: an exported bundle, or one that is exported into a temporary folder first.
        out: folder for `bench.json`, `bench.md` and `bench.png`; `artifacts/<bundle name>` by default.
        options: what the caller decides; the defaults where None.
        **fields: fields of `BenchOptions` in place of those of `options`.

    Returns:
        (the report, the folder it was written to).

    Raises:
        FileNotFoundError: nothing is at `source`.
        BundleError: the bundle is refused, or the output cannot be written.
        ParityError: an export, made first, computes something else.
        TorchMissingError: PyTorch is not installed.
    """
    options = replace(options or BenchOptions(), **fields)
    require_torch("bench")
    chosen = chosen_contenders(options)
    chosen += REWRITTEN if options.rewrites else ()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        with params_module.restored():
            options.progress("reading")
            given = read_bundle(source)
            folder = Path(out) if out is not None else places.default_folder(given)
            places.check_writable(folder)
            places.refuse_foreign_reports(folder, (BENCH_JSON, BENCH_MARKDOWN, BENCH_PNG), SCHEMA)
            ready = prepare(given, Path(name), options)
        report = _begun(ready, places.bundle_name(given))
        try:
            # First: a contender's process that stays open beside it would take memory from it.
            if (
                options.scan is not None
                and "cpu" in options.devices
                and (not options.only or END_TO_END in options.only)
            ):
                options.progress(f"{options.end_to_end_patterns} patterns end to end")
                report.end_to_end = end_to_end(
                    ready.bundle, options.scan, options.end_to_end_patterns, ready.arena.threads
                )
            if chosen:
                _measure(report, ready, chosen, options)
            options.progress("reading the weights")
            report.loading = compare_loading(given, given.path, ready.arena.threads)
            # onnxruntime's own record knows when a GPU was given its work, not how long that took.
            if "cpu" in options.devices and any(contender.name == "ONNX" for contender in chosen):
                options.progress("profile")
                report.layers = profile(ready.arena, TARGET_BATCH)
        except KeyboardInterrupt:
            if keep_what_is_there(report):
                _write(report, folder)
                options.progress(f"stopped; what was measured is in {folder / BENCH_MARKDOWN}")
            raise
    _write(report, folder)
    return report, folder


def keep_what_is_there(report: BenchReport) -> bool:
    """Make a report whole that was stopped: what was not measured says so; returns whether anything was measured."""
    known = {(cost.contender, cost.device) for cost in report.costs}
    for key, device in dict.fromkeys((row.contender, row.device) for row in report.rows):
        if (key, device) not in known:
            report.costs.append(Cost(key, device, file_bytes=0, reason=STOPPED))
    report.notes.append(STOPPED)
    return any(row.turns.seconds for row in report.rows) or report.end_to_end is not None


def _write(report: BenchReport, folder: Path) -> None:
    write_file(folder / BENCH_JSON, report.to_json().encode())
    write_file(folder / BENCH_MARKDOWN, to_markdown(report).encode())
    write_file(folder / BENCH_PNG, plot_png(report))


def chosen_contenders(options: BenchOptions) -> list[Contender]:
    """Return who takes part: those that are named, or all but `torch.compile`, which has to be asked for."""
    wanted = set(options.only)
    left_out = set() if options.compile else {COMPILED}
    return [
        contender
        for contender in CONTENDERS
        if (contender.name in wanted if wanted else contender.name not in left_out)
    ]


class Steps:
    """Says what is being done, which of how many steps it is, and about how long the rest takes."""

    def __init__(self, options: BenchOptions, total: int) -> None:
        """Take what is measured, and how many steps that takes."""
        self.options, self.total, self.done = options, total, 0
        self._began_s = time.monotonic()

    def begin(self, text: str) -> None:
        """Say the next step."""
        each_s = (time.monotonic() - self._began_s) / max(self.done, 1)
        left = f", about {each_s * (self.total - self.done):.0f} s left" if self.done else ""
        self.done += 1
        self.options.progress(f"{text} ({self.done} of {self.total}{left})")


def _begun(ready: Prepared, name: str) -> BenchReport:
    """Return a report in which nothing is measured yet."""
    return BenchReport(
        name,
        ready.arena.threads,
        ready.model.spec.in_channels,
        ready.multiply_adds[WHOLE],
        rows=[],
        costs=[],
        limits={},
        centre_multiply_adds=ready.multiply_adds.get(CENTRE, 0),
        centre_leaves_out=ready.model.spec.border_mask,
        export_s=ready.export_s,
        host=host_facts(),
    )


def _measure(report: BenchReport, ready: Prepared, chosen: Sequence[Contender], options: BenchOptions) -> None:
    import torch

    engines = {which: "onnxruntime" if which == VARIANT_GPU else "openvino" for which in ready.variants}
    report.notes += [f"{which}: {engines[which]} {precision}" for which, precision in ready.variants.items()]
    if "openvino" in engines.values() and (arithmetic := reduced_arithmetic()):
        report.notes.append(arithmetic)
    pool = {key.removeprefix("pool."): value for key, value in ready.feed.items() if key.startswith("pool.")}
    with EagerRunner(ready.model, GRAPH, dtype=torch.float64) as eager:
        reference = eager.run(pool)
    steps = Steps(options, _count_steps(chosen, options))
    for device in options.devices:
        taking_part = [contender for contender in chosen if device in contender.devices]
        if device == "cuda" and not torch.cuda.is_available():
            reason = "no CUDA device"
            report.rows += [Row(o.key, device, b, Turns(reason=reason)) for o in taking_part for b in options.batches]
            continue
        _race_device(report, ready, taking_part, device, reference, steps)
        for contender in taking_part:
            cost = next(found for found in report.costs if (found.contender, found.device) == (contender.key, device))
            for number in range(0 if cost.reason else min(contender.cold_starts, options.cold_starts)):
                steps.begin(f"cold start {number + 1} of {contender.key} on {device}")
                try:
                    seconds, peak = cold_start(ready.arena, contender, device)
                except CannotRun as error:
                    cost.reason = f"cold start: {error}"
                    break
                cost.cold_s.append(seconds)
                cost.peak_bytes.append(peak)


def _count_steps(chosen: Sequence[Contender], options: BenchOptions) -> int:
    """Return how many steps there are if every contender opens: opening, batches, accuracy and cold starts on each device."""
    import torch

    total = 0
    for device in options.devices:
        if device == "cuda" and not torch.cuda.is_available():
            continue
        here = [contender for contender in chosen if device in contender.devices]
        total += 2 * len(here) + sum(device in limit.devices for limit in LIMITS) + len(options.batches)
        total += sum(min(contender.cold_starts, options.cold_starts) for contender in here)
    return total


def _race_device(
    report: BenchReport,
    ready: Prepared,
    taking_part: Sequence[Contender],
    device: str,
    reference: dict[str, np.ndarray],
    steps: Steps,
) -> None:
    options = steps.options
    limits = [limit for limit in LIMITS if device in limit.devices]
    children: dict[str, Child] = {}
    reasons: dict[str, str] = {}
    rates: list[float] = []
    try:
        for contender in (*taking_part, *limits):
            # All at once: each spends its first seconds on importing its runtime.
            children[contender.key] = Child(ready.arena, contender, device)
        for contender in (*taking_part, *limits):
            steps.begin(f"opening {contender.key} on {device}")
            try:
                children[contender.key].ask(do="open")
            except CannotRun as error:
                reasons[contender.key] = str(error)
                children.pop(contender.key).close()
        for batch in options.batches:
            steps.begin(f"batch {batch} on {device}")
            found, disturbed = race(children, batch, options.rounds, ready.arena.threads)
            report.disturbance.setdefault(device, []).extend(disturbed)
            reasons |= {key: turns.reason for key, turns in found.items() if turns.reason}
            for contender in taking_part:
                turns = found.get(contender.key, Turns(reason=reasons.get(contender.key, "")))
                report.rows.append(Row(contender.key, device, batch, turns))
                if turns.seconds:
                    options.progress(
                        f"{contender.key} on {device}, batch {batch}: {1e3 * median(turns.seconds):.2f} ms"
                    )
            for limit in limits:
                took = found.get(limit.key, Turns()).seconds
                rates += [matrix_multiply_adds(device) / seconds for seconds in took]
        if rates:
            report.limits[device] = max(rates)
        for contender in taking_part:
            cost = Cost(contender.key, device, file_bytes=ready.file_bytes.get(contender.reads, 0))
            cost.reason = reasons.get(contender.key, "")
            report.costs.append(cost)
            if contender.key in children:
                steps.begin(f"accuracy of {contender.key} on {device}")
                path = ready.arena.case.with_name("outputs.npz")
                try:
                    children[contender.key].ask(do="outputs", batch=options.pool_batch, path=str(path))
                except CannotRun as error:
                    cost.reason = f"accuracy: {error}"
                    continue
                with np.load(path, allow_pickle=False) as data:
                    middle = contract.centre(ready.model.spec.N) if contender.centre else slice(None)
                    wanted = {name: value[..., middle, middle] for name, value in reference.items()}
                    cost.accuracy = accuracy(dict(data), wanted)
    finally:
        for child in children.values():
            child.close()


def accuracy(outputs: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> dict[str, float]:
    """Return relative L2, amplitude and wrapped-phase error of the object against the reference."""
    got, ref = object_field(outputs), object_field(reference)
    assert got is not None and ref is not None  # GRAPH gives an object
    relative = float(np.linalg.norm(got - ref) / np.linalg.norm(ref))
    return {"rel_l2": relative, **field_errors(outputs, reference)}
