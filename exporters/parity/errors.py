"""How a parity check ends when it does not pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporters.parity.report import ParityReport


class _Ended(RuntimeError):
    """Carries the report, where there is one, for callers that show it."""

    def __init__(self, message: str, report: ParityReport | None = None) -> None:
        super().__init__(message)
        self.report = report


class ParityError(_Ended):
    """Two runtimes disagree by more than rounding explains."""

    exit_code = 3


class DeviceRequiredError(_Ended):
    """A device that was required is absent, or did not run all of the graph."""

    exit_code = 4
