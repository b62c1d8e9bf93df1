"""What a session computes of the stored inputs, against the stored float64 reference: one rule for every engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.engine.batching import checked, cut, joined
from ptycho_runtime.engine.session import Session
from ptycho_runtime.errors import CheckFailedError, DamagedExportError
from ptycho_runtime.metrics import ON_GPU, errors, phase_weight


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
    engine: str = "onnxruntime"
    runs: bool = True  # as things stand, a reconstruction here runs it; a row of what does not run decides nothing

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


def judged(session: Session, graph: str, golden: Mapping[str, np.ndarray], label: str) -> list[CheckRow]:
    """Return a row for each output of a graph, run in batches of the size that the session was opened for.

    Args:
        session: of the graph.
        graph: its name.
        golden: the export's `golden.npz` by array name.
        label: names the export.

    Raises `DamagedExportError` where arrays are missing.
    """
    try:
        feed = {name: golden[f"{graph}.input.{name}"] for name in session.inputs}
        wanted = {name: golden[f"{graph}.reference.{name}"] for name in session.outputs}
        allowed = {name: golden[f"{graph}.allowed.{name}"] for name in session.outputs}
    except KeyError as error:
        raise DamagedExportError(f"{label}: {contract.GOLDEN_NPZ} lacks {error}; export the bundle again") from error
    feed, count = checked(session.inputs, feed)
    groups = session.options.groups
    # Engines choose their kernels by the size of a run, so what is judged is a run as large as those to come.
    found: list[dict[str, np.ndarray]] = []
    for first in range(0, count, groups):
        stop = min(first + groups, count)
        outputs = session.run(cut(session.inputs, feed, first, stop, groups))
        found.append({name: values[: stop - first] for name, values in outputs.items()})
    outputs = joined(found)
    return [
        replace(output_row(graph, name, session.device, outputs[name], wanted, allowed[name]), engine=session.engine)
        for name in wanted
    ]


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
        reason = f"{found.shape} with values that are not finite, or of another shape"
        return CheckRow(graph, name, device, np.inf, limits[0], np.inf, limits[1], reason)
    max_abs, rel_l2 = errors(name, found, reference, phase_weight(name, references))
    return CheckRow(graph, name, device, max_abs, limits[0], rel_l2, limits[1])


def raise_unless_passed(rows: list[CheckRow], label: str) -> None:
    """Raise `CheckFailedError` naming the worst output of what runs here; no rows at all is a failure too."""
    failed = [row for row in rows if row.runs and not row.passed and not row.not_run]
    if failed or not any(row.passed for row in rows):
        what = "nothing was compared"
        for row in failed[:1]:
            figures = f"max abs {row.max_abs:.2e} (allowed {row.allowed_max_abs:.2e})"
            figures += f", relative L2 {row.rel_l2:.2e} (allowed {row.allowed_rel_l2:.2e})"
            where = row.device if row.engine == "onnxruntime" else f"{row.device} under {row.engine}"
            what = f"{row.graph} {row.output} on {where}: {row.reason or figures}"
        raise CheckFailedError(f"{label}: this host does not compute what was exported: {what}")
