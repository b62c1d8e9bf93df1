"""The parity verdict repeated on this host: one that computes something else is told."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from sample_bundles import changed, members

from ptycho_runtime import CheckFailedError, RunOptions, contract, open_export
from ptycho_runtime.check import check_host
from ptycho_runtime.engine.judging import output_row, raise_unless_passed
from ptycho_runtime.errors import DamagedExportError

CPU = RunOptions("cpu")


def test_this_host_computes_what_was_exported(demo: Path) -> None:
    rows = check_host(open_export(demo), CPU)
    assert {(row.graph, row.output) for row in rows} == {
        ("diffraction_to_obj", "object_real"), ("diffraction_to_obj", "object_imag"),
        (contract.CENTRE, "object_real"), (contract.CENTRE, "object_imag"),
        ("autoencoder", "predicted_diffraction"), ("autoencoder", "amplitude"), ("autoencoder", "phase"),
    }  # fmt: skip
    raise_unless_passed(rows, "demo")


def with_golden(demo: Path, path: Path, factors: dict[str, float]) -> Path:
    """Return a copy of an export in whose golden reference some arrays are multiplied."""
    stored = members(demo)
    with np.load(io.BytesIO(stored[contract.GOLDEN_NPZ])) as data:
        arrays = dict(data)
    for name, factor in factors.items():
        arrays[name] *= factor
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    info = json.loads(stored[contract.EXPORTS_JSON])
    info["golden"] |= {"sha256": hashlib.sha256(buffer.getvalue()).hexdigest(), "size_bytes": len(buffer.getvalue())}
    return changed(
        demo, path, {contract.GOLDEN_NPZ: buffer.getvalue(), contract.EXPORTS_JSON: json.dumps(info).encode()}
    )


@pytest.mark.parametrize(("device", "passes"), [("cpu", False), ("cuda", True), ("tensorrt", True)])
def test_a_gpu_may_err_twice_as_much(device: str, passes: bool) -> None:
    reference = {"object_real": np.ones((1, 1))}
    found = np.full((1, 1), 1.0 + 1.5e-6, np.float32)
    row = output_row("diffraction_to_obj", "object_real", device, found, reference, np.array([1e-6, 1e-6]))
    assert row.passed is passes


def test_other_reference_fails_and_names_the_figure(demo: Path, tmp_path: Path) -> None:
    path = with_golden(demo, tmp_path / "w.zip", {"autoencoder.reference.predicted_diffraction": 1 + 1e-3})
    rows = check_host(open_export(path), CPU)
    with pytest.raises(
        CheckFailedError,
        match=r"autoencoder predicted_diffraction on cpu: max abs .* relative L2 (1\.0\d|9\.9\d)e-0[34] \(allowed",
    ):
        raise_unless_passed(rows, "w.zip")


def test_a_wrong_reference_of_one_graph_is_a_figure_first(demo: Path, tmp_path: Path) -> None:
    path = with_golden(demo, tmp_path / "w.zip", {"diffraction_to_obj.reference.object_real": 2.0})
    with pytest.raises(
        CheckFailedError, match=r"w\.zip: this host does not compute .*: diffraction_to_obj object_real"
    ):
        raise_unless_passed(check_host(open_export(path), CPU), "w.zip")


def test_references_that_agree_with_this_host_and_not_with_each_other(demo: Path, tmp_path: Path) -> None:
    forged = {f"diffraction_to_obj.reference.{name}": 1 + 1e-8 for name in (contract.OBJECT_REAL, contract.OBJECT_IMAG)}
    with pytest.raises(
        DamagedExportError, match=r"golden\.npz contradicts itself: the object of .* is 1\.0e-08 away from that of"
    ):
        check_host(open_export(with_golden(demo, tmp_path / "w.zip", forged)), CPU)


def test_nothing_compared_is_no_pass() -> None:
    with pytest.raises(CheckFailedError, match="nothing was compared"):
        raise_unless_passed([], "x")
