"""A bundle made ready to be measured: exported if need be, and what the contenders open written out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporters.bench.case import CENTRE, VARIANT, VARIANT_CENTRE, VARIANT_GPU, WHOLE, WITHOUT, Case
from exporters.bench.contenders import GRAPH
from exporters.bench.end_to_end import PATTERNS
from exporters.bench.race import Arena
from exporters.bench.report import TARGET_BATCH
from exporters.formats.onnx import OnnxFamily
from exporters.formats.optimize import REWRITES
from exporters.graph.cost import multiply_adds, multiply_adds_by_node
from exporters.graph.family import Family
from exporters.graph.graphs import make_graph
from exporters.loading import load_for_export
from exporters.options import ExportOptions, Progress, ProofOptions, silent
from exporters.parity.inputs import EDGES, Source, make_pool
from exporters.pipeline import export_bundle
from exporters.preflight import usable_scan
from exporters.stored.open import StoredExports
from exporters.stored.torchscript import made_anew, torchscript_to_run
from ptycho_runtime import contract
from ptycho_runtime.engine.hardware import usable_threads
from ptycho_runtime.export.precision import Budget, variant_precision
from ptycho_torch.build import with_params
from ptycho_torch.bundle import BundleRecord, is_own_member, read_bundle
from ptycho_torch.models.module import PtychoModel

_POOL_GROUPS = 16


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What is measured, and how long."""

    batches: Sequence[int] = (1, 4, 16, 64)
    """Groups per call."""
    rounds: int = 7
    """How often each contender takes a turn at each batch size."""
    devices: Sequence[str] = ("cpu", "cuda")
    only: Sequence[str] = ()
    """Names of contenders to measure; all by default."""
    scan: str | Path | None = None
    """Whose patterns are run, in place of simulated ones."""
    budget: Budget | None = None
    """Export with the fastest variant in reduced precision that keeps it on the scan: of the CPU, or where only CUDA is measured
    in float16."""
    compile: bool = False
    """Measure `torch.compile` too, which takes minutes to compile; it is measured as well where `only` names it."""
    cold_starts: int = 3
    """How often at most a contender is started anew."""
    end_to_end_patterns: int = PATTERNS
    """Of the scan, repeated, that is reconstructed from compressed HDF5 where a scan is given."""
    rewrites: bool = False
    """Measure ONNX files without the exact rewrites too, all and one at a time."""
    progress: Progress = silent
    """Called with a short text at each step."""

    @property
    def pool_batch(self) -> int:
        """The batch size at which accuracy is measured: one that was compiled anyway."""
        return max((batch for batch in self.batches if batch <= _POOL_GROUPS), default=_POOL_GROUPS)


@dataclass
class Prepared:
    """A bundle ready to be measured."""

    arena: Arena
    model: PtychoModel
    multiply_adds: dict[str, int]
    """Of one group, by graph."""
    feed: dict[str, np.ndarray]
    file_bytes: dict[str, int]
    variants: dict[str, str]
    """Precision in words, by file."""
    bundle: str
    """The exported one."""
    export_s: float | None
    """What the export took, parity included; None where the bundle came exported."""


def prepare(given: BundleRecord, folder: Path, options: BenchOptions) -> Prepared:
    """Return what is measured of a bundle.

    Args:
        given: exported or not.
        folder: takes the files that the contenders open.
        options: what the caller decided.

    Raises:
        BundleError: the bundle is refused, or a stored file is not the one that was exported.
        ParityError: an export, made first, computes something else.
    """
    bundle, export_s = given, None
    if bundle.exports is None or options.budget is not None:
        options.progress("exporting")
        start = time.perf_counter()
        path = export_bundle(given.path, folder / "plain").bundle
        export_s = time.perf_counter() - start
        if options.budget is not None:
            precision = "float16" if tuple(options.devices) == ("cuda",) else "auto"
            reduced = ExportOptions(scan=options.scan, precision=precision, budget=options.budget)
            path = export_bundle(given.path, folder / "exported", reduced).bundle
        bundle = read_bundle(path)
    exports = StoredExports.open(bundle)
    loaded = load_for_export(with_params(bundle, exports.checkpoint_params), exports.record.spec)
    torchscript, notice = torchscript_to_run(
        exports.torchscript(GRAPH),
        made_anew(loaded.models[GRAPH], GRAPH, loaded.spec),
        exports.record,
        f"{bundle.path.name}: {contract.torchscript_member(GRAPH)}",
    )
    if notice:
        options.progress(notice)
    (folder / contract.TORCHSCRIPT_FILE).write_bytes(torchscript)
    stored: dict[str, bytes] = {WHOLE: exports.onnx(GRAPH)}
    if contract.CENTRE in exports.record.graphs:
        stored[CENTRE] = exports.onnx(contract.CENTRE)
    precisions, words = _variants(exports, stored)
    exports.refuse_problems()
    if options.rewrites:
        stored |= _unwritten(loaded.models[GRAPH])
    paths = {}
    for number, (which, data) in enumerate(stored.items()):
        path = folder / f"{number}.onnx"
        path.write_bytes(data)
        paths[which] = str(path)
    graph = exports.record.graphs[GRAPH]
    case = Case(
        bundle=str(bundle.path.resolve()),
        params=exports.checkpoint_params,
        architecture=loaded.spec.to_json(),
        files=paths,
        precisions=precisions,
        torchscript=str(folder / contract.TORCHSCRIPT_FILE),
        inputs=[info["name"] for info in graph.inputs],
        outputs=[info["name"] for info in graph.outputs],
    )
    case.write(folder / "case.json")
    scale = exports.record.input_scale
    scan = usable_scan(loaded.spec, ProofOptions(scan=options.scan))
    feed = _feed(case, Source(scale.formula, scale.value, scan), loaded.models[GRAPH], options)
    np.savez(folder / "feed.npz", allow_pickle=False, **feed)
    own_bytes = sum(size for member, size in bundle.members if not is_own_member(member))
    sizes = {"bundle": own_bytes, "torchscript": len(torchscript), **{kind: len(data) for kind, data in stored.items()}}
    arena = Arena(folder / "case.json", folder / "feed.npz", usable_threads())
    counts = {which: multiply_adds(data) for which, data in stored.items() if which in (WHOLE, CENTRE)}
    return Prepared(arena, loaded.models[GRAPH], counts, feed, sizes, words, case.bundle, export_s)


def _variants(exports: StoredExports, stored: dict[str, bytes]) -> tuple[dict[str, str], dict[str, str]]:
    """Add the stored variants to the files; return the precision of each as its engine takes it, and in words."""
    precisions: dict[str, str] = {}
    words: dict[str, str] = {}
    for entry in exports.variants:
        on_gpu = entry.engine == "onnxruntime"
        if on_gpu and entry.graph == contract.CENTRE:
            continue  # no contender runs it
        which = VARIANT_GPU if on_gpu else VARIANT_CENTRE if entry.graph == contract.CENTRE else VARIANT
        stored[which] = exports.variant(entry)
        precisions[which] = entry.precision
        words[which] = variant_precision(entry.precision, len(entry.int8_layers))
        if entry.int8_layers:
            counts = multiply_adds_by_node(stored[CENTRE if which == VARIANT_CENTRE else WHOLE])
            share = sum(counts[layer] for layer in entry.int8_layers if layer in counts) / sum(counts.values())
            words[which] += f", {share:.0%} of the multiply-adds in int8"
    return precisions, words


def _feed(case: Case, source: Source, model: PtychoModel, options: BenchOptions) -> dict[str, np.ndarray]:
    """Return what accuracy is measured on (`pool.NAME`) and what is timed (`timed.NAME`)."""
    groups = -(-_POOL_GROUPS // options.pool_batch) * options.pool_batch
    pool = make_pool(model.spec, groups + len(EDGES), source)
    # Ordinary patterns: reduced precision is not made for the edges, and parity tries those.
    plain = [number for number, kind in enumerate(pool.kinds) if kind in ("simulated", "scan")][:groups]
    rows = np.resize(plain, max(*options.batches, TARGET_BATCH))
    feed = {f"pool.{name}": pool.feed[name][plain] for name in case.inputs}
    return feed | {f"timed.{name}": pool.feed[name][rows] for name in case.inputs}


def _unwritten(model: PtychoModel) -> dict[str, bytes]:
    """Return ONNX files made without the exact rewrites: all of them, and one at a time."""
    graph = make_graph(model, GRAPH)
    metadata = dict.fromkeys(contract.META_KEYS, "bench") | {"graph": GRAPH}
    kept: dict[str, list[str]] = {WITHOUT + "rewrites": []}
    kept |= {WITHOUT + left_out: [name for name in REWRITES if name != left_out] for left_out in REWRITES}
    traced = OnnxFamily(Family((graph,), graph.module))
    return {which: traced.file(graph, metadata, names) for which, names in kept.items()}
