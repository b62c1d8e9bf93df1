"""What a command says, by importance, and where it goes: the terminal, and a log file with times where one is asked for."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Final, Literal

from ptycho_runtime.errors import OutputError
from ptycho_runtime.files import printable

Level = Literal["error", "warning", "note", "detail", "answer"]
FIRST_LINE: Final = "# ptycho-export log"
_HEAD_BYTES = len(FIRST_LINE)


class Voice:
    """How much is said on the terminal, and the log file that gets all of it."""

    def __init__(self) -> None:
        """Say what is usual, to the terminal alone."""
        self.quiet = 0
        self.verbose = False
        self._file: IO[bytes] | None = None

    @property
    def writes_nothing(self) -> bool:
        """Say whether there is no log file."""
        return self._file is None

    def heard(self, level: Level) -> bool:
        """Say whether the terminal shows what is of this importance; errors, warnings and answers always are."""
        return level in ("error", "warning", "answer") or (self.verbose if level == "detail" else self.quiet < 2)

    @property
    def shows_progress(self) -> bool:
        """Say whether the terminal shows how far a command is."""
        return self.quiet == 0

    def note(self, level: Level, text: str) -> None:
        """Write lines to the log file, each with its time and importance."""
        if self._file is None:
            return
        time = datetime.now().astimezone().isoformat(timespec="milliseconds")
        lines = "".join(f"{time} {level:6s} {printable(line, 10_000)}\n" for line in text.splitlines())
        with contextlib.suppress(OSError):  # a full disk ends no reconstruction
            self._file.write(lines.encode("utf-8", "backslashreplace"))

    @contextlib.contextmanager
    def set(self, *, quiet: int, verbose: bool, log_file: Path | None) -> Iterator[None]:
        """Speak so within the block.

        Args:
            quiet: 1 is without progress; with 2, what was read and how it is run is said in the log file alone.
            verbose: details too.
            log_file: gets all that is said, each line with its time.

        Raises:
            OutputError: the log file cannot be written, or is a file that is no earlier log.
        """
        before = self.quiet, self.verbose, self._file
        opened = None if log_file is None else _opened(log_file)
        self.quiet, self.verbose = 0 if verbose else quiet, verbose
        self._file = opened if opened is not None else self._file
        try:
            yield
        finally:
            self.quiet, self.verbose, self._file = before
            if opened is not None:
                opened.close()


VOICE: Final = Voice()


def _opened(path: Path) -> IO[bytes]:
    """Return a log file, open for lines at its end; a file that is there must be an earlier log."""
    try:
        # Neither waits for the other end of a pipe, nor cuts what is there.
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o644), "r+b", buffering=0)
    except OSError as error:
        raise OutputError(f"{path}: no log can be written there ({error.strerror}); give another name") from error
    try:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OutputError(f"{path}: is no file; give the name of a log")
        if status.st_size and os.pread(file.fileno(), _HEAD_BYTES, 0) != FIRST_LINE.encode():
            raise OutputError(f"{path}: exists, and is no earlier log; give another name")
        if not status.st_size:
            file.write(f"{FIRST_LINE}\n".encode())
    except BaseException:
        file.close()
        raise
    return file
