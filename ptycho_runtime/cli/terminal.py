"""What the commands say on standard error: lines, a progress bar, the last word on a bug."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from ptycho_runtime.files import one_line, shown

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

EXIT_NOT_TRUSTED = 5  # with --strict: done, but not to be believed
EXIT_STOPPED = 130  # by Ctrl-C, as shells have it; what was finished is written
TRACEBACK = "PTYCHO_RUNTIME_TRACEBACK"


class PlainParser(argparse.ArgumentParser):
    """A command line whose messages show what was typed, or what a shell's pattern found, escaped."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        super()._print_message(shown(message), file)


class ProgressBar:
    """A progress bar with rate and remaining time on standard error; a number now and then where that is no terminal."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: Any = None

    def __enter__(self) -> Callable[[int, int], None] | None:
        return None if self.quiet else self.show

    def show(self, done: int, total: int) -> None:
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(
                total=total, unit="pattern", file=sys.stderr, mininterval=0.5 if sys.stderr.isatty() else 10.0
            )
        self.bar.update(done - self.bar.n)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()


def show(text: str) -> None:
    """Print a command's answer on standard output; text of files stands in it escaped."""
    _print(text, sys.stdout)


def say(text: str) -> None:
    """Print one line on standard error."""
    _print(f"ptycho-runtime: {one_line(text)}", sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    encoding = stream.encoding or "ascii"
    # What the terminal's encoding lacks is escaped too.
    print(shown(text).encode(encoding, "backslashreplace").decode(encoding), file=stream)


def report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if os.environ.get(TRACEBACK):
        sys.__excepthook__(kind, error, trace)
        return
    say(
        f"{kind.__name__}: {error}; this is a bug in ptycho-runtime; run again with {TRACEBACK}=1 and report what it prints"
    )
