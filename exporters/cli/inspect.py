"""`ptycho-export inspect`: what a bundle is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from exporters.cli import options
from exporters.cli.start import EXIT_INPUT
from exporters.cli.terminal import Say, complain, echo, guarded, output
from exporters.inspect import bundle as inspection
from ptycho_runtime.errors import OutputError
from ptycho_runtime.files import write_file
from ptycho_torch.architecture.override import read_architecture
from ptycho_torch.build import with_params
from ptycho_torch.bundle import read_bundle
from ptycho_torch.errors import ConfigurationError


def refuse_foreign_architecture(path: Path) -> None:
    """Raise `OutputError` where something is at a path that is no architecture, such as the bundle itself."""
    try:
        if path.exists():
            read_architecture(path)
    except ConfigurationError:
        raise OutputError(f"{path}: exists, and is no architecture; give another name") from None


@click.command()
@click.argument("bundle")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
@options.architecture
@options.params
@options.ignore_extra
@click.option(
    "--write-architecture",
    type=click.Path(path_type=Path),
    help="Write the architecture as a JSON file for --architecture.",
)
def inspect(
    bundle: str,
    as_json: bool,
    architecture: Path | None,
    params: Path | None,
    ignore_extra: bool,
    write_architecture: Path | None,
) -> None:
    """Say what BUNDLE is, what settled each field of its architecture, and what exports it holds. Builds no model."""

    def run(say: Say) -> int:
        say("reading")
        if write_architecture is not None:
            refuse_foreign_architecture(write_architecture)
        answer = inspection.inspect(with_params(read_bundle(bundle, ignore_extra=ignore_extra), params), architecture)
        if as_json:
            echo(json.dumps(answer, indent=1, ensure_ascii=False))
        else:
            output.print(inspection.render(answer))
        if write_architecture is not None and answer["architecture"] is not None:
            write_file(write_architecture, (json.dumps(answer["architecture"], indent=2) + "\n").encode())
        if answer["refusal"] is not None:
            complain(answer["refusal"]["message"])
            return EXIT_INPUT
        return 0

    ended = guarded(bundle, run)
    sys.exit(ended.exit_code or ended.value)
