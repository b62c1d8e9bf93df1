"""The whole bench: export if need be, write out what the contenders open, race them, and say what each costs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exporters.bench.case import CENTRE, WHOLE, CannotRun
from exporters.bench.contenders import CONTENDERS, GRAPH, LIMITS, REWRITTEN, Contender, matrix_multiply_adds
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
from ptycho_runtime import contract as c
from ptycho_runtime.engine.hardware import reduced_arithmetic
from ptycho_runtime.files import write_file
from ptycho_runtime.metrics import field_errors, object_field
from ptycho_torch import params as params_module
from ptycho_torch.build import require_torch
from ptycho_torch.bundle import read_bundle

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
    wanted = set(options.only)
    chosen = [contender for contender in CONTENDERS if not wanted or contender.name in wanted]
    chosen += REWRITTEN if options.rewrites else ()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        with params_module.restored():
            options.progress("reading")
            given = read_bundle(source)
            folder = Path(out) if out is not None else places.default_folder(given)
            places.check_writable(folder)
            places.refuse_foreign_reports(folder, (BENCH_JSON, BENCH_MARKDOWN, BENCH_PNG), SCHEMA)
            ready = prepare(given, Path(name), options)
        report = _measure(ready, places.bundle_name(given), chosen, options)
        options.progress("reading the weights")
        report.loading = compare_loading(given, given.path, ready.arena.threads)
        if any(contender.name == "ONNX" for contender in chosen):
            options.progress("profile")
            report.layers = profile(ready.arena, TARGET_BATCH)
    write_file(folder / BENCH_JSON, report.to_json().encode())
    write_file(folder / BENCH_MARKDOWN, to_markdown(report).encode())
    write_file(folder / BENCH_PNG, plot_png(report))
    return report, folder


def _measure(ready: Prepared, name: str, chosen: Sequence[Contender], options: BenchOptions) -> BenchReport:
    import torch

    report = BenchReport(
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
    report.notes += [f"{which}: openvino {precision}" for which, precision in ready.variants.items()]
    if ready.variants and (arithmetic := reduced_arithmetic()):
        report.notes.append(arithmetic)
    pool = {key.removeprefix("pool."): value for key, value in ready.feed.items() if key.startswith("pool.")}
    with EagerRunner(ready.model, GRAPH, dtype=torch.float64) as eager:
        reference = eager.run(pool)
    for device in options.devices:
        taking_part = [contender for contender in chosen if device in contender.devices]
        if device == "cuda" and not torch.cuda.is_available():
            reason = "no CUDA device"
            report.rows += [Row(o.key, device, b, Turns(reason=reason)) for o in taking_part for b in options.batches]
            continue
        _race_device(report, ready, taking_part, device, reference, options)
        for contender in taking_part:
            cost = next(found for found in report.costs if (found.contender, found.device) == (contender.key, device))
            for number in range(0 if cost.reason else contender.cold_starts):
                options.progress(f"cold start {number + 1} of {contender.key} on {device}")
                try:
                    seconds, peak = cold_start(ready.arena, contender, device)
                except CannotRun as error:
                    cost.reason = f"cold start: {error}"
                    break
                cost.cold_s.append(seconds)
                cost.peak_bytes.append(peak)
    return report


def _race_device(
    report: BenchReport,
    ready: Prepared,
    taking_part: Sequence[Contender],
    device: str,
    reference: dict[str, np.ndarray],
    options: BenchOptions,
) -> None:
    limits = [limit for limit in LIMITS if device in limit.devices]
    children: dict[str, Child] = {}
    reasons: dict[str, str] = {}
    rates: list[float] = []
    try:
        for contender in (*taking_part, *limits):
            options.progress(f"opening {contender.key} on {device}")
            children[contender.key] = Child(ready.arena, contender, device)
            try:
                children[contender.key].ask(do="open")
            except CannotRun as error:
                reasons[contender.key] = str(error)
                children.pop(contender.key).close()
        for batch in options.batches:
            options.progress(f"batch {batch} on {device}")
            found, disturbed = race(children, batch, options.rounds, ready.arena.threads)
            report.disturbance.setdefault(device, []).extend(disturbed)
            reasons |= {key: turns.reason for key, turns in found.items() if turns.reason}
            for contender in taking_part:
                turns = found.get(contender.key, Turns(reason=reasons.get(contender.key, "")))
                report.rows.append(Row(contender.key, device, batch, turns))
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
                options.progress(f"accuracy of {contender.key} on {device}")
                path = ready.arena.case.with_name("outputs.npz")
                try:
                    children[contender.key].ask(do="outputs", batch=options.pool_batch, path=str(path))
                except CannotRun as error:
                    cost.reason = f"accuracy: {error}"
                    continue
                with np.load(path, allow_pickle=False) as data:
                    middle = c.centre(ready.model.spec.N) if contender.centre else slice(None)
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
