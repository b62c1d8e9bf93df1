"""The whole way: read, rebuild, apply `params.cfg`, export both graphs, prove, store; and the proof again later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exporters.errors import DeviceRequiredError, ParityError
from exporters.formats.onnx import export_onnx
from exporters.formats.torchscript import export_torchscript
from exporters.graph.graphs import build_graph, graph_io, has_centre
from exporters.parity.against import against_rows
from exporters.parity.golden import make_golden
from exporters.parity.inputs import Source, input_source
from exporters.parity.matrix import BATCHES, run_parity
from exporters.parity.report import ParityReport
from exporters.parity.stitched import GRAPH, compare_stitched
from exporters.reduced.choose import Choice, choose_variants
from exporters.reduced.rows import add_rows, verify_variants
from exporters.stored import exports_json as describe
from exporters.stored import write as store
from exporters.stored.open import golden_problems, refuse_other_graphs
from exporters.stored.open import stored_exports as stored_exports
from exporters.stored.open import stored_member as stored_member
from exporters.stored.torchscript import made_anew, torchscript_to_run
from ptycho_runtime import contract as c
from ptycho_runtime.export.precision import Budget
from ptycho_runtime.files import write_file
from ptycho_torch import params as params_module
from ptycho_torch.architecture.detect import Architecture, Detection, detect
from ptycho_torch.bundle import BundleRecord, read_bundle
from ptycho_torch.errors import ConfigurationError, EvidenceConflictError
from ptycho_torch.model_manager import build_models, bundle_params, require_torch, with_params
from ptycho_torch.models.module import PtychoModel
from ptycho_torch.spec import ModelSpec

Progress = Callable[[str], None]


@dataclass
class ExportResult:
    """What an export left."""

    bundle: Path  # the augmented bundle
    folder: Path  # the files beside it
    report: ParityReport
    spec: ModelSpec
    graphs: tuple[str, ...]
    notices: list[str] = field(default_factory=list)
    variants: list[str] = field(
        default_factory=list
    )  # what was tried in reduced precision and what is stored, a line each


@dataclass
class Loaded:
    """The eager models by graph, with what they are; where the middle of the patches is a graph too, its model is the one of the whole."""

    record: BundleRecord
    spec: ModelSpec
    models: dict[str, PtychoModel]
    params: dict[str, Any]
    notices: list[str]


def export_bundle(
    source: str | Path,
    out: str | Path | None = None,
    *,
    in_place: bool = False,
    architecture: Architecture | None = None,
    params: Mapping[str, Any] | str | Path | None = None,
    scan: str | Path | None = None,
    require: Iterable[str] = (),
    batches: Iterable[int] = BATCHES,
    layers: bool = False,
    precision: str | None = None,
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> ExportResult:
    """Export both models of a bundle, prove them equal to the original, and store them beside it.

    Args:
        source: anything `load_torch_bundle` takes.
        out: folder for the augmented bundle and the files beside it; `artifacts/<bundle name>` by default.
        in_place: put the exports into the source itself; only the files beside it go to `out`.
        architecture: fields that settle what the bundle leaves open (dictionary, `ModelSpec` or JSON file).
        params: parameters for what a checkpoint lacks (dictionary or JSON file).
        scan: any scan that the runtime reads; the parity check uses its patterns, positions and probe in place of simulated ones.
        require: devices (`cuda`, `tensorrt`) on which the proof must have run.
        batches: batch sizes of the parity check.
        layers: compare the ONNX files with the eager models layer by layer even if they pass.
        precision: store a variant in reduced precision too: `auto` (the fastest on this host), `bfloat16` or `int8`.
        budget: what that variant may err on held-back patterns of the scan; both are needed for it.
        progress: called with a short text at each step.

    Raises:
        FileNotFoundError: nothing is at `source`.
        BundleError: the bundle is refused, or the output cannot be written; `params.cfg` is then as it was.
        ParityError: an export computes something else, or no variant keeps the budget; no export is stored, the report is.
        DeviceUnavailableError: OpenVINO, which runs the variants, is not installed or lacks the precision here.
        DeviceRequiredError: a required device is absent; no export is stored, the report is.
        RuntimeError: PyTorch is not installed.
    """
    require_torch("export_bundle")
    if precision is not None and (budget is None or scan is None):
        raise ConfigurationError(
            "a variant in reduced precision needs a budget and a scan: give --budget such as phase=0.01rad,amp=1% and --scan"
        )
    say = progress or (lambda text: None)
    say("reading")
    record = read_bundle(source)
    folder = Path(out) if out is not None else store.default_folder(record)
    target = store.target_path(record, folder, in_place=in_place)
    store.check_writable(folder)
    if in_place:
        store.check_writable(target if record.kind == "folder" else target.parent)
    before = params_module.snapshot()
    with params_module.restored_on_failure():
        say("rebuilding the models")
        loaded = load_for_export(with_params(record, params), architecture)
        source_info = describe.source_info(record, store.bundle_name(record))
        scale = describe.input_scale(loaded.spec, record)
        drawn_from = input_source(loaded.spec, scale, scan)
        artifacts: dict[str, dict[str, bytes]] = {}
        for graph, model in loaded.models.items():
            inputs, outputs = graph_io(loaded.spec, graph)
            module = build_graph(model, graph)
            say(f"{graph}: TorchScript")
            script = export_torchscript(module, inputs)
            say(f"{graph}: ONNX")
            metadata = describe.onnx_metadata(graph, loaded.spec, source_info, scale)
            artifacts[graph] = {"onnx": export_onnx(module, inputs, outputs, metadata), "torchscript": script}
        report = run_parity(
            loaded.models,
            loaded.spec,
            artifacts,
            name=source_info["name"],
            batches=batches,
            source=drawn_from,
            require=require,
            layers=layers,
            progress=progress,
        )
        store.store_reports(folder, report)
        if _add_stitched(report, loaded, artifacts, drawn_from, say):
            store.store_reports(folder, report)
        raise_unless_passed(report, "no export was stored", f"the report is in {folder}")
        choice: Choice | None = None
        if precision is not None and budget is not None and scan is not None:
            model = loaded.models["diffraction_to_obj"]
            choice = choose_variants(
                model, artifacts, Path(scan), scale, budget, precision=precision, progress=progress
            )
            add_rows(report, choice)
            store.store_reports(folder, report)
        say("storing")
        golden = make_golden(loaded.models, loaded.spec, Source(scale["formula"], scale["value"]))
        info = describe.exports_info(loaded.spec, source_info, scale, loaded.params, artifacts, golden, report)
        if choice is not None and choice.patterns is not None:
            info["variants"], info["variant_patterns"] = choice.variants, choice.patterns
        files = store.export_files(describe.dumps(info), golden, artifacts, {} if choice is None else choice.files)
        for name, data in files.items():
            write_file(folder / name, data)
        write_file(folder / store.PARAMS_BEFORE, before.encode())
        write_file(folder / store.PARAMS_AFTER, params_module.snapshot().encode())
        write_file(folder / store.ARCHIVE_TREE, store.archive_tree(record, files).encode())
        store.store_bundle(record, target, files)
    lines = [] if choice is None else choice.lines()
    return ExportResult(target, folder, report, loaded.spec, tuple(artifacts), loaded.notices, lines)


def _add_stitched(
    report: ParityReport,
    loaded: Loaded,
    artifacts: Mapping[str, Mapping[str, bytes]],
    source: Source,
    say: Progress,
) -> bool:
    """Compare stitched objects too, where there is a scan with positions and the files can be run at all; say whether it was done."""
    if not source.has_positions or GRAPH not in artifacts or any(row.graph == GRAPH for row in report.failures()):
        return False
    say("stitching the scan with each runtime")
    report.stitched = compare_stitched(loaded.models[GRAPH], artifacts[GRAPH], source)
    return True


def load_for_export(record: BundleRecord, architecture: Architecture | None) -> Loaded:
    """Rebuild the models that can be exported, and apply the bundle's parameters to `params.cfg`.

    Where the physics is undecided but the network is not, only `diffraction_to_obj` is loaded, and a notice says why.

    Raises:
        BundleError: the bundle is refused.
    """
    detections: dict[str, Detection] = {role: detect(record, role, architecture) for role in c.GRAPHS}
    first, second = (detections[role].spec for role in c.GRAPHS)
    if first != second:
        differing = [name for name, value in first.to_json().items() if second.to_json()[name] != value]
        raise EvidenceConflictError(
            f"{record.path.name}: its two models are of different architectures ({', '.join(differing)}); "
            "a bundle holds one architecture under both names"
        )
    notices = list(dict.fromkeys(n for d in detections.values() for n in d.notices))
    wanted: list[str] = list(c.GRAPHS)
    refusal = next((d.autoencoder_refusal for d in detections.values() if d.autoencoder_refusal), None)
    if refusal is not None:
        wanted.remove("autoencoder")
        notices.append(f"autoencoder is not exported: {refusal}")
    values = bundle_params(record, detections["diffraction_to_obj"])
    params_module.update_legacy_dict(params_module.cfg, values)
    models = build_models(record, {role: detections[role] for role in wanted})
    if has_centre(first):
        models[c.CENTRE] = models["diffraction_to_obj"]
    return Loaded(record, first, models, values, notices)


def raise_unless_passed(report: ParityReport, consequence: str, where: str) -> None:
    """Raise `ParityError` for a failed report, `DeviceRequiredError` for a required device on which it did not run.

    Args:
        report: what was found.
        consequence: what follows for the exports if they disagree.
        where: how to come by the report.
    """
    if not report.agrees:
        raise ParityError(f"{report.name}: {report.summary()}; {consequence}; {where}", report)
    missing = report.missing_devices()
    if missing:
        why = "; ".join(f"{device}: {report.why_not_run(device)}" for device in missing)
        raise DeviceRequiredError(f"{report.name}: required device did not run ({why}); {where}", report)


def verify_bundle(
    source: str | Path,
    *,
    scan: str | Path | None = None,
    against: str | Path | None = None,
    require: Iterable[str] = (),
    batches: Iterable[int] = BATCHES,
    run_stored_torchscript: bool = False,
    layers: bool = False,
    progress: Progress | None = None,
) -> ParityReport:
    """Repeat the parity check on a bundle's stored files, against its original weights.

    Args:
        source: an exported bundle.
        scan: any scan that the runtime reads; its patterns, positions and probe are used in place of simulated ones.
        against: an NPZ of PtychoPINN's own outputs; see `parity.against`.
        require: devices on which the proof must run; see `ParityReport.missing_devices`.
        batches: batch sizes.
        run_stored_torchscript: run a stored TorchScript that is not, byte for byte, what the weights give here, in a process
            without files and network; what the weights give is run in its stead where False.
        layers: compare the ONNX files with the eager models layer by layer even if they pass.
        progress: called with a short text at each step.

    Returns:
        The report; what is stored but is not what `exports.json` says is among its failures.

    Raises:
        FileNotFoundError: nothing is at `source`.
        NotExportedError: the bundle holds no exports, or `exports.json` names others than its weights give or it holds.
        BundleError: the bundle is refused.
        RuntimeError: PyTorch is not installed.
    """
    require_torch("verify_bundle")
    say = progress or (lambda text: None)
    say("reading")
    record = read_bundle(source)
    exports = stored_exports(record)
    with params_module.restored():  # a check leaves no trace
        say("rebuilding the models")
        loaded = load_for_export(
            with_params(record, exports["params"] if record.kind == "ckpt" else None), exports["spec"]
        )
    models = loaded.models
    refuse_other_graphs(record, exports, models)
    drawn_from = input_source(loaded.spec, describe.input_scale(loaded.spec, record), scan)
    artifacts: dict[str, dict[str, bytes]] = {}
    problems: list[str] = []
    notices: list[str] = []
    for graph, model in models.items():
        artifacts[graph] = {}
        for kind, info in exports["graphs"][graph]["files"].items():
            artifacts[graph][kind] = stored_member(record, info, problems)
        say(f"{graph}: TorchScript")
        artifacts[graph]["torchscript"], notice = torchscript_to_run(
            artifacts[graph]["torchscript"],
            made_anew(model, graph, loaded.spec),
            exports,
            f"{record.path.name}: {c.torchscript_member(graph)}",
            as_stored=run_stored_torchscript,
        )
        notices += [notice] if notice else []
    golden = stored_member(record, exports["golden"], problems)
    report = run_parity(
        models,
        loaded.spec,
        artifacts,
        name=store.bundle_name(record),
        batches=batches,
        stored_batches=[int(row["batch"]) for row in exports["parity"]["rows"]],
        source=drawn_from,
        require=require,
        layers=layers,
        progress=progress,
    )
    _add_stitched(report, loaded, artifacts, drawn_from, say)
    if against is not None:
        say("PtychoPINN's own numbers")
        report.add_rows(against_rows(models, artifacts, Path(against)))
    say("golden reference")
    problems += golden_problems(golden, make_golden(models, loaded.spec, replace(drawn_from, scan=None)))
    report.problems += problems
    report.notices += notices
    onnx = {graph: files["onnx"] for graph, files in artifacts.items()}
    verify_variants(report, record, exports, models["diffraction_to_obj"], onnx)
    return report


def torchscript_of(record: BundleRecord, graph: str) -> bytes:
    """Return the TorchScript of one of a bundle's graphs, made anew from its original weights; `params.cfg` stays as it is.

    Raises:
        NotExportedError: the bundle holds no exports, or not this graph.
        BundleError: the bundle is refused.
    """
    exports = stored_exports(record)
    with params_module.restored():
        params = exports["params"] if record.kind == "ckpt" else None
        loaded = load_for_export(with_params(record, params), exports["spec"])
    refuse_other_graphs(record, exports, loaded.models)
    return made_anew(loaded.models[graph], graph, loaded.spec)
