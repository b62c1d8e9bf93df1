"""Signals that end a command."""

from __future__ import annotations

import signal
from types import FrameType


def stop_on_signals() -> list[int]:
    """Let SIGTERM end a command in order as SIGINT does, so that what is done is written; returns the signals that came, as they come."""
    came: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is usual:
            signal.signal(number, stop)
    return came
