"""What the commands say on standard error: lines, a progress bar, the last word on a bug."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from ptycho_runtime.cli.answer import answering
from ptycho_runtime.cli.log import VOICE, Level
from ptycho_runtime.files import one_line, shown

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

EXIT_STOPPED = 130  # by Ctrl-C, as shells have it; what was finished is written
TRACEBACK = "PTYCHO_RUNTIME_TRACEBACK"
_LINE_EVERY_S = 10.0


class PlainParser(argparse.ArgumentParser):
    """A command line whose messages show what was typed, or what a shell's pattern found, escaped."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        super()._print_message(shown(message), file)


class ProgressBar:
    """Progress with rate and remaining time on standard error: a bar on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.began_s = self.said_s = time.monotonic()

    def __enter__(self) -> Callable[[int, int], None]:
        return self.show

    def show(self, done: int, total: int) -> None:
        """Show that so many groups are through."""
        if not VOICE.shows_progress:
            return
        if sys.stderr.isatty():
            if self.bar is None:
                from tqdm import tqdm

                self.bar = tqdm(total=total, unit="group", file=sys.stderr, mininterval=0.5)
            self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if now - self.said_s >= _LINE_EVERY_S and done < total:
            rate = done / (now - self.began_s)
            say(f"{done} of {total} groups, {rate:.3g}/s, about {duration((total - done) / max(rate, 1e-9))} left")
            self.said_s = now

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()


def duration(seconds: float) -> str:
    """Return a time as people say it: 8 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show(text: str) -> None:
    """Print a command's answer on standard output; text of files stands in it escaped."""
    VOICE.note("answer", text)
    with answering():
        _print(text, sys.stdout)


def say(text: str, level: Level = "note") -> None:
    """Print one line on standard error, unless it is less important than what is to be heard."""
    line = one_line(text)
    VOICE.note(level, line)
    if VOICE.heard(level):
        _print(f"ptycho-runtime: {line}", sys.stderr)


def complain(text: str) -> None:
    """Print one line on standard error, whatever is to be heard: why a command ends."""
    say(text, "error")


def warn(text: str) -> None:
    """Print one line on standard error, whatever is to be heard: what was done to a scan, or left out, that changes its image."""
    say(text, "warning")


def detail(text: str) -> None:
    """Print one line on standard error where `--verbose` asks for it."""
    say(text, "detail")


def _print(text: str, stream: TextIO) -> None:
    encoding = stream.encoding or "ascii"
    # What the terminal's encoding lacks is escaped too.
    print(shown(text).encode(encoding, "backslashreplace").decode(encoding), file=stream)


def report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if os.environ.get(TRACEBACK):
        sys.__excepthook__(kind, error, trace)
        return
    complain(
        f"{kind.__name__}: {error}; this is a bug in ptycho-runtime; run again with {TRACEBACK}=1 and report what it prints"
    )
