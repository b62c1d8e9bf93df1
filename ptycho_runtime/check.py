"""Repeat the parity verdict on this host: the stored inputs, this runtime and device, the stored float64 reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ptycho_runtime import contract as c
from ptycho_runtime.engine.opening import open_session
from ptycho_runtime.engine.options import DEFAULTS, RunOptions
from ptycho_runtime.engine.variants import open_variant_session, precision_errors, stored_patterns
from ptycho_runtime.errors import CheckFailedError, DamagedExportError, DeviceUnavailableError
from ptycho_runtime.export.bundle import Export, load_golden
from ptycho_runtime.export.golden_agreement import golden_contradiction
from ptycho_runtime.export.precision import Variant
from ptycho_runtime.metrics import ON_GPU, errors, phase_weight

VARIANT_OUTPUT = "object phase, amplitude"


@dataclass(frozen=True)
class CheckRow:
    """One output of one graph on this host."""

    graph: str
    output: str
    device: str
    max_abs: float
    allowed_max_abs: float
    rel_l2: float
    allowed_rel_l2: float
    reason: str = ""
    not_run: str = ""  # why nothing was compared: a variant whose engine this host lacks, which then runs in float32

    @property
    def passed(self) -> bool:
        """Say whether both errors are allowed; what did not run has not passed."""
        return (
            not self.not_run
            and not self.reason
            and self.max_abs <= self.allowed_max_abs
            and self.rel_l2 <= self.allowed_rel_l2
        )

    @property
    def verdict(self) -> str:
        """Return the outcome in words."""
        if self.not_run:
            return f"not run: {self.not_run}"
        return "passed" if self.passed else f"FAILED {self.reason}".rstrip()


def check_host(export: Export, options: RunOptions = DEFAULTS) -> list[CheckRow]:
    """Return one row for each output of each graph, and one for each variant in reduced precision.

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
    rows = []
    for graph, model in export.graphs.items():
        with open_session(model, options) as session:
            try:
                feed = {name: golden[f"{graph}.input.{name}"] for name in session.inputs}
                wanted = {name: golden[f"{graph}.reference.{name}"] for name in session.outputs}
                allowed = {name: golden[f"{graph}.allowed.{name}"] for name in session.outputs}
            except KeyError as error:
                raise DamagedExportError(
                    f"{export.path.name}: {c.GOLDEN_NPZ} lacks {error}; export the bundle again"
                ) from error
            found = session.run(feed)
        for name in wanted:
            rows.append(output_row(graph, name, session.device, found[name], wanted, allowed[name]))
    contradiction = golden_contradiction(golden, export.graphs, export.N)
    # Where a host's numbers are not the reference's, those figures say more.
    if contradiction and all(row.passed for row in rows):
        raise DamagedExportError(
            f"{export.path.name}: {c.GOLDEN_NPZ} contradicts itself: {contradiction}; do not use it, export the bundle again"
        )
    return rows + [_variant_row(export, variant, options) for variant in export.variants.values()]


def _variant_row(export: Export, variant: Variant, options: RunOptions) -> CheckRow:
    """Return the row of a variant in reduced precision: phase and amplitude error in the places of the two figures."""
    feed, reference = stored_patterns(export, variant.graph)
    where = variant.graph, VARIANT_OUTPUT, f"{variant.label} {variant.device}"
    limits = variant.budget
    try:
        session = open_variant_session(variant, options)
    except DeviceUnavailableError as error:
        return CheckRow(*where, np.nan, limits.phase_rad, np.nan, limits.amplitude_rel, not_run=str(error))
    with session:
        found = precision_errors(session.run(feed), reference)
    return CheckRow(*where, found.phase_rad, limits.phase_rad, found.amplitude_rel, limits.amplitude_rel)


def output_row(
    graph: str, name: str, device: str, found: np.ndarray, references: Mapping[str, np.ndarray], allowed: np.ndarray
) -> CheckRow:
    """Return the row of one output.

    Args:
        graph: whose output it is.
        name: of the output.
        device: that computed it; a GPU may err `ON_GPU` times what is allowed.
        found: what it computed.
        references: all outputs of the graph in float64.
        allowed: (largest absolute error, relative L2 error) on a CPU.
    """
    reference = references[name]
    leeway = 1.0 if device == "cpu" else ON_GPU
    limits = leeway * float(allowed[0]), leeway * float(allowed[1])
    if found.shape != reference.shape or not np.isfinite(found).all():
        return CheckRow(
            graph,
            name,
            device,
            np.inf,
            limits[0],
            np.inf,
            limits[1],
            f"{found.shape} with values that are not finite, or of another shape",
        )
    max_abs, rel_l2 = errors(name, found, reference, phase_weight(name, references))
    return CheckRow(graph, name, device, max_abs, limits[0], rel_l2, limits[1])


def raise_unless_passed(rows: list[CheckRow], label: str) -> None:
    """Raise `CheckFailedError` naming the worst output; no rows at all is a failure too."""
    failed = [row for row in rows if not row.passed and not row.not_run]
    if failed or not any(row.passed for row in rows):
        what = "nothing was compared"
        for row in failed[:1]:
            figures = f"max abs {row.max_abs:.2e} (allowed {row.allowed_max_abs:.2e})"
            figures += f", relative L2 {row.rel_l2:.2e} (allowed {row.allowed_rel_l2:.2e})"
            what = f"{row.graph} {row.output} on {row.device}: {row.reason or figures}"
        raise CheckFailedError(f"{label}: this host does not compute what was exported: {what}")
