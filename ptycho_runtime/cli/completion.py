"""`ptycho-runtime completion`: what a shell completes this program by."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from ptycho_runtime.cli.options import examples
from ptycho_runtime.cli.terminal import show
from ptycho_runtime.errors import PackageMissingError

SHELLS = ("bash", "zsh", "tcsh")
INSTALL = "pip install 'ptycho-export[completion]'"


def adder(grammar: Callable[[], argparse.ArgumentParser]) -> Callable[..., None]:
    """Return what adds the command to a grammar; `grammar` gives the whole one when it is asked for."""

    def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
        command = commands.add_parser("completion", help="print what a shell completes commands and options by")
        command.add_argument("shell", choices=SHELLS)
        command.add_argument("--json", action="store_true", help="print JSON for machines")
        examples(
            command,
            """
            ptycho-runtime completion bash > ~/.local/share/bash-completion/completions/ptycho-runtime
            ptycho-runtime completion zsh > ~/.zfunc/_ptycho-runtime
            """,
        )
        command.set_defaults(run=lambda arguments: run(arguments, grammar()))

    return add


def run(arguments: argparse.Namespace, grammar: argparse.ArgumentParser) -> int:
    """Run the command and return its exit code."""
    try:
        import shtab
    except ImportError:
        raise PackageMissingError(f"completion needs shtab, which is not installed: {INSTALL}") from None
    script = shtab.complete(grammar, shell=arguments.shell)
    show(json.dumps({"shell": arguments.shell, "script": script}) if arguments.json else script)
    return 0
