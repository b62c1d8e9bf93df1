"""`ptycho-export export`: bundles to TorchScript and ONNX, proven and stored."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from exporters.cli import options
from exporters.cli.scan_options import read_options, scan_options
from exporters.cli.terminal import SEVERITY, Ended, Say, echo, guarded, messages, output, print_report
from exporters.options import ExportOptions
from ptycho_runtime.export.precision import Budget
from ptycho_torch import params as params_module
from ptycho_torch.build import require_torch

if TYPE_CHECKING:
    from exporters.pipeline import ExportResult


@click.command()
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the results  [default: artifacts/<bundle name>]"
)
@click.option("--force", is_flag=True, help="Replace files in the output folder that are no earlier results.")
@click.option("--in-place", is_flag=True, help="Put the exports into the source bundle itself.")
@options.architecture
@options.params
@options.ignore_extra
@options.scan
@options.require
@options.batches
@options.layers
@click.option(
    "--precision",
    type=click.Choice(["auto", "bfloat16", "int8", "float16"]),
    help="Store a variant in reduced precision too; auto: the fastest on this CPU, run by OpenVINO; float16: for CUDA. Needs --scan and --budget.",
)
@options.budget
@click.option(
    "--triton",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write a model repository for NVIDIA's Triton Inference Server too (not run under Triton); a folder in it for each of several bundles.",
)
@scan_options
@options.as_json
def export(
    bundles: tuple[str, ...],
    out: Path | None,
    batches: str,
    budget: str | None,
    triton: Path | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Export each BUNDLE, prove the exports equal to the original, and store them beside its weights.

    BUNDLE is a wts.h5.zip, an unpacked folder, a run directory, a PtychoPINN base path, a Lightning .ckpt, or a pattern of these.
    """
    paths = options.expand(bundles)
    chosen |= {"batches": options.batch_sizes(batches), "scan_options": read_options(chosen)}
    folders = options.output_folders(paths, out)
    served = _repositories(paths, triton)
    endings = {
        path: _export(
            path, out=folders.get(path), budget=budget, triton=served.get(path), as_json=as_json, chosen=chosen
        )
        for path in paths
    }
    if as_json:
        echo(json.dumps([_document(path, ended) for path, ended in endings.items()], indent=1, ensure_ascii=False))
    if len(paths) > 1 and not as_json:
        table = Table(title="Exports")
        for heading in ("bundle", "verdict", "result"):
            table.add_column(heading, overflow="fold")
        for path, ended in endings.items():
            stored = ended.value
            table.add_row(path, *(("failed", ended.message) if stored is None else ("passed", str(stored.bundle))))
        output.print(table)
    sys.exit(max((ended.exit_code for ended in endings.values()), key=SEVERITY.index))


def _repositories(paths: list[str], root: Path | None) -> dict[str, Path]:
    """Return the model repository of each bundle, none where none is asked for."""
    if root is None:
        return {}
    return {paths[0]: root} if len(paths) == 1 else options.output_folders(paths, root)


def _document(path: str, ended: Ended[ExportResult]) -> dict[str, Any]:
    """Return how the export of a bundle ended, as JSON has it."""
    stored = ended.value
    found: dict[str, Any] = {"bundle": path, "exit_code": ended.exit_code}
    if stored is None:
        return found | {"verdict": "failed", "message": ended.message}
    places = {"stored": str(stored.bundle), "folder": str(stored.folder), "graphs": list(stored.graphs)}
    return found | {"verdict": "passed", **places, "variants": stored.variants, "notices": list(stored.notices)}


def _export(
    path: str, *, out: Path | None, budget: str | None, triton: Path | None, as_json: bool, chosen: dict[str, Any]
) -> Ended[ExportResult]:
    served: dict[str, str] = {}

    def run(say: Say) -> ExportResult:
        from exporters.preflight import plan_export
        from exporters.stored.triton import refuse_foreign, summary, write_repository
        from ptycho_runtime.export.bundle import open_export

        say("reading")
        allowed = None if budget is None else Budget.parse(budget)
        choice = ExportOptions(budget=allowed, progress=say, **chosen)
        # Importing PyTorch takes longer than finding that a file is not there.
        plan_export(path, out, choice).close()
        say("tracing and proving it, a minute or two on two cores")
        if triton is not None:
            refuse_foreign(triton)
        require_torch("export")
        from exporters.pipeline import export_bundle

        # The next bundle starts from the same parameters.
        with params_module.restored():
            result = export_bundle(path, out, choice)
        if triton is not None:
            served.update(summary(write_repository(open_export(result.bundle), triton)))
        return result

    ended = guarded(path, run)
    if ended.value is not None:
        for notice in ended.value.notices:
            messages.print(f"notice: {notice}", soft_wrap=True)
        if as_json:
            return ended
        print_report(ended.value.report)
        for line in ended.value.variants:
            output.print(line, soft_wrap=True)
        output.print(f"stored: {ended.value.bundle}", soft_wrap=True)
        output.print(f"report: {ended.value.folder / 'report.html'}", soft_wrap=True)
        for name, text in served.items():
            output.print(f"Triton: {triton}/{name}: {text}", soft_wrap=True)
    return ended
