"""What is prepared once judges any number of files, and none of them changes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sample_bundles import members
from shared_exports import TINY
from tampering import with_flipped_weight

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters import ExportResult  # noqa: E402
from exporters.parity.matrix import judge_files, run_parity  # noqa: E402
from exporters.parity.prepare import Prepared, prepare, telling_batches  # noqa: E402
from ptycho_runtime import contract  # noqa: E402
from ptycho_torch import load_torch_bundle  # noqa: E402

Files = dict[str, dict[str, bytes]]


@pytest.fixture(scope="module")
def made(exported: Callable[[str], ExportResult]) -> tuple[dict[str, Any], Files, Prepared]:
    bundle = exported(TINY).bundle
    models, stored = load_torch_bundle(bundle)[0], members(bundle)
    files = {
        graph: {"onnx": stored[contract.onnx_member(graph)], "torchscript": stored[contract.torchscript_member(graph)]}
        for graph in contract.GRAPHS
    }
    return models, files, prepare(models, models[contract.AUTOENCODER].spec, telling_batches((1,)))


def test_files_are_judged_as_if_they_came_alone(made: tuple[dict[str, Any], Files, Prepared]) -> None:
    models, files, prepared = made
    graph = contract.DIFFRACTION_TO_OBJ
    bad = {**files, graph: {**files[graph], "onnx": with_flipped_weight(files[graph]["onnx"])}}
    assert not judge_files(prepared, bad, devices=("cpu",)).passed
    found = judge_files(prepared, files, devices=("cpu",))
    wanted = run_parity(models, prepared.spec, files, batches=(1,), devices=("cpu",))
    assert found.passed
    assert [(row.cell, row.verdict, row.outputs) for row in found.rows] == [
        (row.cell, row.verdict, row.outputs) for row in wanted.rows
    ]
    assert found.reference == wanted.reference


def test_graphs_without_files_are_no_part_of_the_report(made: tuple[dict[str, Any], Files, Prepared]) -> None:
    _, files, prepared = made
    report = judge_files(prepared, {contract.AUTOENCODER: files[contract.AUTOENCODER]}, devices=("cpu",))
    assert report.passed
    assert {row.graph for row in report.rows} == {contract.AUTOENCODER}
