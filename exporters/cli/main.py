"""The command line: `ptycho-export export|verify|inspect|scan`. One line per error, exit codes a script can use."""

from __future__ import annotations

import glob
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from exporters.installation import check_installation
from ptycho_runtime.errors import PtychoExportError
from ptycho_torch import params as params_module
from ptycho_torch.bundle import read_bundle, resolve
from ptycho_torch.model_manager import require_torch

if TYPE_CHECKING:
    from exporters.bench.report import BenchReport
    from exporters.parity import ParityReport
    from exporters.pipeline import ExportResult

EXIT_BUG, EXIT_INPUT, EXIT_PARITY, EXIT_DEVICE = 1, 2, 3, 4
_SEVERITY = (0, EXIT_INPUT, EXIT_DEVICE, EXIT_PARITY, EXIT_BUG)  # what several bundles exit with: the gravest
_TRACEBACK = "PTYCHO_EXPORT_TRACEBACK"

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)

_batches = click.option(
    "--batches",
    default="1,3,16,33",
    show_default=True,
    help="Batch sizes of the parity check, comma-separated; 1 and 5 are added where they would prove too little.",
)
_require = click.option(
    "--require",
    multiple=True,
    type=click.Choice(["cuda", "tensorrt"]),
    help="Fail with exit code 4 unless this device took part.",
)
_scan = click.option(
    "--scan",
    type=click.Path(path_type=Path),
    help="PtychoPINN .npz whose patterns the parity check uses in place of simulated ones.",
)
_scan_bench = click.option(
    "--scan", type=click.Path(path_type=Path), help="PtychoPINN .npz whose patterns are run in place of simulated ones."
)
_bisect = click.option(
    "--bisect", is_flag=True, help="Compare layer by layer even if parity passes; where it fails that is done anyway."
)
_run_stored = click.option(
    "--run-stored-torchscript",
    is_flag=True,
    help="Run a stored TorchScript that is not what the weights give here, in a process without files and network.",
)
_architecture = click.option(
    "--architecture", type=click.Path(path_type=Path), help="JSON file that settles what the bundle leaves open."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="ptycho-export")
def cli() -> None:
    """Export PtychoPINN bundles to TorchScript and ONNX, and prove that both compute the same as the original.

    Exit codes: 0 well, 2 bad input, 3 parity failed, 4 a required device is absent, 1 a bug in this program.
    """


@cli.command()
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the results  [default: artifacts/<bundle name>]"
)
@click.option("--in-place", is_flag=True, help="Put the exports into the source bundle itself.")
@_architecture
@click.option(
    "--params", type=click.Path(path_type=Path), help="JSON file with the parameters that a checkpoint lacks."
)
@_scan
@_require
@_batches
@_bisect
@click.option(
    "--precision",
    type=click.Choice(["auto", "bfloat16", "int8", "float16"]),
    help="Store a variant in reduced precision too; auto: the fastest on this CPU, run by OpenVINO; float16: for CUDA. Needs --scan and --budget.",
)
@click.option(
    "--budget", help="What that variant may err on held-back patterns of the scan, such as phase=0.01rad,amp=1%."
)
def export(
    bundles: tuple[str, ...],
    out: Path | None,
    in_place: bool,
    architecture: Path | None,
    params: Path | None,
    scan: Path | None,
    require: tuple[str, ...],
    batches: str,
    bisect: bool,
    precision: str | None,
    budget: str | None,
) -> None:
    """Export each BUNDLE, prove the exports equal to the original, and store them beside its weights.

    BUNDLE is a wts.h5.zip, an unpacked folder, a run directory, a PtychoPINN base path, a Lightning .ckpt, or a pattern of these.
    """
    paths = expand(bundles)
    sizes = batch_sizes(batches)
    folders = output_folders(paths, out)
    outcomes: list[tuple[str, str, str, int]] = []
    for path in paths:
        outcomes.append(
            _export_one(
                path, folders.get(path), in_place, architecture, params, scan, require, sizes, bisect, precision, budget
            )
        )
    if len(paths) > 1:
        table = Table(title="Exports")
        for heading in ("bundle", "verdict", "result"):
            table.add_column(heading, overflow="fold")
        for name, verdict, result, _ in outcomes:
            table.add_row(name, verdict, result)
        _out.print(table)
    sys.exit(max((code for *_, code in outcomes), key=_SEVERITY.index))


def _export_one(
    path: str,
    out: Path | None,
    in_place: bool,
    architecture: Path | None,
    params: Path | None,
    scan: Path | None,
    require: tuple[str, ...],
    batches: tuple[int, ...],
    bisect: bool,
    precision: str | None,
    budget: str | None,
) -> tuple[str, str, str, int]:
    def run(progress: Callable[[str], None]) -> ExportResult:
        require_torch("export")
        from exporters.pipeline import export_bundle
        from ptycho_runtime.export.precision import Budget

        with params_module.restored():  # the next bundle starts from the same parameters
            return export_bundle(
                path,
                out,
                in_place=in_place,
                architecture=architecture,
                params=params,
                scan=scan,
                require=require,
                batches=batches,
                bisect=bisect,
                precision=precision,
                budget=None if budget is None else Budget.parse(budget),
                progress=progress,
            )

    result, message, code = guarded(path, run)
    if result is None:
        return path, "failed", message, code
    for notice in result.notices:
        _err.print(f"[yellow]notice:[/] {notice}", soft_wrap=True)
    _print_report(result.report)
    for line in result.variants:
        _out.print(line, soft_wrap=True, markup=False)
    _out.print(f"stored: {result.bundle}", soft_wrap=True)
    _out.print(f"report: {result.folder / 'report.html'}", soft_wrap=True)
    return path, "passed", str(result.bundle), 0


@cli.command()
@click.argument("bundle")
@click.option(
    "--report", type=click.Path(path_type=Path), help="Folder for parity.json, parity.junit.xml and report.html."
)
@_scan
@_require
@_batches
@_bisect
@_run_stored
def verify(
    bundle: str,
    report: Path | None,
    scan: Path | None,
    require: tuple[str, ...],
    batches: str,
    bisect: bool,
    run_stored_torchscript: bool,
) -> None:
    """Repeat the parity check on the exports stored in BUNDLE, against its original weights."""
    sizes = batch_sizes(batches)

    def run(progress: Callable[[str], None]) -> int:
        require_torch("verify")
        from exporters.pipeline import raise_unless_passed, verify_bundle
        from exporters.stored.write import store_reports

        found = verify_bundle(
            bundle,
            scan=scan,
            require=require,
            batches=sizes,
            bisect=bisect,
            run_stored_torchscript=run_stored_torchscript,
            progress=progress,
        )
        if report is not None:
            store_reports(report, found)
        _print_report(found)
        where = f"the report is in {report}" if report is not None else "--report FOLDER keeps the report"
        raise_unless_passed(found, "do not use these exports; export the bundle again", where)
        return 0

    sys.exit(guarded(bundle, run)[2])


def _print_report(report: ParityReport) -> None:
    from exporters.parity.forms.terminal import layer_table, matrix_table, stitched_table

    for notice in report.notices:
        _err.print(f"notice: {notice}", soft_wrap=True, markup=False)
    _out.print(matrix_table(report))
    if report.stitched:
        _out.print(stitched_table(report.stitched))
    for found in report.divergence:
        _out.print(layer_table(found))


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="Exported bundle whose file is run  [default: the file kept in FILE, else the one .zip beside it]",
)
@_run_stored
def replay(file: Path, bundle: Path | None, run_stored_torchscript: bool) -> None:
    """Run the worst input of a parity check again: FILE is a worst.GRAPH.npz that export or verify left."""

    def run(progress: Callable[[str], None]) -> bool:
        require_torch("replay")
        from exporters.parity.replay import replay_file
        from exporters.pipeline import torchscript_of

        progress("running")
        row, same = replay_file(
            file, bundle, make_torchscript=torchscript_of, run_stored_torchscript=run_stored_torchscript
        )
        for name, found in row.outputs.items():
            if name != "object":
                _out.print(
                    f"{row.graph} {row.runtime} on {row.device}, {name}: max abs {found['max_abs']:.2e} "
                    f"(allowed {found['allowed_max_abs']:.2e}), relative L2 {found['rel_l2']:.2e} "
                    f"(allowed {found['allowed_rel_l2']:.2e})",
                    soft_wrap=True,
                )
        _out.print(f"{row.verdict}{': ' + row.reason if row.reason else ''}; {same}", soft_wrap=True)
        return row.verdict == "passed"

    passed, _, code = guarded(str(file), run)
    sys.exit(code or (0 if passed else EXIT_PARITY))


@cli.command()
@click.argument("bundle")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
@_architecture
@click.option(
    "--params", type=click.Path(path_type=Path), help="JSON file with the parameters that a checkpoint lacks."
)
@click.option(
    "--write-architecture",
    type=click.Path(path_type=Path),
    help="Write the architecture as a JSON file for --architecture.",
)
def inspect(
    bundle: str, as_json: bool, architecture: Path | None, params: Path | None, write_architecture: Path | None
) -> None:
    """Say what BUNDLE is, what settled each field of its architecture, and what exports it holds. Builds no model."""
    from exporters.inspect import bundle as inspection

    def run(progress: Callable[[str], None]) -> int:
        from ptycho_runtime.files import write_file
        from ptycho_torch.model_manager import with_params

        progress("reading")
        found = inspection.inspect(with_params(read_bundle(bundle), params), architecture)
        if as_json:
            click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        else:
            _out.print(inspection.render(found))
        if write_architecture is not None and found["architecture"] is not None:
            write_file(write_architecture, (json.dumps(found["architecture"], indent=2) + "\n").encode())
        if found["refusal"] is not None:
            _err.print(f"ptycho-export: {found['refusal']['message']}", soft_wrap=True, markup=False)
            return EXIT_INPUT
        return 0

    code, _, failed = guarded(bundle, run)
    sys.exit(failed or code)


@cli.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
def compare(first: Path, second: Path) -> None:
    """Say what changed between two parity.json reports: files, hosts, versions, verdicts, errors that doubled or halved.

    Exit code 0 where both could be read, whatever changed; 2 where one is cut, edited or no report.
    """

    def run(progress: Callable[[str], None]) -> list[str]:
        require_torch("compare")
        from exporters.parity.forms.markdown import compare as differences
        from exporters.parity.forms.reading import read_report

        old, new = read_report(first), read_report(second)
        return differences(old, new) or [f"no change beyond rounding; both {'passed' if new.passed else 'failed'}"]

    lines, _, code = guarded(str(first), run)
    if lines is not None:
        click.echo("\n".join(lines))
    sys.exit(code)


@cli.command()
@click.argument("bundle")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the report  [default: artifacts/<bundle name>]"
)
@click.option(
    "--batches", default="1,4,16,64", show_default=True, help="Batch sizes in groups of patterns, comma-separated."
)
@click.option("--rewrites", is_flag=True, help="Measure ONNX files without the exact rewrites too.")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1, 1000), help="Turns of each contender.")
@click.option("--only", multiple=True, help="Measure only this contender; may be given several times.")
@_scan_bench
@click.option(
    "--budget", help="Export with the fastest variant in reduced precision that keeps it, such as phase=0.01rad,amp=1%."
)
def bench(
    bundle: str,
    out: Path | None,
    batches: str,
    rewrites: bool,
    rounds: int,
    only: tuple[str, ...],
    scan: Path | None,
    budget: str | None,
) -> None:
    """Measure every way of running BUNDLE side by side: speed, cold start, memory, size, accuracy, and the machine's limit.

    A bundle that is not exported yet is exported into a temporary folder first.
    """
    sizes = batch_sizes(batches)
    from exporters.bench.contenders import CONTENDERS

    names = list(dict.fromkeys(contender.name for contender in CONTENDERS))
    unknown = [name for name in only if name not in names]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r}; expected one of {', '.join(names)}", param_hint="--only")

    def run(progress: Callable[[str], None]) -> tuple[BenchReport, Path]:
        require_torch("bench")
        from exporters.bench.run import run_bench
        from ptycho_runtime.export.precision import Budget

        allowed = None if budget is None else Budget.parse(budget)
        return run_bench(
            bundle,
            out,
            batches=sizes,
            rounds=rounds,
            only=only,
            scan=scan,
            budget=allowed,
            rewrites=rewrites,
            progress=progress,
        )

    found, _, code = guarded(bundle, run)
    if found is not None:
        from exporters.bench.tables import remarks, sheets

        report, folder = found
        for sheet in sheets(report):
            _out.print(sheet.terminal())
        for line in remarks(report):
            _out.print(line, soft_wrap=True, markup=False)
        _out.print(f"report: {folder / 'bench.md'}", soft_wrap=True)
    sys.exit(code)


@cli.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def scan(files: tuple[str, ...], as_json: bool) -> None:
    """Say what each bundle or checkpoint would have executed, and whether it can be read safely. Runs nothing in it.

    Exit code 0 where all files are accepted, 2 where one is not.
    """
    from exporters.inspect.audit import scan_file

    results = [scan_file(path) for path in expand(files)]
    if as_json:
        click.echo(json.dumps([result.to_dict() for result in results], indent=1, ensure_ascii=False))
    else:
        for result in results:
            click.echo(result.text())
    sys.exit(max(result.exit_code for result in results))


def expand(arguments: tuple[str, ...]) -> list[str]:
    """Return the paths that arguments name; a pattern stands for what it matches, in sorted order."""
    paths: list[str] = []
    for argument in arguments:
        is_pattern = glob.has_magic(argument) and not Path(argument).exists()
        matches = sorted(glob.glob(argument)) if is_pattern else []  # noqa: PTH207  # absolute patterns too
        paths += matches or [argument]
    return list(dict.fromkeys(paths))


def output_folders(paths: list[str], out: Path | None) -> dict[str, Path]:
    """Return the folder of each bundle's results where it is not the default one.

    Several bundles get a folder each; equal names (every run calls its bundle `wts.h5.zip`) are told apart by the folder they lie in.
    """
    if len(paths) == 1:
        return {} if out is None else {paths[0]: out}
    names: dict[str, tuple[str, str]] = {}
    for path in paths:
        try:
            actual, _ = resolve(path)
        except (OSError, ValueError):
            continue  # told when it is exported
        name = actual.name.removesuffix(".zip").removesuffix(".ckpt")
        names[path] = name, f"{actual.resolve().parent.name}-{name}"
    plain = [name for name, _ in names.values()]
    longer = [name for _, name in names.values()]
    root = out if out is not None else Path("artifacts")
    folders: dict[str, Path] = {}
    for index, (path, (name, long)) in enumerate(names.items()):
        unique = name if plain.count(name) == 1 else long if longer.count(long) == 1 else f"{long}-{index + 1}"
        folders[path] = root / unique
    return folders


def batch_sizes(text: str) -> tuple[int, ...]:
    """Return the batch sizes of a comma-separated list; raises `click.BadParameter` for anything else."""
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or not all(1 <= size <= 4096 for size in sizes):
        raise click.BadParameter(
            f"{text!r}; expected whole numbers from 1 to 4096, comma-separated", param_hint="--batches"
        )
    return sizes


def guarded(name: str, run: Callable[[Callable[[str], None]], Any]) -> tuple[Any, str, int]:
    """Return (result, "", 0), or (None, message, exit code) after printing one line for an error that has a known cause."""
    try:
        check_installation()
        with _progress(name) as progress:
            return run(progress), "", 0
    except FileNotFoundError as error:
        message, code = str(error), EXIT_INPUT
    except PtychoExportError as error:
        message, code = str(error), error.exit_code
    _err.print(f"ptycho-export: {' '.join(message.split())}", soft_wrap=True, markup=False)
    return None, message, code


@contextmanager
def _progress(name: str) -> Iterator[Callable[[str], None]]:
    if not _err.is_terminal:
        yield lambda text: _err.print(f"{Path(name).name}: {text}", soft_wrap=True, markup=False)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=_err, transient=True) as bar:
        task = bar.add_task(Path(name).name)
        yield lambda text: bar.update(task, description=f"{Path(name).name}: {text}")


def _report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if os.environ.get(_TRACEBACK):
        sys.__excepthook__(kind, error, trace)
        return
    text = " ".join(f"{kind.__name__}: {error}".split())
    hint = f"this is a bug in ptycho-export; run again with {_TRACEBACK}=1 and report what it prints"
    _err.print(f"ptycho-export: {text}; {hint}", soft_wrap=True, markup=False)


def main() -> None:
    """Run the command line; what no command foresees ends in one line and exit code 1."""
    sys.excepthook = _report_bug
    cli(prog_name="ptycho-export")
