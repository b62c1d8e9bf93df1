"""PtychoPINN's own numbers beside this project's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_bundles import bundle_path, golden

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters.parity.against import RUNTIME, against_rows  # noqa: E402
from ptycho_torch import load_torch_bundle  # noqa: E402
from ptycho_torch.errors import BundleError  # noqa: E402

NAME = "ffno-2026-07-n64-g1"
# The ONNX rows beside them are of the files; here there are none.
NO_FILES = {"diffraction_to_obj": {"onnx": b""}, "autoencoder": {"onnx": b""}}


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return load_torch_bundle(bundle_path(NAME))[0]


def verdicts(models: dict[str, Any], path: Path, **arrays: np.ndarray) -> dict[str, tuple[str, list[str]]]:
    np.savez(path, **arrays)
    rows = [row for row in against_rows(models, NO_FILES, path) if row.runtime == RUNTIME]
    return {row.graph: (row.verdict, [n for n, f in row.outputs.items() if f["share"] > 1.0]) for row in rows}


def test_ptychopinns_own_numbers_pass(models: dict[str, Any], tmp_path: Path) -> None:
    found = verdicts(models, tmp_path / "theirs.npz", **golden(NAME))
    assert found == {"diffraction_to_obj": ("passed", []), "autoencoder": ("passed", [])}


@pytest.mark.parametrize(
    ("name", "graph", "output"),
    [
        ("object_patches", "diffraction_to_obj", "object_imag"),
        ("pred_diffraction", "autoencoder", "predicted_diffraction"),
        ("amp", "autoencoder", "amplitude"),
        ("phase", "autoencoder", "phase"),
    ],
)
def test_numbers_that_are_off_by_a_few_parts_in_a_hundred_thousand_fail(
    models: dict[str, Any], tmp_path: Path, name: str, graph: str, output: str
) -> None:
    arrays = golden(NAME)
    found = verdicts(models, tmp_path / "theirs.npz", **{**arrays, name: arrays[name] * np.float32(1 + 4e-5)})
    assert found[graph][0] == "failed"
    assert output in found[graph][1]


def test_pairs_of_patterns_and_patches_are_enough(models: dict[str, Any], tmp_path: Path) -> None:
    pair = {name: golden(NAME)[name] for name in ("x", "input_scale_factor", "object_patches")}
    assert verdicts(models, tmp_path / "theirs.npz", **pair) == {"diffraction_to_obj": ("passed", [])}


def without(name: str) -> Callable[[dict[str, np.ndarray]], Any]:
    return lambda arrays: arrays.pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("positions"), "lacks positions, without which"),
        (lambda a: a.update(x=a["x"][:, :, :32]), "diffraction has shape"),
        (lambda a: a.update(experiment_ids=np.full(len(a["x"]), 3)), "experiment_ids are no numbers from 0 to 0"),
        (lambda a: a.update(amp=np.full_like(a["amp"], np.nan)), "amp holds float32 or values that are not finite"),
        (lambda a: [a.pop(n) for n in ("object_patches", "pred_diffraction", "amp", "phase")], "holds no outputs"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    models: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, np.ndarray]], Any], message: str
) -> None:
    arrays = golden(NAME)
    change(arrays)
    with pytest.raises(BundleError, match=message):
        verdicts(models, tmp_path / "theirs.npz", **arrays)


def test_what_is_no_npz_is_refused(models: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(BundleError, match="cannot be read as NPZ"):
        against_rows(models, NO_FILES, tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match="expected an NPZ of PtychoPINN's own outputs"):
        against_rows(models, NO_FILES, tmp_path / "b.npz")
