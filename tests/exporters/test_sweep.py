"""What follows the network is proven on objects that the network never gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from sample_bundles import members
from shared_exports import TINY

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters import ExportResult  # noqa: E402
from exporters.graph.graphs import graph_io  # noqa: E402
from exporters.parity.inputs import make_pool  # noqa: E402
from exporters.parity.layers import SCOPES, bisect_graph  # noqa: E402
from exporters.parity.rows import ParityRow  # noqa: E402
from exporters.parity.sweep import sweep_rows  # noqa: E402
from ptycho_runtime import contract  # noqa: E402
from ptycho_torch import load_torch_bundle  # noqa: E402

GRAPH = "autoencoder"


Exported = Callable[[str], ExportResult]


def model_and_file(bundle: Path) -> tuple[Any, bytes]:
    return load_torch_bundle(bundle)[0][GRAPH], members(bundle)[contract.onnx_member(GRAPH)]


@pytest.fixture(scope="module")
def tiny(exported: Exported) -> tuple[Any, bytes]:
    return model_and_file(exported(TINY).bundle)


def swept(model: Any, data: bytes) -> ParityRow:
    (row,) = sweep_rows({GRAPH: model}, {GRAPH: {"onnx": data}}, make_pool(model.spec, 8))
    return row


def producer(file: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in file.graph.node if name in node.output)


def without_left_half(file: onnx.ModelProto) -> None:
    """Give the angle of the mirrored point where the real part is negative."""
    last = producer(file, contract.PHASE)
    inner = producer(file, last.input[2])
    assert producer(file, inner.input[0]).op_type == "Less"
    for node in file.graph.node:
        for place, name in enumerate(node.input):
            if name == inner.output[0]:
                node.input[place] = inner.input[2]


def coarse_amplitude(file: onnx.ModelProto) -> None:
    """Give the amplitude in half precision."""
    node = producer(file, contract.AMPLITUDE)
    node.output[:] = ["whole__"]
    file.graph.node.append(helper.make_node("Cast", ["whole__"], ["half__"], to=onnx.TensorProto.FLOAT16))
    file.graph.node.append(helper.make_node("Cast", ["half__"], [contract.AMPLITUDE], to=onnx.TensorProto.FLOAT))


def on_the_way_in(name: str, op: str, *limits: object) -> Callable[[onnx.ModelProto], None]:
    """Return the fault of a node between an input and everything that reads it."""

    def fault(file: onnx.ModelProto) -> None:
        for node in file.graph.node:
            node.input[:] = ["changed__" if value == name else value for value in node.input]
        names = [f"limit{number}__" for number in range(len(limits))]
        arrays = [np.array(limit, np.int64 if isinstance(limit, list) else np.float32) for limit in limits]
        file.graph.initializer.extend(map(numpy_helper.from_array, arrays, names))
        file.graph.node.insert(0, helper.make_node(op, [name, *names], ["changed__"]))

    return fault


def without_fourth_mode(file: onnx.ModelProto) -> None:
    on_the_way_in(contract.PROBE_REAL, "Slice", [0], [3], [0])(file)
    file.graph.node[0].output[0] = "real__"
    for node in file.graph.node:
        node.input[:] = ["real__" if value == "changed__" else value for value in node.input]
    names = [f"limit{number}__" for number in range(3)]
    for node in file.graph.node:
        node.input[:] = ["imag__" if value == contract.PROBE_IMAG else value for value in node.input]
    file.graph.node.insert(0, helper.make_node("Slice", [contract.PROBE_IMAG, *names], ["imag__"]))


def silent(file: onnx.ModelProto) -> None:
    """Take away what the nodes say of their layers."""
    for node in file.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != SCOPES]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)


def test_a_right_file_passes(tiny: tuple[Any, bytes]) -> None:
    row = swept(*tiny)
    assert row.verdict == "passed", row
    assert set(row.outputs) == {"predicted_diffraction", "amplitude", "phase"}
    assert max(figures["share"] for figures in row.outputs.values()) < 0.7


@pytest.mark.parametrize(
    ("bundle", "fault", "output"),
    [
        (TINY, without_left_half, "phase"),
        (TINY, coarse_amplitude, "amplitude"),
        (TINY, without_fourth_mode, contract.PREDICTED),
        # The tiny one's patches stay where they are.
        ("cnn-2026-07-n64-g1-demo", on_the_way_in(contract.POSITIONS, "Clip", -20.0, 20.0), contract.PREDICTED),
        (TINY, on_the_way_in(contract.OUTPUT_SCALE, "Min", 2.0), contract.PREDICTED),
        (TINY, on_the_way_in(contract.OUTPUT_SCALE, "Max", 1e-3), contract.PREDICTED),
    ],
)
def test_a_fault_where_the_network_never_goes_is_found(
    exported: Exported, bundle: str, fault: Callable[[onnx.ModelProto], None], output: str
) -> None:
    model, data = model_and_file(exported(bundle).bundle)
    file = onnx.load_from_string(data)
    fault(file)
    row = swept(model, file.SerializeToString())
    assert row.verdict == "failed"
    assert row.worst()[0] == output
    assert row.worst()[1] > 100.0


@pytest.mark.parametrize("entry", [(3, 30), (40, 33), (0, 32)])
def test_one_entry_of_a_fourier_matrix_that_is_a_thousandth_off_is_found(
    tiny: tuple[Any, bytes], entry: tuple[int, int]
) -> None:
    model, data = tiny
    file = onnx.load_from_string(data)
    (tensor,) = (tensor for tensor in file.graph.initializer if tensor.name == "physics.fourier_cos")
    values = numpy_helper.to_array(tensor).copy()
    values[entry] += 1e-3 * abs(values).max()
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    row = swept(model, file.SerializeToString())
    assert row.verdict == "failed"
    assert row.worst()[0] == contract.PREDICTED
    assert row.worst()[1] > 2.0


def test_a_file_that_hides_where_its_network_ends_fails(tiny: tuple[Any, bytes]) -> None:
    model, data = tiny
    file = onnx.load_from_string(data)
    silent(file)
    row = swept(model, file.SerializeToString())
    assert (row.verdict, row.reason) == (
        "failed",
        "it cannot be cut where its network ends (its network hands out 0 values; expected 2)",
    )


@pytest.mark.parametrize(
    ("weight", "layer"),
    [
        ("physics.fourier_cos", "physics.far_field"),
        (".shared_spectral.x.mixing", "network.ffno_stack.blocks.0.shared_spectral"),
    ],
)
def test_the_layer_that_is_wrong_is_named(tiny: tuple[Any, bytes], weight: str, layer: str) -> None:
    """In the physics too, and where blocks share their spectral weights: not the norm that follows."""
    model, data = tiny
    file = onnx.load_from_string(data)
    (tensor,) = (tensor for tensor in file.graph.initializer if tensor.name.endswith(weight))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.01, tensor.name))
    pool = make_pool(model.spec, 8).only({info["name"] for info in graph_io(model.spec, GRAPH)[0]})
    found = bisect_graph(model, GRAPH, file.SerializeToString(), pool, 3)
    assert found.first is not None
    assert found.first.layer == layer
    assert found.first.share > 100.0
