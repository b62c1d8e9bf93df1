"""The command line of a beamline host: `ptycho-runtime COMMAND`, one file each. One line an error, exit codes a script can use."""

from __future__ import annotations

import argparse
import io
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping

from ptycho_runtime.cli import (
    batch,
    check,
    completion,
    demo,
    doctor,
    inspect,
    live,
    merge,
    predict,
    prepare,
    reconstruct,
    replay,
    tune,
    watch,
)
from ptycho_runtime.cli.answer import answering
from ptycho_runtime.cli.config import with_config
from ptycho_runtime.cli.log import VOICE
from ptycho_runtime.cli.options import voice_options
from ptycho_runtime.cli.signals import stop_on_signals
from ptycho_runtime.cli.terminal import EXIT_STOPPED, PlainParser, complain, detail, report_bug
from ptycho_runtime.cli.time_limit import time_limit
from ptycho_runtime.errors import OutputError, PtychoExportError

EXIT_INPUT, EXIT_NOT_READ = 2, 141


def _version() -> str:
    import ptycho_runtime

    return ptycho_runtime.__version__


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    return _grammar()[0]


def _grammar() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """Return the command line's grammar, and that of each command."""
    top = PlainParser(
        prog="ptycho-runtime",
        description="Run exported PtychoPINN models without PyTorch.",
        epilog="Exit codes: 0 well, 2 bad input, 3 this host computes something else, 4 the device is absent, "
        "5 not trusted (--strict), 130 stopped, 1 a bug here.",
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (
        demo,
        reconstruct,
        live,
        replay,
        batch,
        watch,
        prepare,
        merge,
        predict,
        inspect,
        check,
        tune,
        doctor,
    ):
        module.add(commands)
    completion.adder(parser)(commands)
    for command in commands.choices.values():
        voice_options(command)
    return top, commands.choices


def run(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code; an error with a known cause is one line."""
    top, commands = _grammar()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        if given and given[0] in commands:
            given = [given[0], *with_config(given[1:], commands[given[0]], commands)]
        parsed = top.parse_args(given)
        parsed.given = given[1:]
        with (
            VOICE.set(quiet=parsed.quiet, verbose=parsed.verbose, log_file=parsed.log_file),
            time_limit(getattr(parsed, "timeout", None)),
        ):
            return _ended(parsed, given)
    except PtychoExportError as error:  # in the configuration, or for the log file
        complain(str(error))
        return error.exit_code


def _ended(parsed: argparse.Namespace, given: list[str]) -> int:
    """Run a command and return its exit code."""
    began = time.monotonic()
    detail(f"ptycho-export {_version()}, Python {platform.python_version()} on {platform.node()}")
    detail(shlex.join(["ptycho-runtime", *given]))
    try:
        code = int(parsed.run(parsed))
    except PtychoExportError as error:
        complain(str(error))
        code = error.exit_code
    except BrokenPipeError:
        raise
    except OSError as error:
        # Names that are too long, folders that may not be read, a temporary folder that is full: nothing of ours.
        complain(str(error))
        code = EXIT_INPUT
    except MemoryError as error:
        complain(f"takes more memory than this process may have ({error})")
        code = EXIT_INPUT
    except KeyboardInterrupt:
        complain("stopped; nothing was finished, nothing is written")
        code = EXIT_STOPPED
    detail(f"exit code {code} after {time.monotonic() - began:.2f} s")
    return code


def main() -> None:
    """Run the command line of this process; what no command foresees ends in one line and exit code 1."""
    sys.excepthook = report_bug
    stopped = stop_on_signals()
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is shown escaped and ends no run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = run()
        with answering():
            sys.stdout.flush()
    except OutputError as error:
        complain(str(error))
        code = error.exit_code
    except BrokenPipeError:
        # Nobody reads on, as after `| head`: what is left goes nowhere, and the exit code is a shell's for SIGPIPE.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_NOT_READ
    except (Exception, KeyboardInterrupt):
        # A module that is loaded just then makes an ImportError of it; so an error after a signal is the signal's.
        if not stopped:
            raise
        complain("stopped; nothing was finished, nothing is written")
        code = EXIT_STOPPED
    sys.exit(code)
