"""What can go wrong in the three houses: one root, one class a cause, each with the exit code that a script can use.

PtychoExportError                1  a bug here, unless a class below says otherwise
ReconstructionError            2  a file, or something asked of it, that the runtime will not guess about
OutputError                    2  a result cannot be written
TorchMissingError              2  PyTorch, or another package of an extra, is not installed
CheckFailedError               3  this host computes something else than was exported
DeviceUnavailableError         4  a device that was asked for cannot be used
ptycho_torch.BundleError       2  a bundle is refused
exporters.errors               1, 3, 4
"""

from __future__ import annotations

from typing import ClassVar

EXIT_NOT_TRUSTED = 5  # with --strict: done, but not to be believed


def exit_code_of(verdict: str, *, strict: bool) -> int:
    """Return with which code a command ends whose image has this verdict: 0, unless it is asked to be strict."""
    return EXIT_NOT_TRUSTED if strict and verdict == "not trusted" else 0


class PtychoExportError(Exception):
    """Root of every error that this project raises on purpose."""

    exit_code: ClassVar[int] = 1


class ReconstructionError(PtychoExportError, ValueError):
    """A file, or something asked of it, that the runtime will not guess about."""

    exit_code = 2


class NotExportedError(ReconstructionError):
    """The file holds no exports, or not the graph that is needed."""


class DamagedExportError(ReconstructionError):
    """An export is cut short, or is not the file that `exports.json` describes."""


class UnsafeGraphError(ReconstructionError):
    """A graph asks for files outside itself, for custom operators, or is not the contract's."""


class ScanError(ReconstructionError):
    """A scan that cannot be read without guessing; the message names the option that settles it."""


class PositionsMissingError(ScanError):
    """A scan holds patterns and no positions: nothing can be stitched from it, but patterns can be read."""


class ScanIncompleteError(ScanError):
    """A part of a scan is not there."""


class VariantRefusedError(ReconstructionError):
    """A variant in reduced precision is not there, or errs more than its budget on this host or scan."""


class OutputError(PtychoExportError, ValueError):
    """A result cannot be written; an older file in its place is as it was."""

    exit_code = 2


class ChangedMeanwhileError(OutputError):
    """What was to be replaced is not what was read any more; it stays as it is, and the new result lies beside it."""


class PackageMissingError(PtychoExportError, RuntimeError):
    """A package that belongs to an extra is not installed; the message has the command that installs it."""

    exit_code = 2


class TorchMissingError(PackageMissingError):
    """PyTorch is not installed, and what was called needs it."""


class CheckFailedError(PtychoExportError, RuntimeError):
    """This host computes something else than the reference that came with the export."""

    exit_code = 3


class DeviceUnavailableError(PtychoExportError, RuntimeError):
    """A device that was asked for cannot be used; the message says why and what to install."""

    exit_code = 4
