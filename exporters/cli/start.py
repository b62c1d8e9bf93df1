"""Where `ptycho-export` starts: on a host without the packages of an extra it says which, in one line."""

from __future__ import annotations

import sys

from ptycho_runtime.cli.signals import stop_on_signals

_OURS = ("exporters", "ptycho_torch", "ptycho_runtime")
EXIT_INPUT = 2
EXIT_STOPPED = 130  # by Ctrl-C or SIGTERM, as shells have it


def main() -> None:
    """Run the command line; exit code 2 where it cannot start for want of a package, 130 where a signal ends it."""
    stopped = stop_on_signals()
    try:
        _run()
    except (Exception, KeyboardInterrupt):
        # A module that is loaded just then makes an error of its own of it; so an error after a signal is the signal's.
        if not stopped:
            raise
        print("ptycho-export: stopped; what was not finished is not stored", file=sys.stderr)
        sys.exit(EXIT_STOPPED)


def _run() -> None:
    try:
        from exporters.cli.main import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _OURS:
            raise
        print(f"ptycho-export: {lacking(error)}", file=sys.stderr)
        sys.exit(EXIT_INPUT)
    run()


def lacking(error: ModuleNotFoundError) -> str:
    """Return in words what to install for a package that is not there."""
    return f"the package {error.name} is not installed here; pip install 'ptycho-export[export]' brings all that exporting needs"
