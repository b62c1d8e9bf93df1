"""What every command takes beside its own options: how much is said, a log file, and examples at the end of its help."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import click

from exporters.cli.terminal import complain
from ptycho_runtime.cli.log import VOICE
from ptycho_runtime.errors import PtychoExportError

EXAMPLES = {
    "export": """
        ptycho-export export run/wts.h5.zip
        ptycho-export export "runs/*/wts.h5.zip" --out exported --scan scan.npz
        ptycho-export export run/wts.h5.zip --scan scan.npz --precision auto --budget phase=0.01rad,amp=1%
    """,
    "verify": """
        ptycho-export verify exported/wts.h5.zip
        ptycho-export verify exported/wts.h5.zip --require cuda --report proof
        ptycho-export verify exported/wts.h5.zip --json
    """,
    "inspect": """
        ptycho-export inspect run/wts.h5.zip
        ptycho-export inspect run/wts.h5.zip --write-architecture a.json
    """,
    "audit": """
        ptycho-export audit stranger.zip last.ckpt
        ptycho-export audit stranger.zip --json
    """,
    "compare": """
        ptycho-export compare old/parity.json new/parity.json
        ptycho-export compare old/parity.json new/parity.json --fail-on-change --json
    """,
    "replay": """
        ptycho-export replay exported/worst.autoencoder.npz
        ptycho-export replay exported/worst.autoencoder.npz --bundle exported/wts.h5.zip --json
    """,
    "bench": """
        ptycho-export bench exported/wts.h5.zip --quick
        ptycho-export bench run/wts.h5.zip --scan scan.npz --budget phase=0.01rad,amp=1%
        ptycho-export bench exported/wts.h5.zip --only ONNX --only eager --json
    """,
}


def voiced(command: click.Command) -> click.Command:
    """Give a command the options that decide what is said, and its examples; returns it."""
    command.params += [
        click.Option(["-v", "--verbose"], is_flag=True, help="Say more: what was given."),
        click.Option(
            ["-q", "--quiet"], count=True, help="No progress; twice: nothing but the answer, warnings and errors."
        ),
        click.Option(
            ["--log-file"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Append all that is said to a log, each line with its time.",
        ),
    ]
    lines = "\n".join(f"  {line.strip()}" for line in EXAMPLES[str(command.name)].strip().splitlines())
    command.epilog = f"\b\nExamples:\n{lines}"
    inner = command.callback
    assert inner is not None  # each of ours has one

    @functools.wraps(inner)
    def callback(*given: Any, verbose: bool, quiet: int, log_file: Path | None, **chosen: Any) -> Any:
        try:
            with VOICE.set(quiet=quiet, verbose=verbose, log_file=log_file):
                return inner(*given, **chosen)
        except PtychoExportError as error:  # for the log file
            complain(str(error))
            sys.exit(error.exit_code)

    command.callback = callback
    return command
