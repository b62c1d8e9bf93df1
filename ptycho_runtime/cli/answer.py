"""Standard output where it takes no more: on a disk that is full, or behind a reader that is gone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ptycho_runtime.errors import OutputError


@contextmanager
def answering() -> Iterator[None]:
    """Say in words what standard output refuses in this block; a reader that is gone stays a `BrokenPipeError`.

    Raises:
        OutputError: it takes no more. What is left goes nowhere, so that the end of the process does not try again.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(
            f"standard output takes no more: {error.strerror}; the answer is not whole, files that were named before are"
        ) from error
