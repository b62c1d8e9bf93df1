"""A signal that comes while a module is loaded."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def broken_loading() -> Iterator[Callable[..., None]]:
    """Yield what loads a module that SIGTERM breaks, as a process finds signals that starts; handlers are put back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def loading(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as error:  # as a compiled module does that is loaded just then
            raise ImportError("initialization failed") from error

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield loading
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
