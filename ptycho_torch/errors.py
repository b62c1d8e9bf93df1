"""Every way in which a bundle can be refused: one class per cause, all of them `BundleError`.

PtychoPINN's generations raise ValueError or RuntimeError for models and weights that are absent or do not fit; those
classes are both here.
"""

from __future__ import annotations

from ptycho_runtime.errors import PtychoExportError


class BundleError(PtychoExportError, ValueError):
    """A bundle, or something asked of it, that this project will not guess about."""

    exit_code = 2


class NotABundleError(BundleError):
    """The path holds something other than a PtychoPINN bundle or checkpoint."""


class DamagedBundleError(BundleError, RuntimeError):
    """The archive or one of its members is cut short, corrupt, or disagrees with itself."""


class TensorFlowBundleError(BundleError):
    """The bundle was written by PtychoPINN's TensorFlow backend; only the PyTorch backend's can be read."""


class UnsafeContentError(BundleError):
    """A pickle in the bundle asks for something that reading a model never needs."""


class LimitExceededError(BundleError):
    """A member count, size, compression ratio, nesting depth or number is beyond what a real bundle has."""


class MissingModelsError(BundleError, RuntimeError):
    """A model that the bundle should hold, or that was asked for, is not there."""


class MissingParamsError(BundleError):
    """Parameters without which the architecture cannot be rebuilt are absent."""


class WeightMismatchError(BundleError, RuntimeError):
    """The stored weights do not fit the architecture, or are not usable numbers."""


class AmbiguousArchitectureError(BundleError):
    """More than one architecture fits the evidence; the message lists them and the override that settles it."""


class EvidenceConflictError(BundleError):
    """Two pieces of evidence about the architecture contradict each other."""


class UnsupportedArchitectureError(BundleError):
    """The bundle names an architecture that nobody outside its authors can build."""


class ConfigurationError(BundleError):
    """A configuration value that PtychoPINN does not know or that is out of range."""
