"""`--timeout`: a command that takes longer than its user gave it is ended, whatever it is at."""

from __future__ import annotations

import argparse
import contextlib
import os
import threading
from collections.abc import Iterator

from ptycho_runtime.cli.terminal import complain

EXIT_INPUT = 2


def timeout_option(command: argparse.ArgumentParser) -> None:
    """Add the option to a command."""
    command.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="end with exit code 2 if it is not done by then"
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1e7:
        raise argparse.ArgumentTypeError(f"{text} is no time in seconds")
    return value


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """End the process after that many seconds; a graph that is running cannot be interrupted in another way.

    What is being written has no name yet and is removed by the next run; older results stay.
    """
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, _end, (seconds,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(seconds: float) -> None:
    complain(f"not done after {seconds:g} s (--timeout); nothing is written")
    os._exit(EXIT_INPUT)
