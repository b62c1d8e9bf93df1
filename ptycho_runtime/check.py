"""Repeat the parity verdict on this host: the stored inputs, this runtime and device, the stored float64 reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.engine.chosen import Choice, open_graph
from ptycho_runtime.engine.judging import CheckRow, judged
from ptycho_runtime.engine.opening import open_engine
from ptycho_runtime.engine.openvino import installed_version
from ptycho_runtime.engine.options import DEFAULTS, RunOptions
from ptycho_runtime.engine.variants import open_variant_session, precision_errors, stored_patterns
from ptycho_runtime.errors import DamagedExportError, DeviceUnavailableError
from ptycho_runtime.export.bundle import Export, load_golden
from ptycho_runtime.export.golden_agreement import golden_contradiction
from ptycho_runtime.export.precision import Variant

VARIANT_OUTPUT = "object phase, amplitude"


def check_host(export: Export, options: RunOptions = DEFAULTS) -> list[CheckRow]:
    """Return one row for each output of each graph and engine, and one for each variant in reduced precision.

    onnxruntime has rows always. On the CPU OpenVINO in float32 has some where it is installed, or where tuning chose it; they
    decide only where it did.

    Args:
        export: with its `golden.npz`.
        options: how graphs are run; a variant runs on the device that it is for.

    Raises:
        NotExportedError: the export has no `golden.npz`.
        DamagedExportError: `golden.npz` lacks arrays, or contradicts itself though this host computes what it says.
        DeviceUnavailableError: the device cannot be used.

    Examples:
        >>> import ptycho_runtime
        >>> export = ptycho_runtime.open_export("exported/wts.h5.zip")
        >>> {row.verdict for row in ptycho_runtime.check_host(export)}
        {'passed'}
    """
    golden = load_golden(export)
    rows: list[CheckRow] = []
    device = "cpu"
    for graph in export.graphs:
        with open_graph(export, graph, replace(options, engine="onnxruntime")).session as session:
            device = session.device
            rows += judged(session, graph, golden, export.path.name)
    contradiction = golden_contradiction(golden, export.graphs, export.N)
    # Where a host's numbers are not the reference's, those figures say more.
    if contradiction and all(row.passed for row in rows):
        raise DamagedExportError(
            f"{export.path.name}: {contract.GOLDEN_NPZ} contradicts itself: {contradiction}; do not use it, export the bundle again"
        )
    if device == "cpu":
        for graph in export.graphs:
            rows += _openvino_rows(export, graph, golden, options)
    return rows + [_variant_row(export, variant, options) for variant in export.variants.values()]


def _openvino_rows(export: Export, graph: str, golden: Mapping[str, np.ndarray], options: RunOptions) -> list[CheckRow]:
    """Return the rows of a graph under OpenVINO in float32, none where it is neither installed nor what was tuned."""
    options = RunOptions("cpu", options.batch, options.threads, engine=options.engine)
    choice = Choice(export, graph)
    runs = choice.fit(options).engine == "openvino"
    if choice.without:
        return [_not_run(graph, choice.without)]
    if not installed_version():
        return []
    try:
        session = open_engine(export.graphs[graph], replace(options, engine="openvino"), Choice(export, graph).fit)
    except DeviceUnavailableError as error:
        return [_not_run(graph, str(error))]
    with session:
        return [replace(row, runs=runs) for row in judged(session, graph, golden, export.path.name)]


def _not_run(graph: str, reason: str) -> CheckRow:
    return CheckRow(graph, "", "cpu", np.nan, np.nan, np.nan, np.nan, not_run=reason, engine="openvino")


def _variant_row(export: Export, variant: Variant, options: RunOptions) -> CheckRow:
    """Return the row of a variant in reduced precision: phase and amplitude error in the places of the two figures."""
    feed, reference = stored_patterns(export, variant.graph)
    where = variant.graph, VARIANT_OUTPUT, f"{variant.label} {variant.device}"
    limits = variant.budget
    try:
        session = open_variant_session(variant, options)
    except DeviceUnavailableError as error:
        figures = np.nan, limits.phase_rad, np.nan, limits.amplitude_rel
        return CheckRow(*where, *figures, not_run=str(error), engine=variant.engine)
    with session:
        found = precision_errors(session.run(feed), reference)
    figures = found.phase_rad, limits.phase_rad, found.amplitude_rel, limits.amplitude_rel
    return CheckRow(*where, *figures, engine=variant.engine)
