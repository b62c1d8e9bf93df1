"""`ptycho-export bench`: every way of running a bundle side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exporters.cli import options
from exporters.cli.terminal import Say, guarded, output
from ptycho_torch.build import require_torch

if TYPE_CHECKING:
    from exporters.bench.report import BenchReport


@click.command()
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
@click.option(
    "--scan", type=click.Path(path_type=Path), help="PtychoPINN .npz whose patterns are run in place of simulated ones."
)
@click.option(
    "--budget", help="Export with the fastest variant in reduced precision that keeps it, such as phase=0.01rad,amp=1%."
)
def bench(bundle: str, out: Path | None, batches: str, budget: str | None, **chosen: Any) -> None:
    """Measure every way of running BUNDLE side by side: speed, cold start, memory, size, accuracy, and the machine's limit.

    A bundle that is not exported yet is exported into a temporary folder first.
    """
    sizes = options.batch_sizes(batches)
    from exporters.bench.contenders import CONTENDERS

    names = list(dict.fromkeys(contender.name for contender in CONTENDERS))
    unknown = [name for name in chosen["only"] if name not in names]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r}; expected one of {', '.join(names)}", param_hint="--only")

    def run(say: Say) -> tuple[BenchReport, Path]:
        require_torch("bench")
        from exporters.bench.run import run_bench
        from ptycho_runtime.export.precision import Budget

        allowed = None if budget is None else Budget.parse(budget)
        return run_bench(bundle, out, batches=sizes, budget=allowed, progress=say, **chosen)

    ended = guarded(bundle, run)
    if ended.value is not None:
        from exporters.bench.tables import remarks, sheets

        report, folder = ended.value
        for sheet in sheets(report):
            output.print(sheet.terminal())
        for line in remarks(report):
            output.print(line, soft_wrap=True)
        output.print(f"report: {folder / 'bench.md'}", soft_wrap=True)
    sys.exit(ended.exit_code)
