"""Graphs of one network are traced together: each is what it is alone."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable

import onnx
import pytest
from sample_bundles import members
from shared_exports import TINY

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters import ExportResult  # noqa: E402
from exporters.formats.onnx import SCOPES, OnnxFamily, export_onnx  # noqa: E402
from exporters.graph.family import families, make_family  # noqa: E402
from exporters.graph.graphs import Graph, has_centre, make_graph  # noqa: E402
from exporters.parity.inputs import make_pool  # noqa: E402
from ptycho_runtime import contract  # noqa: E402
from ptycho_torch import load_torch_bundle  # noqa: E402
from ptycho_torch.models.module import PtychoModel  # noqa: E402
from ptycho_torch.spec import ModelSpec  # noqa: E402

CNN = {"N": 64, "gridsize": 2, "n_filters_scale": 1, "c_outer": 4}
RECTANGULAR = {"physics": "rectangular", "patch_weighting": "probe", "output_mode": "real_imag"}
SPECTRAL = {"N": 64, "gridsize": 1, "fno_width": 4, "fno_modes": 4, "fno_blocks": 1}
SPECS = {
    "cnn, outer path reaches the middle": ModelSpec(era="A", generator="cnn", **CNN),
    "cnn, masked": ModelSpec(era="J", generator="cnn", amp_channels=4, border_mask=True, **CNN),
    "cnn, shared decoder, several datasets": ModelSpec(
        era="J", generator="cnn", amp_channels=4, border_mask=True, shared_decoder=True, batch_norm=True, num_datasets=3,
        **RECTANGULAR, **CNN,
    ),
    "unet": ModelSpec(era="U2", generator="unet", decoder_attention="spatial", single_probe_mode=True, **RECTANGULAR, **CNN),
    "unet, shared decoder": ModelSpec(era="U", generator="unet", shared_decoder=True, **RECTANGULAR, **CNN),
    "supervised": ModelSpec(era="J", generator="cnn", supervised=True, amp_channels=4, **CNN),
    "ffno": ModelSpec(era="J", generator="ffno", output_mode="real_imag", fno_cnn_blocks=1, **SPECTRAL),
    "fno": ModelSpec(era="J", generator="fno", output_mode="amp_phase", fno_cnn_blocks=1, **SPECTRAL),
}  # fmt: skip


def model_of(spec: ModelSpec) -> PtychoModel:
    torch.manual_seed(5)
    return PtychoModel(spec).eval().requires_grad_(False)


def graphs_of(spec: ModelSpec) -> list[str]:
    return [contract.AUTOENCODER, contract.DIFFRACTION_TO_OBJ, *([contract.CENTRE] if has_centre(spec) else [])]


def metadata(graph: Graph) -> dict[str, str]:
    return dict.fromkeys(contract.META_KEYS, "x") | {"graph": graph.name}


@pytest.mark.parametrize("name", SPECS)
def test_together_they_give_what_each_gives(name: str) -> None:
    spec = SPECS[name]
    family = make_family(dict.fromkeys(graphs_of(spec), model_of(spec)), graphs_of(spec))
    pool = make_pool(spec, 6)
    feed = {info["name"]: torch.from_numpy(pool.feed[info["name"]]) for info in family.inputs}
    together = iter(family.module(*feed.values()))
    for graph in family.graphs:
        for info, value in zip(graph.outputs, graph.module(*(feed[i["name"]] for i in graph.inputs)), strict=True):
            assert torch.equal(next(together), value), (graph.name, info["name"])
    assert next(together, None) is None


def test_the_whole_and_its_middle_without_physics() -> None:
    model = model_of(SPECS["unet"])
    names = [contract.DIFFRACTION_TO_OBJ, contract.CENTRE]
    family = make_family(dict.fromkeys(names, model), names)
    assert [info["name"] for info in family.inputs] == [contract.DIFFRACTION, contract.INPUT_SCALE]
    real, _, middle, _ = family.module(torch.rand(2, 4, 64, 64), torch.ones(2, 1, 1, 1))
    assert torch.allclose(real[..., 16:-16, 16:-16], middle, atol=1e-6)


def test_other_weights_are_another_family() -> None:
    models = {contract.AUTOENCODER: model_of(SPECS["fno"]), contract.DIFFRACTION_TO_OBJ: model_of(SPECS["fno"])}
    assert families(models, models) == [[contract.AUTOENCODER, contract.DIFFRACTION_TO_OBJ]]
    next(models[contract.DIFFRACTION_TO_OBJ].parameters()).mul_(1.5)
    assert families(models, models) == [[contract.AUTOENCODER], [contract.DIFFRACTION_TO_OBJ]]


@pytest.mark.parametrize(
    ("bundle", "name"),
    [
        (TINY, contract.DIFFRACTION_TO_OBJ),
        pytest.param("cnn-2026-07-n64-g1-demo", contract.CENTRE, marks=pytest.mark.long),
    ],
)
def test_a_file_of_an_export_is_that_of_its_graph_traced_again_and_alone(
    bundle: str, name: str, exported: Callable[[str], ExportResult]
) -> None:
    stored = exported(bundle).bundle
    graph = make_graph(load_torch_bundle(stored)[0][contract.DIFFRACTION_TO_OBJ], name)
    assert form(members(stored)[contract.onnx_member(name)]) == form(export_onnx(graph, metadata(graph)))


@pytest.mark.long
@pytest.mark.parametrize("name", SPECS)
def test_every_file_is_that_of_its_graph_alone_and_the_same_each_time(name: str) -> None:
    spec = SPECS[name]
    family = make_family(dict.fromkeys(graphs_of(spec), model_of(spec)), graphs_of(spec))
    together, again = OnnxFamily(family), OnnxFamily(family)
    for graph in family.graphs:
        file = together.file(graph, metadata(graph))
        assert form(file) == form(export_onnx(graph, metadata(graph))), graph.name
        assert file == again.file(graph, metadata(graph))


def form(file: bytes) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Return the nodes in order, each with its layer and a digest of all that its result depends on, and those of the outputs."""
    graph = onnx.load_from_string(file).graph
    values = {value.name: value.name for value in graph.input}
    for tensor in graph.initializer:
        content = onnx.numpy_helper.to_array(tensor)
        values[tensor.name] = digest(str(content.dtype), str(content.shape), content.tobytes().hex())
    nodes = []
    for node in graph.node:
        attributes = sorted(attribute.SerializeToString(deterministic=True).hex() for attribute in node.attribute)
        (layer,) = [str(ast.literal_eval(p.value)[:-1]) for p in node.metadata_props if p.key == SCOPES]
        found = digest(node.op_type, layer, *(values[name] for name in node.input if name), *attributes)
        values |= {output: f"{found}:{number}" for number, output in enumerate(node.output)}
        nodes.append((node.op_type, layer, found))
    return nodes, [values[value.name] for value in graph.output]


def digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
