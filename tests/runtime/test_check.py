"""The parity verdict repeated on this host: one that computes something else is told."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from sample_bundles import changed, members

from ptycho_runtime import CheckFailedError, RunOptions, open_export
from ptycho_runtime import contract as c
from ptycho_runtime.check import check_host, raise_unless_passed

CPU = RunOptions("cpu")


def test_this_host_computes_what_was_exported(demo: Path) -> None:
    rows = check_host(open_export(demo), CPU)
    assert {(row.graph, row.output) for row in rows} == {
        ("diffraction_to_obj", "object_real"), ("diffraction_to_obj", "object_imag"),
        (c.CENTRE, "object_real"), (c.CENTRE, "object_imag"),
        ("autoencoder", "predicted_diffraction"), ("autoencoder", "amplitude"), ("autoencoder", "phase"),
    }  # fmt: skip
    raise_unless_passed(rows, "demo")


def test_other_reference_fails_and_names_the_figure(demo: Path, tmp_path: Path) -> None:
    stored = members(demo)
    with np.load(io.BytesIO(stored[c.GOLDEN_NPZ])) as data:
        arrays = dict(data)
    arrays["autoencoder.reference.predicted_diffraction"] *= 1 + 1e-3
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    info = json.loads(stored[c.EXPORTS_JSON])
    info["golden"] |= {"sha256": hashlib.sha256(buffer.getvalue()).hexdigest(), "size_bytes": len(buffer.getvalue())}
    new = {c.GOLDEN_NPZ: buffer.getvalue(), c.EXPORTS_JSON: json.dumps(info).encode()}
    rows = check_host(open_export(changed(demo, tmp_path / "w.zip", new)), CPU)
    with pytest.raises(
        CheckFailedError,
        match=r"autoencoder predicted_diffraction on cpu: max abs .* relative L2 (1\.0\d|9\.9\d)e-0[34] \(allowed",
    ):
        raise_unless_passed(rows, "w.zip")


def test_nothing_compared_is_no_pass() -> None:
    with pytest.raises(CheckFailedError, match="nothing was compared"):
        raise_unless_passed([], "x")
