"""`ptycho-export bench`: every way of running a bundle side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from exporters.cli import options
from exporters.cli.terminal import Say, echo, guarded, output
from ptycho_torch.build import require_torch

# What --quick takes in place of the usual, where these are not given.
QUICK = {"batches": "1,16", "rounds": "3", "cold_starts": "1", "end_to_end_patterns": "2000"}

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
@click.option(
    "--quick", is_flag=True, help="Two batch sizes, three rounds, one cold start: a first answer in a minute or two."
)
@click.option(
    "--compile",
    "compile",
    is_flag=True,
    help="Measure torch.compile too, which takes minutes; so does --only torch.compile.",
)
@click.option("--rewrites", is_flag=True, help="Measure ONNX files without the exact rewrites too.")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1, 1000), help="Turns of each contender.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    help="Measure on this device only  [default: on the CPU, and on CUDA where there is a GPU].",
)
@click.option(
    "--cold-starts", default=3, show_default=True, type=click.IntRange(0, 100), help="Fresh starts of each contender."
)
@click.option("--only", multiple=True, help="Measure only this contender; may be given several times.")
@click.option(
    "--scan",
    type=click.Path(path_type=Path),
    help="Scan whose patterns are run in place of simulated ones, and that is reconstructed end to end.",
)
@click.option(
    "--end-to-end-patterns",
    default=10_000,
    show_default=True,
    type=click.IntRange(512, 1_000_000),
    help="Patterns of --scan, repeated, that are reconstructed end to end.",
)
@click.option(
    "--budget",
    help="Export with the fastest variant in reduced precision that keeps it, such as phase=0.01rad,amp=1%; --device cuda: in float16.",
)
@options.as_json
def bench(bundle: str, out: Path | None, batches: str, budget: str | None, as_json: bool, **chosen: Any) -> None:
    """Measure every way of running BUNDLE side by side: speed, cold start, memory, size, accuracy, and the machine's limit.

    A bundle that is not exported yet is exported into a temporary folder first.
    """
    if chosen.pop("quick"):
        given = click.get_current_context().get_parameter_source
        usual = {name: QUICK[name] for name in QUICK if given(name) == ParameterSource.DEFAULT}
        batches = usual.pop("batches", batches)
        chosen |= {name: int(value) for name, value in usual.items()}
    device = chosen.pop("device")
    chosen |= {} if device is None else {"devices": (device,)}
    sizes = options.batch_sizes(batches)
    from exporters.bench.contenders import CONTENDERS
    from exporters.bench.end_to_end import END_TO_END

    names = [*dict.fromkeys(contender.name for contender in CONTENDERS), END_TO_END]
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
        if as_json:
            echo(report.to_json().rstrip())
            sys.exit(ended.exit_code)
        for sheet in sheets(report):
            output.print(sheet.terminal())
        for line in remarks(report):
            output.print(line, soft_wrap=True)
        output.print(f"report: {folder / 'bench.md'}", soft_wrap=True)
    sys.exit(ended.exit_code)
