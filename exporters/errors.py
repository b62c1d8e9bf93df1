"""What can go wrong while exporting, beside the bundle itself."""

from ptycho_torch.errors import BundleError


class ExportError(RuntimeError):
    """The export is not what the contract promises: a bug here or in a tool, never the user's bundle."""

    exit_code = 1


class NotExportedError(BundleError):
    """The bundle holds no exports, or not all that the contract promises."""
