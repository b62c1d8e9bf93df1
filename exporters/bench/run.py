"""The whole bench: export if need be, write out what the contenders open, race them, and say what each costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporters.bench.case import CENTRE, VARIANT, VARIANT_CENTRE, WHOLE, WITHOUT, CannotRun, Case
from exporters.bench.contenders import CONTENDERS, GRAPH, LIMITS, REWRITTEN, Contender, matrix_multiply_adds
from exporters.bench.loading import compare_loading
from exporters.bench.plot import plot_png
from exporters.bench.profile import profile
from exporters.bench.race import Arena, Child, Turns, cold_start, race
from exporters.bench.report import TARGET_BATCH, BenchReport, Cost, Row
from exporters.bench.tables import to_markdown
from exporters.formats.onnx import export_onnx
from exporters.formats.optimize import REWRITES
from exporters.graph.cost import multiply_adds, multiply_adds_by_node
from exporters.graph.graphs import build_graph, graph_io
from exporters.host import host_facts
from exporters.parity.inputs import EDGES, input_source, make_pool
from exporters.parity.runners import EagerRunner
from exporters.pipeline import export_bundle, load_for_export, stored_exports, stored_member
from exporters.stored import write as store
from exporters.stored.torchscript import made_anew, torchscript_to_run
from ptycho_runtime import contract as c
from ptycho_runtime.engine.devices import usable_threads
from ptycho_runtime.engine.hardware import reduced_arithmetic
from ptycho_runtime.export.precision import Budget, variant_precision
from ptycho_runtime.files import write_file
from ptycho_runtime.metrics import field_errors, object_field
from ptycho_torch import params as params_module
from ptycho_torch.bundle import BundleRecord, is_own_member, read_bundle
from ptycho_torch.errors import DamagedBundleError
from ptycho_torch.model_manager import require_torch, with_params
from ptycho_torch.models.module import PtychoModel

BATCHES = (1, 4, 16, 64)
ROUNDS = 7
DEVICES = ("cpu", "cuda")
BENCH_JSON, BENCH_MARKDOWN, BENCH_PNG = "bench.json", "bench.md", "bench.png"
_POOL_GROUPS = 16

Progress = Callable[[str], None]


@dataclass
class Prepared:
    """A bundle ready to be measured."""

    arena: Arena
    model: PtychoModel
    multiply_adds: dict[str, int]  # of one group, by graph
    feed: dict[str, np.ndarray]
    file_bytes: dict[str, int]
    variants: dict[str, str]  # precision in words, by file
    export_s: float | None  # what the export took, parity included; None where the bundle came exported


def run_bench(
    source: str | Path,
    out: str | Path | None = None,
    *,
    batches: Sequence[int] = BATCHES,
    rounds: int = ROUNDS,
    devices: Sequence[str] = DEVICES,
    only: Iterable[str] = (),
    scan: str | Path | None = None,
    budget: Budget | None = None,
    rewrites: bool = False,
    progress: Progress | None = None,
) -> tuple[BenchReport, Path]:
    """Measure every way of running a bundle's `diffraction_to_obj` side by side, and write the report.

    `params.cfg` is left as it was.

    Args:
        source: an exported bundle, or one that is exported into a temporary folder first.
        out: folder for `bench.json`, `bench.md` and `bench.png`; `artifacts/<bundle name>` by default.
        batches: groups per call.
        rounds: how often each contender takes a turn at each batch size.
        devices: `cpu`, `cuda`.
        only: names of contenders to measure; all by default.
        scan: whose patterns are run, in place of simulated ones.
        rewrites: measure ONNX files without the exact rewrites too, all and one at a time.
        budget: export with the fastest variant in reduced precision that keeps it on the scan.
        progress: called with a short text at each step.

    Returns:
        (the report, the folder it was written to).

    Raises:
        FileNotFoundError: nothing is at `source`.
        BundleError: the bundle is refused, or the output cannot be written.
        ParityError: an export, made first, computes something else.
        RuntimeError: PyTorch is not installed.
    """
    require_torch("bench")
    say = progress or (lambda text: None)
    wanted = set(only)
    chosen = [contender for contender in CONTENDERS if not wanted or contender.name in wanted]
    chosen += REWRITTEN if rewrites else ()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        with params_module.restored():
            say("reading")
            given = read_bundle(source)
            folder = Path(out) if out is not None else store.default_folder(given)
            store.check_writable(folder)
            ready = _prepare(given, Path(name), max(batches), _pool_batch(batches), scan, budget, rewrites, say)
        report = _measure(ready, store.bundle_name(given), chosen, batches, rounds, devices, say)
        say("reading the weights")
        report.loading = compare_loading(given, given.path, ready.arena.threads)
        if any(contender.name == "ONNX" for contender in chosen):
            say("profile")
            report.layers = profile(ready.arena, TARGET_BATCH)
    write_file(folder / BENCH_JSON, report.to_json().encode())
    write_file(folder / BENCH_MARKDOWN, to_markdown(report).encode())
    write_file(folder / BENCH_PNG, plot_png(report))
    return report, folder


def _pool_batch(batches: Sequence[int]) -> int:
    """Return the batch size at which accuracy is measured: one that was compiled anyway."""
    return max((batch for batch in batches if batch <= _POOL_GROUPS), default=_POOL_GROUPS)


def _prepare(
    given: BundleRecord,
    folder: Path,
    largest: int,
    pool_batch: int,
    scan: str | Path | None,
    budget: Budget | None,
    rewrites: bool,
    say: Progress,
) -> Prepared:
    record, export_s = given, None
    if record.exports is None or budget is not None:
        say("exporting")
        start = time.perf_counter()
        path = export_bundle(given.path, folder / "plain").bundle
        export_s = time.perf_counter() - start
        if budget is not None:
            path = export_bundle(given.path, folder / "exported", scan=scan, precision="auto", budget=budget).bundle
        record = read_bundle(path)
    exports = stored_exports(record)
    params = exports["params"] if record.kind == "ckpt" else None
    loaded = load_for_export(with_params(record, params), exports["spec"])
    problems: list[str] = []
    files = exports["graphs"][GRAPH]["files"]
    stored = {kind: stored_member(record, info, problems) for kind, info in files.items()}
    _refuse(record, problems)
    torchscript, notice = torchscript_to_run(
        stored.pop("torchscript"),
        made_anew(loaded.models[GRAPH], GRAPH, loaded.spec),
        exports,
        f"{record.path.name}: {c.torchscript_member(GRAPH)}",
    )
    if notice:
        say(notice)
    (folder / c.TORCHSCRIPT_FILE).write_bytes(torchscript)
    if c.CENTRE in exports["graphs"]:
        stored[CENTRE] = stored_member(record, exports["graphs"][c.CENTRE]["files"]["onnx"], problems)
    precisions: dict[str, str] = {}
    words: dict[str, str] = {}
    for entry in exports.get("variants", []):
        which = VARIANT_CENTRE if entry["graph"] == c.CENTRE else VARIANT
        stored[which] = stored_member(record, entry["file"], problems)
        precisions[which] = entry["precision"]
        words[which] = variant_precision(entry["precision"], len(entry["int8_layers"]))
        if entry["int8_layers"]:
            counts = multiply_adds_by_node(stored[WHOLE if which == VARIANT else CENTRE])
            share = sum(counts[layer] for layer in entry["int8_layers"] if layer in counts) / sum(counts.values())
            words[which] += f", {share:.0%} of the multiply-adds in int8"
    _refuse(record, problems)
    if rewrites:
        stored |= _unwritten(loaded.models[GRAPH])
    paths = {}
    for number, (which, data) in enumerate(stored.items()):
        path = folder / f"{number}.onnx"
        path.write_bytes(data)
        paths[which] = str(path)
    io = exports["graphs"][GRAPH]
    case = Case(
        bundle=str(record.path.resolve()),
        params=params,
        architecture=loaded.spec.to_json(),
        files=paths,
        precisions=precisions,
        torchscript=str(folder / c.TORCHSCRIPT_FILE),
        inputs=[info["name"] for info in io["inputs"]],
        outputs=[info["name"] for info in io["outputs"]],
    )
    case.write(folder / "case.json")
    groups = -(-_POOL_GROUPS // pool_batch) * pool_batch
    source = input_source(loaded.spec, exports["input_scale"], scan)
    pool = make_pool(loaded.spec, groups + len(EDGES), source)
    # Ordinary patterns: reduced precision is not made for the edges, and parity tries those.
    plain = [number for number, kind in enumerate(pool.kinds) if kind in ("simulated", "scan")][:groups]
    rows = np.resize(plain, max(largest, TARGET_BATCH))
    feed = {f"pool.{name}": pool.feed[name][plain] for name in case.inputs}
    feed |= {f"timed.{name}": pool.feed[name][rows] for name in case.inputs}
    np.savez(folder / "feed.npz", allow_pickle=False, **feed)
    own_bytes = sum(size for member, size in record.members if not is_own_member(member))
    sizes = {"bundle": own_bytes, "torchscript": len(torchscript), **{kind: len(data) for kind, data in stored.items()}}
    arena = Arena(folder / "case.json", folder / "feed.npz", usable_threads())
    counts = {which: multiply_adds(data) for which, data in stored.items() if which in (WHOLE, CENTRE)}
    return Prepared(arena, loaded.models[GRAPH], counts, feed, sizes, words, export_s)


def _unwritten(model: PtychoModel) -> dict[str, bytes]:
    """Return ONNX files made without the exact rewrites: all of them, and one at a time."""
    module, (inputs, outputs) = build_graph(model, GRAPH), graph_io(model.spec, GRAPH)
    metadata = dict.fromkeys(c.META_KEYS, "bench") | {"graph": GRAPH}
    kept: dict[str, list[str]] = {WITHOUT + "rewrites": []}
    kept |= {WITHOUT + left_out: [name for name in REWRITES if name != left_out] for left_out in REWRITES}
    return {which: export_onnx(module, inputs, outputs, metadata, names) for which, names in kept.items()}


def _refuse(record: BundleRecord, problems: list[str]) -> None:
    if problems:
        raise DamagedBundleError(f"{record.path.name}: {'; '.join(problems)}; export the bundle again")


def _measure(
    ready: Prepared,
    name: str,
    chosen: Sequence[Contender],
    batches: Sequence[int],
    rounds: int,
    devices: Sequence[str],
    say: Progress,
) -> BenchReport:
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
    for device in devices:
        taking_part = [contender for contender in chosen if device in contender.devices]
        if device == "cuda" and not torch.cuda.is_available():
            reason = "no CUDA device"
            report.rows += [Row(o.key, device, b, Turns(reason=reason)) for o in taking_part for b in batches]
            continue
        _race_device(report, ready, taking_part, device, batches, rounds, reference, say)
        for contender in taking_part:
            cost = next(found for found in report.costs if (found.contender, found.device) == (contender.key, device))
            for number in range(0 if cost.reason else contender.cold_starts):
                say(f"cold start {number + 1} of {contender.key} on {device}")
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
    batches: Sequence[int],
    rounds: int,
    reference: dict[str, np.ndarray],
    say: Progress,
) -> None:
    limits = [limit for limit in LIMITS if device in limit.devices]
    children: dict[str, Child] = {}
    reasons: dict[str, str] = {}
    rates: list[float] = []
    try:
        for contender in (*taking_part, *limits):
            say(f"opening {contender.key} on {device}")
            children[contender.key] = Child(ready.arena, contender, device)
            try:
                children[contender.key].ask(do="open")
            except CannotRun as error:
                reasons[contender.key] = str(error)
                children.pop(contender.key).close()
        for batch in batches:
            say(f"batch {batch} on {device}")
            found, disturbed = race(children, batch, rounds, ready.arena.threads)
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
                say(f"accuracy of {contender.key} on {device}")
                path = ready.arena.case.with_name("outputs.npz")
                try:
                    children[contender.key].ask(do="outputs", batch=_pool_batch(batches), path=str(path))
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
