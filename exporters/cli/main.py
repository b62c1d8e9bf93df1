"""The command line `ptycho-export`: its commands, one file each."""

from __future__ import annotations

import copy
import io
import sys

import click

from exporters.cli.audit import audit
from exporters.cli.bench import bench
from exporters.cli.compare import compare
from exporters.cli.export import export
from exporters.cli.inspect import inspect
from exporters.cli.replay import replay
from exporters.cli.start import EXIT_INPUT, EXIT_STOPPED
from exporters.cli.terminal import complain, echo, not_read, report_bug
from exporters.cli.verify import verify
from exporters.cli.voice import voiced
from ptycho_runtime.cli.answer import answering
from ptycho_runtime.errors import OutputError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="ptycho-export")
def cli() -> None:
    """Export PtychoPINN bundles to TorchScript and ONNX, and prove that both compute the same as the original.

    Exit codes: 0 well, 2 bad input, 3 parity failed, 4 a required device is absent, 130 stopped, 1 a bug in this program.
    """


for _command in (export, verify, inspect, audit, compare, replay, bench):
    cli.add_command(voiced(_command))

# The former name of `audit`: a scan is of X-rays here.
_scan = copy.copy(audit)
_scan.hidden = True
cli.add_command(_scan, "scan")


def main() -> None:
    """Run the command line; what no command foresees ends in one line and exit code 1."""
    sys.excepthook = report_bug
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is shown escaped and ends no run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    stdout = sys.stdout
    code: int | str | None
    try:
        # What no command caught is of its answer: the help, or a table.
        with answering():
            code = _run()
            if sys.stdout is not stdout:  # click puts another in its place where nobody reads on
                not_read()
            sys.stdout.flush()
    except OutputError as error:
        complain(str(error))
        code = error.exit_code
    except BrokenPipeError:
        not_read()
    sys.exit(code)


def _run() -> int | str | None:
    try:
        value = cli.main(prog_name="ptycho-export", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        echo(error.format_message())
        return EXIT_INPUT
    except click.ClickException as error:
        complain(error.format_message())
        return EXIT_INPUT
    except click.Abort:
        complain("stopped; what was not finished is not stored")
        return EXIT_STOPPED
    except SystemExit as ended:
        return ended.code
    return value if isinstance(value, int) else 0
