"""Each layer by itself: a fault shows that no output of the network shows, and the layer is named, in both formats."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from sample_bundles import members
from shared_exports import TINY

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters import ExportResult  # noqa: E402
from exporters.formats.torchscript import export_torchscript  # noqa: E402
from exporters.formats.torchscript_run import StoredTorchScript  # noqa: E402
from exporters.graph.graphs import PatchGraph, build_graph, graph_io  # noqa: E402
from exporters.graph.physics import RealPhysics  # noqa: E402
from exporters.parity.alone import ONNX, SCRIPT, Alone, Tried, alone_rows, middle  # noqa: E402
from exporters.parity.inputs import Pool, make_pool  # noqa: E402
from exporters.parity.layers import SCOPES  # noqa: E402
from exporters.parity.rows import ParityRow  # noqa: E402
from exporters.parity.script_steps import script_steps  # noqa: E402
from exporters.stored.torchscript import whereabouts  # noqa: E402
from ptycho_runtime import contract  # noqa: E402
from ptycho_torch import load_torch_bundle  # noqa: E402
from ptycho_torch.models.module import PtychoModel  # noqa: E402

GRAPH = "diffraction_to_obj"
Made = tuple[PtychoModel, dict[str, bytes], Pool]
Fault = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def made(exported: Callable[[str], ExportResult]) -> Made:
    """Return a small network with GELU, spectral filters and norms, its two files, and inputs."""
    bundle = exported(TINY).bundle
    stored = members(bundle)
    files = {"onnx": stored[contract.onnx_member(GRAPH)], "torchscript": stored[contract.torchscript_member(GRAPH)]}
    model = load_torch_bundle(bundle)[0][GRAPH]
    return model, files, make_pool(model.spec, 5)


def tried(made: Made, **files: bytes) -> dict[str, Tried]:
    model, own, pool = made
    return {one.row.runtime: one for one in alone_rows({GRAPH: Alone(model, pool)}, {GRAPH: {**own, **files}})}


def with_fault(made: Made, fault: Fault) -> Tried:
    file = onnx.load_from_string(made[1]["onnx"])
    fault(file)
    return tried(made, onnx=file.SerializeToString())[ONNX]


def first_erf(file: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in file.graph.node if node.op_type in ("Erf", "Gelu"))


def gelu_without_its_left_end(file: onnx.ModelProto) -> None:
    """Give −1 below −4, where GELU is as good as nothing and ordinary patterns never go."""
    node = first_erf(file)
    (source,) = node.input
    limit = numpy_helper.from_array(np.array(-2.0, np.float32), "limit__")
    file.graph.initializer.append(limit)
    clipped = helper.make_node("Max", [source, "limit__"], ["clipped__"])
    clipped.metadata_props.extend(node.metadata_props)
    node.input[0] = "clipped__"
    file.graph.node.insert(list(file.graph.node).index(node), clipped)


def highest_frequency_dropped(file: onnx.ModelProto) -> None:
    """Set one spectral weight of one block to zero."""
    tensor = next(t for t in file.graph.initializer if t.name.endswith("mixing"))
    values = numpy_helper.to_array(tensor).copy()
    values[-1, 0, 0] = 0.0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def one_weight_by_five_percent_of_the_largest(file: onnx.ModelProto) -> None:
    tensor = next(t for t in file.graph.initializer if t.name.endswith("lifter.conv2.weight"))
    values = numpy_helper.to_array(tensor).copy()
    values[3, 2, 1, 1] += 0.05 * np.abs(values).max()
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def on_the_way_in(op: str, limit: float) -> Fault:
    """Return the fault of a node between the patterns and everything that reads them."""

    def fault(file: onnx.ModelProto) -> None:
        for node in file.graph.node:
            node.input[:] = ["changed__" if name == contract.DIFFRACTION else name for name in node.input]
        file.graph.initializer.append(numpy_helper.from_array(np.array(limit, np.float32), "limit__"))
        file.graph.node.insert(0, helper.make_node(op, [contract.DIFFRACTION, "limit__"], ["changed__"]))

    return fault


def without_faint_pixels(file: onnx.ModelProto) -> None:
    """Set pixels below 1e-3 to zero: square roots of photons are none such."""
    on_the_way_in("GreaterOrEqual", 1e-3)(file)
    file.graph.node[0].output[0] = "kept__"
    file.graph.node.insert(1, helper.make_node("Cast", ["kept__"], ["one__"], to=onnx.TensorProto.FLOAT))
    file.graph.node.insert(2, helper.make_node("Mul", [contract.DIFFRACTION, "one__"], ["changed__"]))


def factor_of_at_most_10(file: onnx.ModelProto) -> None:
    for node in file.graph.node:
        node.input[:] = ["changed__" if name == contract.INPUT_SCALE else name for name in node.input]
    file.graph.initializer.append(numpy_helper.from_array(np.array(10.0, np.float32), "limit__"))
    file.graph.node.insert(0, helper.make_node("Min", [contract.INPUT_SCALE, "limit__"], ["changed__"]))


def silent(file: onnx.ModelProto) -> None:
    for node in file.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != SCOPES]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)


def test_right_files_pass_and_say_how_many_layers_were_tried(made: Made) -> None:
    found = tried(made)
    assert list(found) == [ONNX, SCRIPT]
    for one in found.values():
        assert one.row.verdict == "passed", one.row
        assert one.row.facts["layers"] == len(one.layers)
        assert len(one.layers) >= 7
        assert one.row.worst()[1] < 0.7
        assert next(layer for layer in one.layers if layer.layer == "network input").share < 0.1
    assert {layer.layer for layer in found[ONNX].layers} >= {"network.lifter", "network.lifter.conv1"}


@pytest.mark.parametrize(
    ("fault", "layer"),
    [
        (gelu_without_its_left_end, "network.lifter"),
        (highest_frequency_dropped, "network.ffno_stack.blocks.0.shared_spectral"),
        (one_weight_by_five_percent_of_the_largest, "network.lifter.conv2"),
    ],
)
def test_a_fault_is_found_and_its_layer_named(made: Made, fault: Fault, layer: str) -> None:
    found = with_fault(made, fault)
    assert found.row.verdict == "failed"
    wrong = [one.layer for one in found.layers if one.share > 1.0]
    assert layer in wrong
    assert all(layer.startswith(name) or name.startswith(layer) for name in wrong)


@pytest.mark.parametrize(
    "fault",
    [
        on_the_way_in("Max", 1e-3),
        on_the_way_in("Max", 1e-6),
        on_the_way_in("Min", 1e6),
        on_the_way_in("Add", 1e-9),
        without_faint_pixels,
        factor_of_at_most_10,
    ],
    ids=["floor", "low floor", "ceiling", "offset", "faint pixels", "factor"],
)
def test_what_is_done_to_single_pixels_before_the_network_is_found(made: Made, fault: Fault) -> None:
    found = with_fault(made, fault)
    assert found.row.verdict == "failed"
    assert [layer.layer for layer in found.layers if layer.share > 1.0] == ["network input"]


class Tampered(PatchGraph):
    """A graph that does something to the patterns on their way in."""

    def __init__(self, model: PtychoModel, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(model)
        self.change = change

    def heads(self, diffraction: torch.Tensor, input_scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().heads(self.change(diffraction), input_scale)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: torch.clamp_min(x, 1e-6),
        lambda x: torch.clamp_max(x, 1e4),
        lambda x: torch.where(x < 1e-3, torch.zeros_like(x), x),
        lambda x: x + 1e-9,
        lambda x: x.half().float(),
    ],
    ids=["floor", "ceiling", "faint pixels", "offset", "half precision"],
)
def test_what_a_torchscript_file_does_to_single_pixels_is_found(
    made: Made, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    inputs = graph_io(made[0].spec, GRAPH)[0]
    file = export_torchscript(Tampered(made[0], change).eval().requires_grad_(False), inputs)
    found = tried(made, torchscript=file)[SCRIPT]
    assert found.row.verdict == "failed"
    assert [layer.layer for layer in found.layers if layer.share > 1.0] == ["network input"]


def test_a_file_that_hides_its_layers_fails(made: Made) -> None:
    found = with_fault(made, silent)
    assert (found.row.verdict, found.row.reason) == ("failed", "nothing in it says which layer it belongs to")


def test_a_file_that_is_none_fails(made: Made) -> None:
    found = tried(made, onnx=b"no such thing")[ONNX]
    assert found.row.verdict == "failed"
    assert found.row.reason.startswith("its layers cannot be run (")


def script_with(data: bytes, model: PtychoModel) -> bytes:
    """Return a TorchScript file in which one convolution's weight is a hundredth larger."""
    return with_larger(data, dict(model.model.autoencoder.named_parameters())["lifter.conv2.weight"])


def with_larger(data: bytes, constant: Any) -> bytes:
    """Return a TorchScript file in which a constant is a hundredth larger."""
    wanted = constant.detach().numpy().tobytes()
    source = zipfile.ZipFile(io.BytesIO(data))
    out = io.BytesIO()
    hits = 0
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
        for info in source.infolist():
            content = source.read(info)
            if content == wanted:
                content, hits = (np.frombuffer(content, np.float32) * np.float32(1.01)).tobytes(), hits + 1
            target.writestr(info, content)
    assert hits == 1
    return out.getvalue()


def test_the_layer_of_a_torchscript_file_is_named(made: Made) -> None:
    model, files, _ = made
    found = tried(made, torchscript=script_with(files["torchscript"], model))[SCRIPT]
    assert found.row.verdict == "failed"
    figures = {"max_abs": 1.0, "rel_l2": 1.0, "allowed_max_abs": 1e-6, "allowed_rel_l2": 1e-6, "share": 1e6}
    whole = ParityRow(GRAPH, "torchscript", "cpu", "float32", 1, "", "failed", "", {contract.OBJECT_REAL: figures})
    divergence = found.divergence(whole)
    assert divergence.first is not None
    assert divergence.first.layer in ("network.lifter", "network.lifter.conv2")
    assert re.match(r"diffraction_to_obj, torchscript: diverges first at network\.lifter", divergence.summary())


def test_the_step_of_a_torchscript_files_physics_is_named(exported: Callable[[str], ExportResult]) -> None:
    bundle = exported(TINY).bundle
    model, graph = load_torch_bundle(bundle)[0]["autoencoder"], "autoencoder"
    own = members(bundle)[contract.torchscript_member(graph)]
    pool = make_pool(model.spec, 5).only({info["name"] for info in graph_io(model.spec, graph)[0]})
    right = script_steps(model, graph, own, pool, 3)
    assert [step.layer for step in right] == ["physics.exit_wave", "physics.far_field"]
    # One run of eager float32 says what rounding does here, so luck has its share; a fault has a thousand times that.
    assert max(step.share for step in right) < 4.0
    physics = build_graph(model, graph).physics
    assert isinstance(physics, RealPhysics)
    steps = script_steps(model, graph, with_larger(own, physics.fourier_cos), pool, 3)
    assert [step.layer for step in steps if step.share > 30.0] == ["physics.far_field"]
    assert steps[0] == right[0]
    figures = {"max_abs": 1.0, "rel_l2": 1.0, "allowed_max_abs": 1e-6, "allowed_rel_l2": 1e-6, "share": 1e3}
    whole = ParityRow(graph, "torchscript", "cpu", "float32", 1, "", "failed", "", {contract.PREDICTED: figures})
    layers = Tried(ParityRow(graph, SCRIPT, "cpu", "float32", 2, "", "passed"), [])
    assert (
        layers.divergence(whole, steps)
        .summary()
        .startswith("autoencoder, torchscript: diverges first at physics.far_field")
    )
    assert script_steps(model, graph, StoredTorchScript(own), pool, 3) == []


def test_what_is_refused_unrun_is_named_too(made: Made) -> None:
    model, files, _ = made
    own = files["torchscript"]
    assert whereabouts(script_with(own, model), own, "x.pt") == "it diverges first at network.lifter.conv2 (weight)"
    source = zipfile.ZipFile(io.BytesIO(own))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
        for info in source.infolist():
            content = source.read(info)
            code = info.filename.endswith(".py")
            target.writestr(info, content.replace(b"torch.gelu", b"torch.silu") if code else content)
    assert "its program differs in" in whereabouts(out.getvalue(), own, "x.pt")


def test_a_strangers_torchscript_is_not_looked_into(made: Made) -> None:
    found = tried(made, torchscript=StoredTorchScript(made[1]["torchscript"]))[SCRIPT]
    assert found.row.verdict == "not run"
    assert "confined process" in found.row.reason


def test_the_middle_of_a_map() -> None:
    value: Any = np.arange(36.0).reshape(1, 1, 6, 6)
    assert middle(value, (1, 1, 4, 4)).tolist() == value[..., 1:5, 1:5].tolist()
    assert middle(value, value.shape) is value
