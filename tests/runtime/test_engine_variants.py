"""Reduced precision runs only where its budget is kept here and now."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ptycho_runtime
from ptycho_runtime import contract
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.engine.session import BaseSession, Session
from ptycho_runtime.engine.variants import OpenedVariant, open_variant, precision_errors, refuse_beyond
from ptycho_runtime.errors import ReconstructionError, VariantRefusedError
from ptycho_runtime.export.precision import Budget, PrecisionErrors, Variant
from ptycho_runtime.image.core import Graphs
from ptycho_runtime.image.reconstruct import reconstruct
from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import read_scan

SCAN = Path(__file__).parents[2] / "examples" / "demo" / "scan.npz"
PART = ReadOptions(rows=(100, 180))
BUDGET = Budget(0.01, 0.01)


@pytest.mark.parametrize(
    ("text", "phase_rad", "amplitude_rel"),
    [
        ("phase=0.01rad,amp=1%", 0.01, 0.01),
        ("amp=0.5%, phase=3mrad", 0.003, 0.005),
        ("phase=1e-2rad,amp=2e-1%", 0.01, 0.002),
    ],
)
def test_budget_is_read_with_its_units(text: str, phase_rad: float, amplitude_rel: float) -> None:
    found = Budget.parse(text)
    assert math.isclose(found.phase_rad, phase_rad)
    assert math.isclose(found.amplitude_rel, amplitude_rel)


@pytest.mark.parametrize(
    "text",
    ["", "phase=0.01rad", "amp=1%", "phase=0.01,amp=1%", "phase=0.01rad,amp=0.01", "phase=1%,amp=1%", "phase=0rad,amp=1%",
     "phase=0.01rad,amp=1%,amp=2%", "phase=-1rad,amp=1%", "phase=nanrad,amp=1%", "phase=1.2.3rad,amp=1%",
     "phase=.rad,amp=1%", "phase=1degree,amp=1%"],
)  # fmt: skip
def test_budget_that_leaves_something_open_is_refused(text: str) -> None:
    with pytest.raises(ReconstructionError, match=r"expected such as phase=0\.01rad,amp=1%"):
        Budget.parse(text)


def test_budget_holds_both_figures() -> None:
    assert BUDGET.allows(PrecisionErrors(0.01, 0.01))
    assert not BUDGET.allows(PrecisionErrors(0.011, 0.0))
    assert not BUDGET.allows(PrecisionErrors(0.0, 0.011))
    assert not BUDGET.allows(PrecisionErrors(float("nan"), 0.0))


def field(phase_rad: float, amplitude: float = 1.0) -> dict[str, np.ndarray]:
    values = amplitude * np.exp(1j * np.full((2, 1, 8, 8), phase_rad))
    return {contract.OBJECT_REAL: values.real, contract.OBJECT_IMAG: values.imag}


def test_errors_are_of_phase_and_of_amplitude() -> None:
    found = precision_errors(field(0.32, 1.05), field(0.3))
    assert math.isclose(found.phase_rad, 0.02, rel_tol=1e-9)
    assert math.isclose(found.amplitude_rel, 0.05, rel_tol=1e-9)


def test_phase_error_does_not_jump_by_a_turn() -> None:
    assert precision_errors(field(math.pi - 0.001), field(-math.pi + 0.001)).phase_rad < 0.0021


def test_values_that_are_not_finite_err_infinitely() -> None:
    broken = field(0.3)
    broken[contract.OBJECT_REAL][0, 0, 0, 0] = np.nan
    assert not Budget(1e9, 1e9).allows(precision_errors(broken, field(0.3)))


class Turned(BaseSession):
    """A session in "reduced precision" that turns the phase of what another one gives."""

    engine, device = "openvino", "cpu"

    def __init__(self, session: Session, by_rad: float) -> None:
        self.session, self.by_rad = session, by_rad
        self.inputs, self.outputs = session.inputs, session.outputs
        self.groups = 0

    def facts(self) -> dict[str, Any]:
        return self.session.facts()

    def close(self) -> None:
        self.session.close()

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.groups += len(feed[contract.DIFFRACTION])
        found = self.session.run(feed)
        turned = (found[contract.OBJECT_REAL] + 1j * found[contract.OBJECT_IMAG]) * np.exp(1j * self.by_rad)
        return {
            contract.OBJECT_REAL: turned.real.astype(np.float32),
            contract.OBJECT_IMAG: turned.imag.astype(np.float32),
        }


def turned(model: ptycho_runtime.Reconstructor, by_rad: float) -> OpenedVariant:
    variant = Variant(contract.CENTRE, b"", "openvino", "bfloat16", (), BUDGET, PrecisionErrors(0.005, 0.005))
    assert model.centre is not None
    return OpenedVariant(variant, Turned(model.centre, by_rad))


def test_variant_within_its_budget_on_the_scan_is_used_and_said(demo: Path) -> None:
    model = ptycho_runtime.open(demo, "cpu")
    opened = turned(model, 0.005)
    assert model.centre is not None
    result = reconstruct(model.export, Graphs(model.centre, variant=opened), read_scan(SCAN, 64, PART))
    assert opened.session.groups == 80 + 16
    assert result.note.startswith("openvino bfloat16; on 16 groups of this scan it errs phase 0.005 rad")


def test_variant_beyond_its_budget_on_the_scan_gives_way_to_float32(demo: Path) -> None:
    model = ptycho_runtime.open(demo, "cpu")
    opened = turned(model, 0.02)
    assert model.centre is not None
    scan = read_scan(SCAN, 64, PART)
    result = reconstruct(model.export, Graphs(model.centre, variant=opened), scan)
    assert opened.session.groups == 16
    assert "float32 in place of reduced precision: openvino bfloat16 errs phase 0.02 rad" in result.note
    plain = reconstruct(model.export, Graphs(model.centre), scan)
    assert np.array_equal(result.object, plain.object)


def test_refusal_names_error_budget_and_patterns(demo: Path) -> None:
    model = ptycho_runtime.open(demo, "cpu")
    assert model.centre is not None
    feed = {
        contract.DIFFRACTION: np.ones((2, 1, 64, 64), np.float32),
        contract.INPUT_SCALE: np.full((2, 1, 1, 1), 0.1, np.float32),
    }
    with pytest.raises(
        VariantRefusedError, match=r"errs phase 0\.03 rad, .* on these; its budget is phase 0\.01 rad, amplitude 1 %"
    ):
        refuse_beyond(turned(model, 0.03), feed, model.centre.run(feed), "these")


def test_export_without_a_variant_runs_in_float32_and_says_so(demo: Path) -> None:
    model = ptycho_runtime.open(demo, "cpu", precision="auto")
    opened, note = model.variant()
    assert opened is None
    assert note == (
        f"float32 in place of reduced precision: {demo.name}: has no variant in reduced precision for cpu; export the bundle with --precision auto"
    )
    patterns = np.ones((2, 64, 64), np.float32)
    assert np.array_equal(model.predict(patterns), ptycho_runtime.open(demo, "cpu").predict(patterns))


def test_reduced_precision_compares_patterns_with_probe_and_object(demo: Path) -> None:
    scan = read_scan(SCAN, 64)
    found = ptycho_runtime.open(demo, "cpu", precision="auto").reconstruct(scan)
    residual, positions_px = found.trust.scores.stitched_residual, scan.positions_px
    # Near the rim of the scan a probe may reach beyond the object: there nothing can be compared.
    to_rim_px = np.minimum(positions_px - positions_px.min(0), positions_px.max(0) - positions_px).min(1)
    assert np.isfinite(residual[to_rim_px > 6]).all()
    assert np.isfinite(residual).mean() > 0.9
    assert np.isnan(found.trust.scores.residual).all()
    assert found.trust.verdict == "trusted"


def test_unknown_precision_is_refused(demo: Path) -> None:
    with pytest.raises(ReconstructionError, match="precision 'float16'; expected float32 or auto"):
        ptycho_runtime.open(demo, "cpu", precision="float16")


def test_variant_for_a_gpu_is_another_one(demo: Path) -> None:
    model = ptycho_runtime.open(demo, "cpu", precision="auto")
    model.options = RunOptions("cuda", precision="auto")
    assert (
        "has no variant in reduced precision for cuda; export the bundle with --precision float16" in model.variant()[1]
    )


def test_host_without_openvino_says_what_to_install(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ptycho_runtime.open(demo, "cpu", precision="auto")
    variant = Variant(
        "diffraction_to_obj",
        model.export.graphs["diffraction_to_obj"],
        "openvino",
        "float32",
        (),
        BUDGET,
        PrecisionErrors(0, 0),
    )
    model.export = replace(model.export, variants={("diffraction_to_obj", "cpu"): variant})
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert model.variant()[1].endswith("OpenVINO is not installed; pip install 'ptycho-export[openvino]' brings it")


def test_stored_patterns_decide_on_this_host(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    export = ptycho_runtime.open_export(demo)
    graph = "diffraction_to_obj"
    variant = Variant(graph, export.graphs[graph], "openvino", "float32", (), BUDGET, PrecisionErrors(1e-6, 1e-6))
    feed = {
        contract.DIFFRACTION: np.ones((3, 1, 64, 64), np.float32),
        contract.INPUT_SCALE: np.full((3, 1, 1, 1), 0.1, np.float32),
    }
    right = ptycho_runtime.open(demo, "cpu").patches.run(feed)
    stored = replace(export, variants={(graph, "cpu"): variant})
    patterns: dict[str, np.ndarray] = feed | right
    monkeypatch.setattr(type(stored), "variant_patterns", lambda self: patterns)
    for by, fits in ((1.0, True), (np.exp(0.1j), False)):
        turned_ = (right[contract.OBJECT_REAL] + 1j * right[contract.OBJECT_IMAG]) * by
        patterns |= {contract.OBJECT_REAL: turned_.real, contract.OBJECT_IMAG: turned_.imag}
        if fits:
            assert open_variant(stored, graph, RunOptions("cpu")).session.engine == "openvino"
            continue
        with pytest.raises(VariantRefusedError, match="on the patterns stored with it"):
            open_variant(stored, graph, RunOptions("cpu"))
