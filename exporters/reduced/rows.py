"""Variants in the parity report: rows with a budget of their own, and the same proof again on stored files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from exporters.parity.evidence import SpeedPoint
from exporters.parity.inputs import Pool
from exporters.parity.report import ParityReport
from exporters.parity.rows import ParityRow
from exporters.parity.runners import EagerRunner
from exporters.parity.trials import in_chunks
from exporters.reduced.choose import Choice, Way, float16_device
from exporters.reduced.patterns import Patterns
from exporters.stored.open import StoredExports
from ptycho_runtime import contract
from ptycho_runtime.engine.variants import precision_errors
from ptycho_runtime.errors import DeviceUnavailableError
from ptycho_runtime.export.npz import read_npz
from ptycho_runtime.export.precision import Budget, PrecisionErrors, variant_precision
from ptycho_runtime.export.record import StoredVariant
from ptycho_torch.models.module import PtychoModel

FIGURE = "object: phase (rad), amplitude (rel.)"  # in place of an output's max abs and relative L2
INPUTS = "scan, held back"
_REFERENCE_TOLERANCE = 1e-6  # relative L2 of a reference stored in float32
_NAMES = (contract.DIFFRACTION, contract.INPUT_SCALE, contract.OBJECT_REAL, contract.OBJECT_IMAG)


def add_rows(report: ParityReport, choice: Choice) -> None:
    """Add the rows of the variants that were chosen to a report, and what was tried beside them to its evidence."""
    for entry in choice.variants:
        add_row(report, entry, entry.errors)
    stored = {(entry.graph, entry.precision, entry.int8_layers) for entry in choice.variants}
    if report.evidence is not None:
        report.evidence.speeds += [
            SpeedPoint(
                one.way.graph,
                variant_precision(one.way.precision, len(one.way.int8_layers)),
                one.times_as_fast,
                one.errors.phase_rad,
                choice.budget.phase_rad,
                (one.way.graph, one.way.precision, one.way.int8_layers) in stored,
            )
            for one in choice.tried
            if one.times_as_fast is not None and np.isfinite(one.errors.phase_rad)
        ]


def add_row(report: ParityReport, entry: StoredVariant, found: PrecisionErrors | None, reason: str = "") -> None:
    """Add a variant's row to a report.

    Args:
        report: to add to.
        entry: the variant as `exports.json` has it.
        found: what it errs; None where it did not run.
        reason: why it did not.
    """
    precision = variant_precision(entry.precision, len(entry.int8_layers))
    groups = entry.held_back.groups
    device = "cpu" if entry.engine == "openvino" else f"cuda{' emulated' if float16_device() == 'cpu' else ''}"
    row = ParityRow(entry.graph, entry.engine, device, precision, groups, INPUTS, "not run", reason)
    if found is not None:
        budget = entry.budget
        row.verdict = "passed" if budget.allows(found) else "failed"
        share = max(found.phase_rad / budget.phase_rad, found.amplitude_rel / budget.amplitude_rel)
        row.outputs[FIGURE] = {
            "max_abs": found.phase_rad,
            "rel_l2": found.amplitude_rel,
            "allowed_max_abs": budget.phase_rad,
            "allowed_rel_l2": budget.amplitude_rel,
            "share": share,
        }
        row.outputs["object"] = {"amplitude_rel": found.amplitude_rel, "phase_rad": found.phase_rad}
        row.facts = dict(entry.made_on)
        report.notices.append(f"{entry.graph}: {entry.engine} {precision} is judged by a budget of {budget}")
    report.rows.append(row)
    report.planned = (*report.planned, row.cell)


def verify_variants(
    report: ParityReport, exports: StoredExports, model: PtychoModel, budget: Budget | None = None
) -> None:
    """Judge a bundle's stored variants again, against its original weights; add rows and problems to a report.

    Args:
        report: to add to.
        exports: as they are stored.
        model: the eager model of the bundle's weights.
        budget: what they may err, in place of what is stored with them.
    """
    if not exports.variants:
        return
    feed, stored = _patterns(exports.variant_patterns, report.problems)
    if not feed:
        return
    with EagerRunner(model, contract.DIFFRACTION_TO_OBJ, dtype=torch.float64) as eager:
        reference = in_chunks(eager, Pool(feed, [INPUTS] * len(feed[contract.DIFFRACTION])))
    for name, value in reference.items():
        distance = float(np.linalg.norm(stored[name] - value)) / max(float(np.linalg.norm(value)), 1e-300)
        if not distance <= _REFERENCE_TOLERANCE:
            report.problems.append(
                f"{contract.VARIANT_NPZ}: {name} is {distance:.1e} away from what the weights give (relative L2)"
            )
    for entry in exports.variants:
        if entry.held_back.sha256 != Patterns(feed).sha256:
            report.problems.append(
                f"{contract.VARIANT_NPZ} holds other patterns than the variant of {entry.graph} was judged by"
            )
        judged = entry if budget is None else replace(entry, budget=budget)
        middle = contract.centre(model.spec.N) if entry.graph == contract.CENTRE else slice(None)
        wanted = {name: value[..., middle, middle] for name, value in reference.items()}
        try:
            session = Way(entry.graph, entry.precision, exports.variant(entry)).open()
        except DeviceUnavailableError as error:
            add_row(report, judged, None, str(error))
            continue
        with session:
            add_row(report, judged, precision_errors(session.run(feed), wanted))


def _patterns(data: bytes, problems: list[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    try:
        stored = read_npz(data, contract.VARIANT_NPZ)
        arrays = {name: stored[name] for name in _NAMES}
    except (ValueError, KeyError) as error:
        problems.append(f"{contract.VARIANT_NPZ} cannot be read ({error})")
        return {}, {}
    return {name: arrays[name] for name in _NAMES[:2]}, arrays
