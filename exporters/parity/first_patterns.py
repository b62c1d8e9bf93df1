"""A bundle's own scan as its runtime would reconstruct it, cut to the patterns that a proof has time for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from exporters.parity.inputs import Source
from ptycho_runtime.export.bundle import Export
from ptycho_runtime.scan.scan import Scan
from ptycho_torch.spec import ModelSpec


def first_patterns(spec: ModelSpec, source: Source, most: int) -> tuple[Export, Scan]:
    """Return what a model is for the runtime, without graphs, and the beginning of the source's scan.

    Args:
        spec: what the model is.
        source: has a scan, and says how the input scale factor is made.
        most: patterns of the scan.
    """
    scan = source.scan
    assert scan is not None
    export = Export(
        Path(scan.name),
        {},
        spec.N,
        spec.gridsize,
        spec.measurement_domain,
        source.scale_formula,
        source.scale_value,
        spec.era,
        float(spec.rules.positions_sign),
    )
    return export, scan.subset(np.arange(min(len(scan), most)))
