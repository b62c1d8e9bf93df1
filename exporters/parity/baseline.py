"""What a model leaves unexplained on a scan that it was made for: the measure of a host's verdict on other scans."""

from __future__ import annotations

import math

from exporters.parity.first_patterns import first_patterns
from exporters.parity.inputs import Source
from exporters.parity.runners import OnnxRunner
from ptycho_runtime.export.record import TrustBaseline
from ptycho_runtime.image.core import Graphs
from ptycho_runtime.image.reconstruct import reconstruct
from ptycho_torch.spec import ModelSpec

MAX_PATTERNS = 1024  # the first of the scan; a median needs no more


def trust_baseline(spec: ModelSpec, onnx: bytes, source: Source) -> tuple[TrustBaseline | None, str]:
    """Return (baseline, why not): None where the scan's image is not trusted by itself, for it would excuse others like it.

    Args:
        spec: of the model.
        onnx: its `diffraction_to_obj` graph.
        source: a scan with positions, and how the input scale factor is made.

    Raises:
        ScanError: the scan cannot be read to its end.
    """
    if source.scan is None:
        return None, "there is no scan"
    export, scan = first_patterns(spec, source, MAX_PATTERNS)
    with OnnxRunner(onnx) as runner:
        trust = reconstruct(export, Graphs(runner), scan).trust
    disagreement, residual = (trust.figures[f"{name}_median"] for name in ("disagreement", "stitched_residual"))
    if trust.verdict == "not trusted" or not disagreement > 0:
        return None, "; ".join(trust.reasons) or "its patches do not overlap"
    return TrustBaseline(disagreement, residual if math.isfinite(residual) and residual > 0 else None), ""
