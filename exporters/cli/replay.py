"""`ptycho-export replay`: the worst input of a parity check once more."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from exporters.cli import options
from exporters.cli.terminal import EXIT_PARITY, Say, echo, guarded, output
from exporters.parity.rows import finite
from ptycho_torch.build import require_torch


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="Exported bundle whose file is run  [default: the file kept in FILE, else the one .zip beside it]",
)
@options.run_stored_torchscript
@options.as_json
def replay(file: Path, bundle: Path | None, run_stored_torchscript: bool, as_json: bool) -> None:
    """Run the worst input of a parity check again: FILE is a worst.GRAPH.npz that export or verify left."""

    def run(say: Say) -> bool:
        require_torch("replay")
        from exporters.parity.replay import replay_file
        from exporters.pipeline import torchscript_of

        say("running")
        row, same = replay_file(
            file, bundle, make_torchscript=torchscript_of, run_stored_torchscript=run_stored_torchscript
        )
        if as_json:
            echo(json.dumps(finite({"row": asdict(row), "note": same}), indent=1, ensure_ascii=False))
            return row.verdict == "passed"
        for name, figures in row.outputs.items():
            if name != "object":
                output.print(
                    f"{row.graph} {row.runtime} on {row.device}, {name}: max abs {figures['max_abs']:.2e} "
                    f"(allowed {figures['allowed_max_abs']:.2e}), relative L2 {figures['rel_l2']:.2e} "
                    f"(allowed {figures['allowed_rel_l2']:.2e})",
                    soft_wrap=True,
                )
        output.print(f"{row.verdict}{': ' + row.reason if row.reason else ''}; {same}", soft_wrap=True)
        return row.verdict == "passed"

    ended = guarded(str(file), run)
    sys.exit(ended.exit_code or (0 if ended.value else EXIT_PARITY))
