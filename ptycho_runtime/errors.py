"""What can stop a reconstruction: one class per cause, each with the exit code that a script can use."""


class ReconstructionError(ValueError):
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


class OutputError(ReconstructionError):
    """A result cannot be written."""


class VariantRefusedError(ReconstructionError):
    """A variant in reduced precision is not there, or errs more than its budget on this host or scan."""


class CheckFailedError(RuntimeError):
    """This host computes something else than the reference that came with the export."""

    exit_code = 3


class DeviceUnavailableError(RuntimeError):
    """A device that was asked for cannot be used; the message says why and what to install."""

    exit_code = 4
