"""What is written as `exports.json` is read as the same value; what a stored one says otherwise than the weights do is listed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sample_bundles import members
from shared_exports import TINY

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters import ExportResult  # noqa: E402
from exporters.parity.report import ParityReport  # noqa: E402
from exporters.parity.rows import ParityRow  # noqa: E402
from exporters.stored import exports_json  # noqa: E402
from exporters.stored.open import StoredExports  # noqa: E402
from ptycho_runtime import contract  # noqa: E402
from ptycho_runtime.errors import DamagedExportError  # noqa: E402
from ptycho_runtime.export.parse import parse  # noqa: E402
from ptycho_runtime.export.proof import OBJECT  # noqa: E402
from ptycho_torch.bundle import read_bundle  # noqa: E402

Exported = Callable[[str], ExportResult]


def test_a_record_is_written_and_read_as_the_same_value(exported: Exported) -> None:
    data = members(exported(TINY).bundle)[contract.EXPORTS_JSON]
    record = parse(data, "w.zip")
    assert exports_json.dumps(record) == data
    assert record.positions.sign == -1


def test_what_differs_by_host_or_threads_is_not_stored() -> None:
    figures = {"max_abs": 1e-7, "rel_l2": 2e-7, "allowed_max_abs": 4e-7, "allowed_rel_l2": 4e-7, "share": 0.5}
    outputs = {contract.OBJECT_REAL: figures, OBJECT: {"amplitude_rel": 1e-7, "phase_rad": 1e-7}}
    rows = [
        ParityRow(
            "diffraction_to_obj", runtime, "cpu", "float32", 1, "simulated", "passed", "", dict(outputs), {"threads": 2}
        )
        for runtime in ("numpy", "onnx")
    ]
    numpy, onnx = exports_json.stored_proof(ParityReport("w", rows)).rows
    assert numpy.outputs == {}
    assert onnx.outputs == {contract.OBJECT_REAL: figures}


def test_what_differs_from_the_weights_is_named_by_field(exported: Exported) -> None:
    stored = StoredExports.open(read_bundle(exported(TINY).bundle))
    known = exports_json.conventions(exported(TINY).spec, stored.bundle, "w")
    assert exports_json.differences(stored.record, known, stored.record.params) == []
    lying = replace(
        stored.record,
        input_scale=replace(stored.record.input_scale, value=0.5),
        positions=replace(stored.record.positions, sign=1),
        params={**stored.record.params, "N": 128},
    )
    assert exports_json.differences(lying, known, stored.record.params) == [
        "exports.json: input_scale.value is 0.5; the weights give None",
        "exports.json: positions.sign is 1; the weights give -1",
        "exports.json: params.N is 128; the weights give 64",
    ]


def test_an_onnx_file_that_says_something_else_is_a_problem(exported: Exported) -> None:
    stored = StoredExports.open(read_bundle(exported(TINY).bundle))
    stored.onnx("autoencoder")
    assert stored.problems == []
    counts = replace(stored.record, data=replace(stored.record.data, domain="counts"))
    lying = StoredExports(stored.bundle, counts)
    lying.onnx("autoencoder")
    assert [problem.partition(";")[0] for problem in lying.problems] == [
        "autoencoder/model.onnx: says of itself data_domain = 'amplitude'"
    ]


def test_a_graph_that_is_not_named_though_its_files_are_there(exported: Exported) -> None:
    bundle = read_bundle(exported(TINY).bundle)
    info = json.loads(bundle.read_member(contract.EXPORTS_JSON))
    del info["graphs"]["autoencoder"]
    info["left_out"] = {"autoencoder": "nobody needs it"}
    from ptycho_runtime.export.bundle import refuse_unnamed_graphs

    record = parse(info, "w.zip")
    with pytest.raises(DamagedExportError, match=r"holds autoencoder/model\.onnx, which exports\.json does not name"):
        refuse_unnamed_graphs([name for name, _ in bundle.members], record.graphs, "w.zip")


def test_golden_holds_a_reference_for_each_input(exported: Exported) -> None:
    with np.load(io.BytesIO(members(exported(TINY).bundle)[contract.GOLDEN_NPZ])) as golden:
        groups = {name: len(golden[name]) for name in golden if ".reference." in name or ".input.diffraction" in name}
    assert set(groups.values()) == {3}
