"""Where `ptycho-export` starts: on a host without the packages of an extra it says which, in one line."""

from __future__ import annotations

import gc
import sys

from ptycho_runtime.cli.signals import stop_on_signals

_OURS = ("exporters", "ptycho_torch", "ptycho_runtime")
EXIT_INPUT = 2
EXIT_STOPPED = 130  # by Ctrl-C or SIGTERM, as shells have it
# PyTorch and its exporter make a million objects that stay. Python would look through all of them for circles some hundred times,
# four seconds of an export; a look each 50,000 new ones costs one, and 4 % more memory.
_OBJECTS_BETWEEN_LOOKS = (50_000, 20, 50)


def main() -> None:
    """Run the command line; exit code 2 where it cannot start for want of a package, 130 where a signal ends it."""
    stopped = stop_on_signals()
    gc.set_threshold(*_OBJECTS_BETWEEN_LOOKS)
    try:
        _run()
    except (Exception, KeyboardInterrupt):
        # A module that is loaded just then makes an error of its own of it; so an error after a signal is the signal's.
        if not stopped:
            raise
        print("ptycho-export: stopped; what was not finished is not stored", file=sys.stderr)
        sys.exit(EXIT_STOPPED)
    finally:
        # All goes back to the host at once now; Python would look through everything thrice more, two seconds of an export.
        gc.freeze()


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
