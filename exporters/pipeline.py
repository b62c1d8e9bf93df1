"""The whole way: load, trace, prove, store; and the proof again later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exporters.errors import DeviceRequiredError, ParityError
from exporters.formats.trace import Files, trace_family
from exporters.graph.family import families, make_family
from exporters.graph.graphs import Graph
from exporters.loading import Loaded, load_for_export
from exporters.options import ExportOptions, ProofOptions, VerifyOptions
from exporters.parity.against import against_rows
from exporters.parity.baseline import trust_baseline
from exporters.parity.golden import make_golden, make_golden_again
from exporters.parity.inputs import Source
from exporters.parity.matrix import run_parity
from exporters.parity.report import ParityReport
from exporters.parity.stitched import GRAPH, compare_stitched
from exporters.preflight import plan_export, usable_scan
from exporters.reduced.choose import Choice, VariantRequest, choose_variants
from exporters.reduced.rows import add_rows, verify_variants
from exporters.stored import exports_json, write
from exporters.stored.open import StoredExports, golden_problems
from exporters.stored.places import bundle_name
from exporters.stored.torchscript import made_anew, torchscript_to_run
from ptycho_runtime import contract
from ptycho_runtime.errors import OutputError
from ptycho_runtime.export.record import Conventions, TrustBaseline
from ptycho_runtime.files import write_file
from ptycho_runtime.scan.scan import Scan
from ptycho_torch import params as params_module
from ptycho_torch.build import require_torch, with_params
from ptycho_torch.bundle import BundleRecord, read_bundle
from ptycho_torch.spec import ModelSpec

_NO_BASELINE = (
    "exports.json keeps no baseline of trust, so hosts judge images by limits for any model; --store-baseline puts there what the "
    "model leaves unexplained on this scan"
)


@dataclass(frozen=True)
class ExportResult:
    """What an export left.

    Examples:
        >>> from exporters import export_bundle
        >>> export_bundle("wts.h5.zip", "exported").bundle.name
        'wts.h5.zip'
    """

    bundle: Path
    """The augmented bundle."""
    folder: Path
    """Of the files beside it."""
    report: ParityReport
    spec: ModelSpec
    graphs: tuple[str, ...]
    notices: tuple[str, ...] = ()
    variants: list[str] = field(default_factory=list)
    """What was tried in reduced precision and what is stored, a line each."""


def export_bundle(
    source: str | Path, out: str | Path | None = None, options: ExportOptions | None = None, **fields: Any
) -> ExportResult:
    """Export both models of a bundle, prove them equal to the original, and store them beside it.

    Args:
        source: anything `load_torch_bundle` takes.
        out: folder for the augmented bundle and the files beside it; `artifacts/<bundle name>` by default.
        options: what the caller decides; the defaults where None.
        **fields: fields of `ExportOptions` in place of those of `options`: `export_bundle(source, out, scan="scan.npz")`.

    Raises:
        FileNotFoundError: nothing is at `source`, or at the scan's path.
        BundleError: the bundle is refused; `params.cfg` is then as it was.
        ScanError: the scan cannot be read without guessing.
        OutputError: the output cannot be written.
        ParityError: an export computes something else, or no variant keeps the budget; no export is stored, the report is.
        DeviceUnavailableError: OpenVINO, which runs the variants, is not installed or lacks the precision here.
        DeviceRequiredError: a required device is absent, or did not run all; no export is stored.
        TorchMissingError: PyTorch is not installed.

    Examples:
        >>> from exporters import export_bundle
        >>> result = export_bundle("wts.h5.zip", "exported")
        >>> result.report.passed, sorted(result.graphs)
        (True, ['autoencoder', 'diffraction_to_obj', 'diffraction_to_obj_centre'])
    """
    options = replace(options or ExportOptions(), **fields)
    require_torch("export_bundle")
    options.progress("reading")
    plan = plan_export(source, out, options)
    before = params_module.snapshot()
    with params_module.restored_on_failure():
        made = _trace(plan.bundle, options)
        report = _prove(made, plan.scan, options)
        try:
            _stitch(report, made, plan.scan, options)
        finally:
            write.store_reports(plan.folder, report)
        raise_unless_passed(report, "no export was stored", f"the report is in {plan.folder}")
        choice = _reduce(report, made, plan.scan, options)
        if choice is not None:
            write.store_reports(plan.folder, report)
        options.progress("storing")
        members = _members(made, report, choice, _baseline(made, plan.scan, options))
        for name, data in members.items():
            write_file(plan.folder / name, data)
        write_file(plan.folder / write.PARAMS_BEFORE, before.encode())
        write_file(plan.folder / write.PARAMS_AFTER, params_module.snapshot().encode())
        write_file(plan.folder / write.ARCHIVE_TREE, write.archive_tree(plan.bundle, members).encode())
        write.store_bundle(plan.bundle, plan.target, members)
    plan.close()
    lines = [] if choice is None else choice.lines()
    loaded = made.loaded
    return ExportResult(plan.target, plan.folder, report, loaded.spec, tuple(made.files), loaded.notices, lines)


@dataclass(frozen=True)
class Exports:
    """Exports with the models that they are compared with."""

    loaded: Loaded
    known: Conventions
    files: Files


@dataclass(frozen=True)
class Made(Exports):
    """Exports that were made just now."""

    graphs: Mapping[str, Graph]


def _trace(bundle: BundleRecord, options: ExportOptions) -> Made:
    """Rebuild a bundle's models and return their graphs with the files made of them."""
    options.progress("rebuilding the models")
    loaded = load_for_export(bundle, options.architecture)
    known = exports_json.conventions(loaded.spec, bundle, bundle_name(bundle))
    trace = options.trace or trace_family
    graphs: dict[str, Graph] = {}
    files: dict[str, Mapping[str, bytes]] = {}
    for names in families(loaded.models, loaded.models):
        options.progress(f"{', '.join(names)}: TorchScript and ONNX")
        family = make_family(loaded.models, names)
        graphs |= {graph.name: graph for graph in family.graphs}
        files |= trace(family, {name: known.metadata(name) for name in names})
    order = list(loaded.models)
    return Made(loaded, known, {name: files[name] for name in order}, {name: graphs[name] for name in order})


def _prove(
    exports: Exports, scan: Scan | None, options: ProofOptions, stored_batches: Sequence[int] = ()
) -> ParityReport:
    """Compare files with the eager models they were made from, on a batch larger than all that an export was proven with too."""
    return run_parity(
        exports.loaded.models,
        exports.loaded.spec,
        exports.files,
        name=exports.known.bundle.name,
        batches=options.batches,
        stored_batches=stored_batches,
        source=_source(exports.known, scan),
        require=options.require,
        layers=options.layers,
        progress=options.progress,
    )


def _source(known: Conventions, scan: Scan | None = None) -> Source:
    return Source(known.input_scale.formula, known.input_scale.value, scan)


def _stitch(report: ParityReport, exports: Exports, scan: Scan | None, options: ProofOptions) -> None:
    """Compare stitched objects too, where there is a scan with positions and the files can be run at all."""
    source = _source(exports.known, scan)
    if not source.has_positions or any(row.graph == GRAPH for row in report.failures()):
        return
    options.progress("stitching the scan with each runtime")
    report.stitched = compare_stitched(exports.loaded.models[GRAPH], exports.files[GRAPH], source)


def _reduce(report: ParityReport, made: Made, scan: Scan | None, options: ExportOptions) -> Choice | None:
    """Choose variants in reduced precision where they are asked for, and add their rows to the report."""
    if options.precision is None or options.budget is None or scan is None:
        return None
    request = VariantRequest(options.budget, options.precision, options.progress)
    model = made.loaded.models[contract.DIFFRACTION_TO_OBJ]
    choice = choose_variants(model, made.files, scan, made.known.input_scale, request)
    add_rows(report, choice)
    return choice


def _baseline(made: Exports, scan: Scan | None, options: ProofOptions) -> TrustBaseline | None:
    """Return what the model leaves unexplained on the scan, None where that is no measure for others."""
    source = _source(made.known, scan)
    if not source.has_positions:
        return None
    options.progress("what the model leaves unexplained on the scan")
    baseline, why_not = trust_baseline(made.loaded.spec, made.files[contract.DIFFRACTION_TO_OBJ]["onnx"], source)
    if baseline is None:
        options.progress(f"no baseline of trust: {why_not}")
    return baseline


def _members(
    made: Made, report: ParityReport, choice: Choice | None, baseline: TrustBaseline | None
) -> dict[str, bytes]:
    """Return the members that the export adds to the bundle, by name."""
    golden = make_golden(made.loaded.models, made.loaded.spec, _source(made.known))
    record = exports_json.exports_record(made.known, made.loaded.params, made.graphs, made.files, golden, report)
    record = replace(record, left_out=made.loaded.left_out, trust_baseline=baseline)
    if choice is not None and choice.variants:
        record = replace(record, variants=tuple(choice.variants), variant_patterns=choice.patterns)
    variants = {} if choice is None else choice.files
    return write.export_files(exports_json.dumps(record), golden, made.files, variants)


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


def verify_bundle(source: str | Path, options: VerifyOptions | None = None, **fields: Any) -> ParityReport:
    """Repeat the parity check on a bundle's stored files, against its original weights.

    Args:
        source: an exported bundle.
        options: what the caller decides; the defaults where None.
        **fields: fields of `VerifyOptions` in place of those of `options`.

    Returns:
        The report; what is stored but is not what `exports.json` says, or not what the weights give, is among its failures.

    Raises:
        FileNotFoundError: nothing is at `source`, or at the scan's path.
        NotExportedError: the bundle holds no exports, or `exports.json` names others than its weights give or it holds.
        DamagedExportError: `exports.json` is garbled, or a stored ONNX file is none.
        BundleError: the bundle is refused.
        ScanError: the scan cannot be read without guessing.
        ChangedMeanwhileError: a baseline was to be stored in the bundle, which is not what was read any more.
        OutputError: it was to be stored and cannot be written, or without a scan.
        TorchMissingError: PyTorch is not installed.

    Examples:
        >>> from exporters import verify_bundle
        >>> verify_bundle("exported/wts.h5.zip").passed
        True
    """
    options = replace(options or VerifyOptions(), **fields)
    if options.store_baseline and options.scan is None:
        raise OutputError("a baseline of trust comes from a scan; give --scan SCAN with --store-baseline")
    require_torch("verify_bundle")
    options.progress("reading")
    stored = StoredExports.open(read_bundle(source))
    loaded = _loaded_again(stored, options)
    known = exports_json.conventions(loaded.spec, stored.bundle, bundle_name(stored.bundle))
    scan = usable_scan(loaded.spec, options)
    notices: list[str] = []
    files: dict[str, Mapping[str, bytes]] = {}
    for name, model in loaded.models.items():
        options.progress(f"{name}: TorchScript")
        script, notice = torchscript_to_run(
            stored.torchscript(name),
            made_anew(model, name, loaded.spec),
            stored.record,
            f"{stored.bundle.path.name}: {contract.torchscript_member(name)}",
            as_stored=options.run_stored_torchscript,
        )
        notices += [notice] if notice else []
        files[name] = {"onnx": stored.onnx(name), "torchscript": script}
    exports = Exports(loaded, known, files)
    report = _prove(exports, scan, options, [row.batch for row in stored.record.parity.rows])
    report.notices += notices
    _stitch(report, exports, scan, options)
    baseline = _baseline(exports, scan, options) if options.store_baseline else None
    if scan is not None:
        scan.close()
    if options.against is not None:
        options.progress("PtychoPINN's own numbers")
        report.add_rows(against_rows(loaded.models, files, Path(options.against)))
    options.progress("golden reference")
    # Another release took other inputs: then the references are held against the stored ones.
    if stored.record.exporter_version == known.exporter_version:
        golden = make_golden(loaded.models, loaded.spec, _source(known))
    else:
        golden = make_golden_again(loaded.models, loaded.spec, stored.golden)
    problems = golden_problems(stored.golden, golden)
    report.problems += exports_json.differences(stored.record, known, loaded.params)
    verify_variants(report, stored, loaded.models[contract.DIFFRACTION_TO_OBJ], options.budget)
    report.problems += [*stored.problems, *problems]
    report.notices += _keep_baseline(stored, baseline, report, options)
    return report


def _keep_baseline(
    stored: StoredExports, found: TrustBaseline | None, report: ParityReport, options: VerifyOptions
) -> list[str]:
    """Put what the model leaves unexplained on the scan into `exports.json` where that was asked for; return what is to be said."""
    if not options.store_baseline:
        missing = options.scan is not None and stored.record.trust_baseline is None
        return [_NO_BASELINE] if missing else []
    if found is None:
        return ["no baseline of trust is stored: the scan gives none"]
    if not report.passed:
        return [f"no baseline of trust is stored, for the proof fails; on this scan {found}"]
    record = exports_json.dumps(replace(stored.record, trust_baseline=found))
    write.store_members(stored.bundle, {contract.EXPORTS_JSON: record})
    return [f"exports.json keeps as baseline of trust: on this scan {found}"]


def _loaded_again(stored: StoredExports, options: VerifyOptions) -> Loaded:
    """Return the models of an exported bundle; `params.cfg` stays as it is."""
    with params_module.restored():
        options.progress("rebuilding the models")
        bundle = with_params(stored.bundle, stored.checkpoint_params)
        loaded = load_for_export(bundle, stored.record.spec)
    stored.refuse_other_graphs(loaded.models)
    return loaded


def torchscript_of(bundle: BundleRecord, graph: str) -> bytes:
    """Return the TorchScript of one of a bundle's graphs, made anew from its original weights; `params.cfg` stays as it is.

    Raises:
        NotExportedError: the bundle holds no exports, or not this graph.
        BundleError: the bundle is refused.
    """
    loaded = _loaded_again(StoredExports.open(bundle), VerifyOptions())
    return made_anew(loaded.models[graph], graph, loaded.spec)
