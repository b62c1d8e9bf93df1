"""A model repository: Triton's own schema reads its configuration, which says of the graph what the ONNX file says."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from shared_exports import TINY

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
onnx = pytest.importorskip("onnx")

from exporters import ExportResult  # noqa: E402
from exporters.stored import triton  # noqa: E402
from ptycho_runtime import contract  # noqa: E402
from ptycho_runtime.errors import NotExportedError, OutputError  # noqa: E402
from ptycho_runtime.export.bundle import Export, open_export  # noqa: E402
from ptycho_runtime.export.onnx_file import CheckedModel  # noqa: E402

GRAPH = contract.DIFFRACTION_TO_OBJ


@pytest.fixture(scope="module")
def export(exported: Callable[[str], ExportResult]) -> Export:
    return open_export(exported(TINY).bundle)


@pytest.fixture(scope="module")
def schema() -> ModuleType:
    """Return tritonclient's schema; its package around it wants gRPC, which a schema does not need."""
    package = importlib.util.find_spec("tritonclient")
    if package is None or not package.submodule_search_locations:
        pytest.skip("tritonclient is not installed")
    path = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("triton_model_config_pb2", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:Protobuf gencode version")
def test_tritons_own_schema_reads_what_the_graph_says(export: Export, schema: ModuleType, tmp_path: Path) -> None:
    from google.protobuf import text_format

    assert triton.write_repository(export, tmp_path) == (triton.ServedModel(tmp_path / GRAPH, 1, True),)
    config = text_format.Parse((tmp_path / GRAPH / "config.pbtxt").read_text(), schema.ModelConfig())
    stored = tmp_path / GRAPH / "1" / "model.onnx"
    graph = onnx.load(stored).graph
    kinds = {onnx.TensorProto.FLOAT: schema.DataType.TYPE_FP32, onnx.TensorProto.INT64: schema.DataType.TYPE_INT64}
    for told, values in ((config.input, graph.input), (config.output, graph.output)):
        assert [tensor.name for tensor in told] == [value.name for value in values]
        for tensor, value in zip(told, values, strict=True):
            batch, *sizes = value.type.tensor_type.shape.dim
            assert batch.dim_param == "batch"
            assert list(tensor.dims) == [size.dim_value for size in sizes]
            assert tensor.data_type == kinds[value.type.tensor_type.elem_type]
    assert (config.name, config.backend, config.default_model_filename) == (GRAPH, "onnxruntime", stored.name)
    assert list(config.version_policy.specific.versions) == [1]
    assert config.HasField("dynamic_batching")
    proven = [
        row.batch
        for row in export.record.parity.rows
        if (row.graph, row.runtime, row.verdict) == (GRAPH, "onnx", "passed")
    ]
    assert config.max_batch_size == max(proven) > 1
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    known = {f"ptycho_export.{key}": value for key, value in export.record.metadata(GRAPH).items()}
    assert known.items() <= parameters.items()
    assert parameters["ptycho_export.triton"] == "not run under Triton"


def test_text_of_any_kind_is_read_back(schema: ModuleType) -> None:
    from google.protobuf import text_format

    text = 'a "name" with \\ and\nnew lines, ö and \x01'
    found = text_format.Parse(f"name: {triton._quoted(text)}", schema.ModelConfig())
    assert found.name == text


def test_what_is_there_stays_and_what_is_new_is_the_next_version(export: Export, tmp_path: Path) -> None:
    triton.write_repository(export, tmp_path)
    before = (tmp_path / GRAPH / "config.pbtxt").read_bytes()
    assert triton.write_repository(export, tmp_path) == (triton.ServedModel(tmp_path / GRAPH, 1, False),)
    assert (tmp_path / GRAPH / "config.pbtxt").read_bytes() == before
    model = onnx.load_from_string(export.graphs[GRAPH])
    model.producer_name = "another"
    other = replace(export, graphs={GRAPH: CheckedModel(model.SerializeToString())})
    assert triton.write_repository(other, tmp_path) == (triton.ServedModel(tmp_path / GRAPH, 2, True),)
    assert "specific { versions: [ 2 ] }" in (tmp_path / GRAPH / "config.pbtxt").read_text()
    assert (tmp_path / GRAPH / "1" / "model.onnx").read_bytes() == export.graphs[GRAPH]


def test_a_model_of_others_is_not_touched(export: Export, tmp_path: Path) -> None:
    theirs = tmp_path / GRAPH / "config.pbtxt"
    theirs.parent.mkdir()
    theirs.write_text('name: "theirs"\n')
    with pytest.raises(
        OutputError, match="diffraction_to_obj: is there already, and ptycho-export did not write it; give another"
    ):
        triton.write_repository(export, tmp_path)
    theirs.rename(theirs.with_name("weights.plan"))
    with pytest.raises(OutputError, match="ptycho-export did not write it"):
        triton.write_repository(export, tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["weights.plan"]


def test_a_bare_file_has_no_proof_to_go_by(export: Export, tmp_path: Path) -> None:
    with pytest.raises(NotExportedError, match=r"has no exports\.json; give the bundle and not one of its files"):
        triton.write_repository(replace(export, record=None), tmp_path)
