"""What can end an export or a proof, beside the bundle itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptycho_runtime.errors import PtychoExportError

if TYPE_CHECKING:
    from exporters.parity.report import ParityReport


class ExportError(PtychoExportError, RuntimeError):
    """The export is not what the contract promises: a bug here or in a tool, never the user's bundle."""


class MixedInstallationError(PtychoExportError, ImportError):
    """The `ptycho_torch` that Python finds is not, or not only, this project's."""

    exit_code = 2


class _EndedError(PtychoExportError, RuntimeError):
    """Carries the report, where there is one, for callers that show it."""

    def __init__(self, message: str, report: ParityReport | None = None) -> None:
        super().__init__(message)
        self.report = report


class ParityError(_EndedError):
    """Two runtimes disagree by more than rounding explains."""

    exit_code = 3


class BudgetNotKeptError(ParityError):
    """No way of running the graph on this host keeps the budget on held-back patterns."""


class DeviceRequiredError(_EndedError):
    """A device that was required is absent, or did not run all of the graph."""

    exit_code = 4
