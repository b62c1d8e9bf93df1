"""What a command says while it runs and how it ends: one line an error, exit codes a script can use."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.segment import Segment

from exporters.cli.start import EXIT_INPUT, lacking
from exporters.installation import check_installation
from ptycho_runtime.cli.answer import answering
from ptycho_runtime.cli.log import VOICE, Level
from ptycho_runtime.errors import PtychoExportError
from ptycho_runtime.files import one_line, shown

if TYPE_CHECKING:
    from exporters.parity.report import ParityReport

EXIT_BUG, EXIT_PARITY, EXIT_DEVICE = 1, 3, 4
EXIT_NOT_READ = 141  # when nobody reads the output, as shells have it
# What several bundles exit with: the gravest.
SEVERITY = (0, EXIT_INPUT, EXIT_DEVICE, EXIT_PARITY, EXIT_BUG)
_TRACEBACK = "PTYCHO_EXPORT_TRACEBACK"
_LOG_COLUMNS = 100

Say = Callable[[str], None]
T = TypeVar("T")


class PlainConsole(Console):
    """A console that knows no markup, and on which no character of a text does anything but stand there."""

    def __init__(self, *, stderr: bool = False) -> None:
        """Take the stream: standard output, or standard error."""
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, with every text escaped; styles and rich's own control codes are not text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)

    def print(self, *objects: Any, **settings: Any) -> None:
        """Print as rich does what is to be heard, and write it to the log file."""
        level: Level = "note" if self.stderr else "answer"
        VOICE.note(level, _text(objects))
        if VOICE.heard(level):
            with nullcontext() if self.stderr else answering():
                super().print(*objects, **settings)

    def complain(self, text: str) -> None:
        """Print one line whatever is to be heard."""
        VOICE.note("error", text)
        super().print(text, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """End quietly."""
        not_read()


def _text(objects: Iterable[Any]) -> str:
    """Return what a log file has of objects: text as it is, tables as they are on a terminal of 100 columns."""
    if VOICE.writes_nothing:
        return ""
    console = Console(file=io.StringIO(), width=_LOG_COLUMNS, highlight=False, markup=False, emoji=False)
    for part in objects:
        console.print(part, soft_wrap=isinstance(part, str))
    text = console.file
    return text.getvalue() if isinstance(text, io.StringIO) else ""


def not_read() -> NoReturn:
    """End where nobody reads on, as after `| head`: what is left goes nowhere, and the exit code is a shell's for SIGPIPE."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            stream.flush()
            continue
        os.dup2(nowhere, stream.fileno())
    raise SystemExit(EXIT_NOT_READ)


output = PlainConsole()
messages = PlainConsole(stderr=True)


class Ended(Generic[T]):
    """How a command ended: with a value, or with one line and an exit code."""

    def __init__(self, value: T | None, message: str = "", exit_code: int = 0) -> None:
        """Take the value, or None with what was said and the code."""
        self.value, self.message, self.exit_code = value, message, exit_code


def guarded(name: str, run: Callable[[Say], T]) -> Ended[T]:
    """Run a command; an error that has a known cause becomes one line on standard error.

    Args:
        name: what the progress is of.
        run: takes a function that shows a short text, and returns the command's value.
    """
    try:
        check_installation()
        with _progress(name) as say:
            return Ended(run(say))
    except PtychoExportError as error:
        message, code = str(error), error.exit_code
    except BrokenPipeError:
        not_read()
    except OSError as error:
        # Names that are too long, folders that may not be read, a temporary folder that is full: nothing of ours.
        message, code = str(error), EXIT_INPUT
    except MemoryError as error:
        message, code = f"{name}: takes more memory than this process may have ({error})", EXIT_INPUT
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("exporters", "ptycho_torch", "ptycho_runtime"):
            raise
        message, code = lacking(error), EXIT_INPUT
    complain(message)
    return Ended(None, message, code)


def echo(text: str) -> None:
    """Print lines on standard output as they are, at any width; text of files stands in them escaped."""
    VOICE.note("answer", text)
    try:
        with answering():
            click.echo(shown(text))
    except BrokenPipeError:
        not_read()


def complain(message: str) -> None:
    """Print one line on standard error."""
    messages.complain(f"ptycho-export: {one_line(message)}")


def print_report(report: ParityReport) -> None:
    """Print a parity report's tables."""
    from exporters.parity.forms.terminal import layer_table, matrix_table, not_run_lines, stitched_table

    for notice in report.notices:
        messages.print(f"notice: {notice}", soft_wrap=True)
    output.print(matrix_table(report))
    for line in not_run_lines(report):
        output.print(line, soft_wrap=True, markup=False, highlight=False)
    if report.stitched:
        output.print(stitched_table(report.stitched))
    for divergence in report.divergence:
        output.print(layer_table(divergence))


@contextmanager
def _progress(name: str) -> Iterator[Say]:
    label = Path(name).name
    if not VOICE.shows_progress:
        yield lambda text: VOICE.note("note", f"{label}: {text}")
        return
    if not messages.is_terminal:
        yield lambda text: messages.print(f"{label}: {text}", soft_wrap=True)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=messages, transient=True) as display:
        task = display.add_task(label)
        yield lambda text: display.update(task, description=f"{label}: {text}")


def report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print what no command foresaw in one line; the whole traceback where the environment asks for it."""
    if os.environ.get(_TRACEBACK):
        sys.__excepthook__(kind, error, trace)
        return
    text = " ".join(f"{kind.__name__}: {error}".split())
    complain(f"{text}; this is a bug in ptycho-export; run again with {_TRACEBACK}=1 and report what it prints")
