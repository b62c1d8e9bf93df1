"""Lowered networks compute what the originals compute, in operators that the CUDA provider has."""

from __future__ import annotations

import functools
import itertools
import math
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from cuda_kernels import left_to_the_cpu  # noqa: E402

from exporters.graph.lowering import bicubic_matrix, lower  # noqa: E402
from ptycho_torch.models.attention import ChannelGate  # noqa: E402
from ptycho_torch.models.ffno import FFNOStack  # noqa: E402
from ptycho_torch.models.registry import GENERATORS, build_network  # noqa: E402
from ptycho_torch.models.spectral import SpectralConv2d  # noqa: E402
from ptycho_torch.models.uno import Lifting, Skip  # noqa: E402
from ptycho_torch.spec import ModelSpec  # noqa: E402

OPSET = 20  # from 22 on, the CUDA provider has no MaxPool
J = {"era": "J", "n_filters_scale": 1}
SPECTRAL = {"era": "J", "N": 64, "fno_width": 8, "fno_modes": 6, "fno_blocks": 2}
CASES = {
    "cnn-n256": ModelSpec(
        generator="cnn", N=256, gridsize=1, c_outer=1, border_mask=True, encoder_attention="cbam",
        bottleneck_cbam=True, decoder_attention="spatial", **J,
    ),
    "cnn-shared": ModelSpec(
        generator="cnn", N=64, gridsize=2, c_outer=8, amp_channels=4, border_mask=True, shared_decoder=True,
        batch_norm=True, encoder_attention="eca", decoder_attention="eca", probe_big=False, **J,
    ),
    "unet": ModelSpec(
        era="U", generator="unet", N=64, gridsize=2, n_filters_scale=1, c_outer=4, output_mode="real_imag",
        encoder_attention="eca", decoder_attention="cbam",
    ),
    "ffno": ModelSpec(
        generator="ffno", gridsize=1, output_mode="real_imag", input_transform="instancenorm", **SPECTRAL
    ),
    "fno": ModelSpec(generator="fno", gridsize=2, output_mode="amp_phase", input_transform="log1p", **SPECTRAL),
    "fno_vanilla": ModelSpec(
        generator="fno_vanilla", gridsize=2, output_mode="amp_phase_logits", input_transform="sqrt", **SPECTRAL
    ),
    "neuralop_uno": ModelSpec(era="J", generator="neuralop_uno", N=128, gridsize=1, output_mode="real_imag"),
}  # fmt: skip
# More frequencies than the image has: the Nyquist frequency counts once.
ALL_FREQUENCIES = {
    f"{generator}-all-frequencies": ModelSpec(
        era="J", generator=generator, N=64, gridsize=1, output_mode="real_imag", fno_width=2, fno_modes=70, fno_blocks=1
    )
    for generator in ("ffno", "fno_vanilla")
}

# Families of which whole graphs are looked at in every run (`test_formats_operators.py`), and those whose layers others have: the
# front of fno, the Fourier layers of ffno with convolutions, a decoder of the CNN with gates of the U-Net.
WHOLE_GRAPHS_TRACED = ("cnn-n256", "cnn-shared", "ffno", "fno", "fno_vanilla", "neuralop_uno")


def network(case: ModelSpec) -> torch.nn.Module:
    """Return a float32 network with reproducible weights whose Fourier layers matter."""
    torch.manual_seed(0)
    net = build_network(case).eval()
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.is_complex() and "uno" not in name:
                p.mul_(p.shape[0] ** 1.5)
    return net


def patterns(case: ModelSpec, batch: int = 2) -> torch.Tensor:
    """Return scaled diffraction, (batch, channels, N, N) float32."""
    values = np.random.default_rng(3).gamma(1.0, 1.0, (batch, case.in_channels, case.N, case.N))
    return torch.from_numpy(values.astype(np.float32))


def relative_error(got: tuple[torch.Tensor, ...], want: tuple[torch.Tensor, ...]) -> float:
    """Return the largest relative L2 error over the outputs."""
    pairs = zip(got, want, strict=True)
    return max(float((g.double() - w.double()).norm() / w.double().norm()) for g, w in pairs)


def test_every_generator_is_tried() -> None:
    assert {case.generator for case in CASES.values()} == set(GENERATORS)


@pytest.mark.parametrize("name", [*CASES, *ALL_FREQUENCIES])
@torch.no_grad()
def test_lowered_network_equals_the_original(name: str) -> None:
    case = (CASES | ALL_FREQUENCIES)[name]
    net, x = network(case), patterns(case, 1 if case.N > 128 else 2)
    single, lowered_single = net(x), lower(net)(x)
    exact = net.double()(x.double())
    assert relative_error(lower(net)(x.double()), exact) <= 1e-12
    assert relative_error(lowered_single, exact) <= 3 * relative_error(single, exact)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in WHOLE_GRAPHS_TRACED else name for name in CASES]
)
def test_exported_operators_all_have_cuda_kernels(name: str) -> None:
    case = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            lower(network(case)),
            (patterns(case),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            opset_version=OPSET,
            verbose=False,
        )
    model = program.model_proto
    assert left_to_the_cpu(model) == []
    assert [t.name for t in model.graph.initializer if 0 in t.dims] == []
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param != ""


def exchanged(perm: list[int]) -> int:
    """Return how many runs of axes that stay together a transposition has after those that stay in front: 2 exchange places."""
    moved = [axis for place, axis in enumerate(perm) if perm[: place + 1] != list(range(place + 1))]
    while moved and moved[-1] == max(moved):
        moved.pop()
    return 1 + sum(after != before + 1 for before, after in itertools.pairwise(moved)) if moved else 0


@pytest.mark.parametrize(
    ("perm", "runs"), [([0, 2, 1], 2), ([1, 2, 0, 3], 2), ([2, 1, 0], 3), ([4, 0, 2, 3, 1], 4), ([0, 1], 0)]
)
def test_runs_that_a_transposition_moves_are_counted(perm: list[int], runs: int) -> None:
    assert exchanged(perm) == runs


@functools.cache
def exported_layer(layer: str) -> onnx.GraphProto:
    """Return a layer of three channels and 16 pixels a side as the exporter writes it, with the shapes for two patterns."""
    torch.manual_seed(0)
    layers = {"along axes": lambda: FFNOStack(3, 4, 1, 16), "of the plane": lambda: SpectralConv2d(3, 4, 16)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            lower(layers[layer]()),
            (torch.zeros(2, 3, 16, 16),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            opset_version=OPSET,
            verbose=False,
        )
    model = program.model_proto
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    del model.graph.value_info[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model, data_prop=True).graph


# Transpositions, and the numbers of a pattern that each moves: of spectra, never of the image (3 · 16 · 16).
@pytest.mark.parametrize(
    ("layer", "transpositions", "moved"), [("along axes", 4, 3 * 16 * 8), ("of the plane", 4, 3 * 4 * 4 * 2)]
)
def test_fourier_layers_transpose_spectra_alone_and_plainly(layer: str, transpositions: int, moved: int) -> None:
    graph = exported_layer(layer)
    sizes = {v.name: math.prod(d.dim_value for d in v.type.tensor_type.shape.dim) for v in graph.value_info}
    nodes = [node for node in graph.node if node.op_type == "Transpose"]
    assert len(nodes) == transpositions
    assert {exchanged(list(node.attribute[0].ints)) for node in nodes} == {2}
    assert {sizes[node.output[0]] for node in nodes} == {2 * moved}


def test_the_gate_of_ffno_is_a_factor_that_onnxruntime_folds_into_the_convolution() -> None:
    graph = exported_layer("along axes")
    producers = {value: node.op_type for node in graph.node for value in node.output}
    scalars = {tensor.name for tensor in graph.initializer if not tensor.dims}
    gates = [
        node for node in graph.node
        if node.op_type == "Mul" and producers.get(node.input[0]) == "Conv" and node.input[1] in scalars
    ]  # fmt: skip
    assert len(gates) == 1


@pytest.mark.parametrize(
    ("source", "target", "order"), [(16, 8, ["MatrixResize", "Conv2d"]), (8, 16, ["Conv2d", "MatrixResize"])]
)
@torch.no_grad()
def test_skip_has_its_layer_where_there_are_fewer_pixels(source: int, target: int, order: list[str]) -> None:
    torch.manual_seed(0)
    skip = Skip(3, 5, source, target).double()
    lowered = lower(skip)
    assert [type(part).__name__ for part in lowered] == order
    x = torch.rand(2, 3, source, source, dtype=torch.float64)
    torch.testing.assert_close(lowered(x), skip(x), rtol=0, atol=1e-14)


@torch.no_grad()
def test_coordinates_of_the_lifting_are_channels_of_one_convolution() -> None:
    torch.manual_seed(0)
    lifting = Lifting().double()
    lowered, x = lower(lifting), torch.rand(3, 1, 128, 128, dtype=torch.float64)
    torch.testing.assert_close(lowered(x), lifting(x), rtol=0, atol=1e-14)
    assert [tuple(part.weight.shape[:2]) for part in lowered.fcs] == [(128, 3), (32, 128)]


def test_operators_without_cuda_kernel_are_found() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    graph (float[batch, 3] x) => (float[batch, 3] y, int64[2] s)
    { a = Sin(x)  b = Atan(a)  y = Relu(b)  s = Shape(x) }
    """
    found = left_to_the_cpu(onnx.parser.parse_model(text))
    assert [line.split()[0] for line in found] == ["Atan", "Shape"]


@pytest.mark.parametrize("name", ["cnn-shared", "unet", "ffno", "fno", "neuralop_uno"])
@torch.no_grad()
def test_traced_network_takes_any_batch(name: str) -> None:
    case = CASES[name]
    lowered = lower(network(case))
    traced = torch.jit.trace(lowered, patterns(case, 2))
    for batch in (1, 3):
        x = patterns(case, batch)
        assert relative_error(traced(x), lowered(x)) <= 1e-6


def test_lowering_leaves_the_original_and_the_random_generators_alone() -> None:
    net = network(CASES["ffno"]).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.random.get_rng_state()
    lowered = lower(net)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert net.training
    assert not lowered.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not any(p.requires_grad for p in lowered.parameters())


def test_shared_filter_stays_one_layer() -> None:
    lowered = lower(network(CASES["ffno"]))
    assert lowered.ffno_stack.blocks[0].shared_spectral is lowered.ffno_stack.blocks[1].shared_spectral
    assert lowered.blocks[1].shared_spectral is lowered.ffno_stack.shared_spectral


def test_idle_weights_are_left_out() -> None:
    names = [name for name, _ in lower(network(CASES["cnn-shared"])).named_parameters()]
    assert [n for n in names if "attention" in n or "conv_up_block" in n] == []
    assert "decoder_shared.eca.conv.weight" in names


@torch.no_grad()
def test_channel_gate_without_hidden_units_becomes_a_constant() -> None:
    torch.manual_seed(0)
    gate = ChannelGate(8).double()
    gate.mlp[3].bias.copy_(torch.linspace(-2, 2, 8))
    x = torch.rand(2, 8, 5, 5, dtype=torch.float64)
    lowered = lower(gate)
    assert list(lowered.parameters()) == []
    assert torch.equal(lowered(x), gate(x))


@pytest.mark.parametrize(("source", "target"), [(128, 64), (64, 128), (9, 4)])
def test_bicubic_matrix_equals_interpolate(source: int, target: int) -> None:
    matrix = bicubic_matrix(source, target)
    image = np.random.default_rng(0).standard_normal((source, source))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None], size=(target, target), mode="bicubic", align_corners=True
    )
    np.testing.assert_allclose(matrix @ image @ matrix.T, expected[0, 0].numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=0, atol=1e-14)
