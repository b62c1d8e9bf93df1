"""Proof with numbers that eager, TorchScript and ONNX compute the same."""

from exporters.errors import DeviceRequiredError, ParityError
from exporters.parity.golden import make_golden
from exporters.parity.matrix import run_parity
from exporters.parity.report import ParityReport, ParityRow

__all__ = ["DeviceRequiredError", "ParityError", "ParityReport", "ParityRow", "make_golden", "run_parity"]
