"""Where `ptycho-export` starts: on a host without the packages of an extra it says which, in one line."""

from __future__ import annotations

import sys

_OURS = ("exporters", "ptycho_torch", "ptycho_runtime")
EXIT_INPUT = 2


def main() -> None:
    """Run the command line; exit code 2 where it cannot start for want of a package."""
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
