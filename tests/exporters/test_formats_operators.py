"""Both graphs of every family: no operator that leaves the GPU, and the numbers of the original."""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Callable

import onnx
import pytest
from cuda_kernels import left_to_the_cpu
from sample_bundles import LONG_NAMES, ROOT, members
from shared_exports import TINY
from tampering import weighted_layers, with_scaled_weight

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters import ExportResult  # noqa: E402
from exporters.formats.torchscript import export_torchscript  # noqa: E402
from exporters.formats.trace import Files, trace_family  # noqa: E402
from exporters.graph.family import make_family  # noqa: E402
from exporters.graph.graphs import has_centre  # noqa: E402
from exporters.parity.matrix import judge_files  # noqa: E402
from exporters.parity.prepare import Prepared, prepare, telling_batches  # noqa: E402
from ptycho_runtime import contract  # noqa: E402
from ptycho_torch.models.module import PtychoModel  # noqa: E402
from ptycho_torch.models.registry import GENERATORS  # noqa: E402
from ptycho_torch.spec import ModelSpec  # noqa: E402

TABLE = ROOT / "docs" / "operators.md"
GOLDEN = {"cnn (2025-11)": "cnn-2025-11-n64-g2", "cnn (2026-07)": "cnn-2026-07-n64-g2", "ffno": "ffno-2026-07-n64-g1"}
SMALL = {"N": 64, "gridsize": 2, "n_filters_scale": 1}
J = {"era": "J", "border_mask": True, "amp_channels": 4, "c_outer": 4, "probe_scale": 4.0}
SPECTRAL = {"era": "J", "N": 64, "gridsize": 1, "fno_width": 4, "fno_modes": 4, "fno_blocks": 1, "fno_cnn_blocks": 1}
BUILT: dict[str, ModelSpec] = {
    "unet": ModelSpec(
        era="U2", generator="unet", c_outer=4, encoder_attention="eca", decoder_attention="spatial", bottleneck_cbam=True,
        physics="rectangular", patch_weighting="probe", output_mode="real_imag", single_probe_mode=True, **SMALL,
    ),
    "fno": ModelSpec(
        generator="fno", output_mode="real_imag", input_transform="log1p", physics="rectangular", patch_weighting="probe", **SPECTRAL
    ),
    "fno_vanilla": ModelSpec(generator="fno_vanilla", output_mode="amp_phase_logits", input_transform="instancenorm", **SPECTRAL),
    "neuralop_uno": ModelSpec(era="J", generator="neuralop_uno", N=128, gridsize=1, output_mode="real_imag"),
    "cnn, rectangular, several datasets": ModelSpec(
        generator="cnn", physics="rectangular", output_mode="real_imag", num_datasets=3, patch_weighting="probe",
        batch_norm=True, encoder_attention="cbam", decoder_attention="eca", shared_decoder=True, **J, **SMALL,
    ),
}  # fmt: skip
MORE: dict[str, ModelSpec] = {
    "A2": ModelSpec(era="A2", generator="cnn", c_outer=4, encoder_attention="cbam", decoder_attention="cbam", **SMALL),
    "V": ModelSpec(era="V", generator="cnn", c_outer=4, physics="rectangular", patch_weighting="uniform", **SMALL),
    "U": ModelSpec(
        era="U", generator="unet", c_outer=4, physics="rectangular", patch_weighting="probe", output_mode="real_imag",
        shared_decoder=True, **SMALL,
    ),
    "J0": ModelSpec(era="J0", generator="cnn", c_outer=4, probe_scale=4.0, patch_weighting="uniform", **SMALL),
    "supervised": ModelSpec(generator="cnn", supervised=True, **J, **SMALL),
    "object_big off": ModelSpec(generator="cnn", object_big=False, era="J", border_mask=True, amp_channels=1, c_outer=1, **SMALL),
    "soft probe mask, gain, trainable scale": ModelSpec(
        generator="cnn", probe_mask="disk", amplitude_physics_gain=2.0, intensity_scale_trainable=True, intensity_scale=3.0, **J, **SMALL
    ),
    "parity delta": ModelSpec(generator="cnn", parity_scale_mode="tied", parity_fixed_delta=0.2, **J, **SMALL),
    "N 128, gridsize 3": ModelSpec(era="B", generator="cnn", N=128, gridsize=3, n_filters_scale=1, c_outer=4, encoder_attention="cbam"),
    "N 256": ModelSpec(
        era="J", generator="cnn", N=256, gridsize=1, n_filters_scale=1, c_outer=1, encoder_attention="cbam",
        bottleneck_cbam=True, border_mask=True,
    ),
    "ffno, instance norm, logits": ModelSpec(generator="ffno", output_mode="amp_phase_logits", input_transform="instancenorm", **SPECTRAL),
    "fno, sqrt, amp_phase": ModelSpec(generator="fno", output_mode="amp_phase", input_transform="sqrt", learned_input_channels=2, **SPECTRAL),
}  # fmt: skip

# U-NO takes minutes; fno_vanilla is the front of fno; the physics of the others is that of fno, and `test_graph_lowering.py` looks at
# their networks in every run.
LONG = ("unet", "neuralop_uno", "fno_vanilla", "cnn, rectangular, several datasets")
QUICK = [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in BUILT]
SHARED = [pytest.param(name, marks=pytest.mark.long) if GOLDEN[name] in LONG_NAMES else name for name in GOLDEN]


@functools.cache
def built(name: str) -> tuple[PtychoModel, Files]:
    """Return a model with random weights and both its exports."""
    spec = {**BUILT, **MORE}[name]
    torch.manual_seed(3)
    model = PtychoModel(spec).eval().requires_grad_(False)
    graphs = contract.ALL_GRAPHS if has_centre(spec) else contract.GRAPHS
    metadata = {graph: dict.fromkeys(contract.META_KEYS, "x") | {"graph": graph} for graph in graphs}
    return model, trace_family(make_family(dict.fromkeys(graphs, model), graphs), metadata)


@functools.cache
def prepared(name: str) -> Prepared:
    """Return what all files of a model are judged by."""
    model, artifacts = built(name)
    return prepare(dict.fromkeys(artifacts, model), model.spec, telling_batches((1, 3)))


def devices_named(torchscript: bytes) -> set[str]:
    """Return the devices that a file makes tensors on, wherever it is loaded: another device's tensors do not go with them."""
    module = torch.jit.load(io.BytesIO(torchscript))
    return set(re.findall(r'Device = prim::Constant\[value="([^"]*)"\]', str(module.inlined_graph)))


def test_a_device_that_a_trace_keeps_is_seen() -> None:
    traced = torch.jit.trace(lambda x: x + torch.arange(3, device=x.device), torch.zeros(3))
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    assert devices_named(buffer.getvalue()) == {"cpu"}


def test_convolutions_of_a_torchscript_file_stay_float32_whatever_was_allowed_when_it_was_traced() -> None:
    before = torch.backends.cudnn.allow_tf32
    example: contract.TensorInfo = {"name": "x", "dtype": "float32", "shape": ["batch", 1, 8, 8]}
    files = []
    for allowed in (True, False):
        torch.backends.cudnn.allow_tf32 = allowed
        try:
            files.append(export_torchscript(torch.nn.Conv2d(1, 2, 3).eval().requires_grad_(False), [example]))
            assert torch.backends.cudnn.allow_tf32 is allowed
        finally:
            torch.backends.cudnn.allow_tf32 = before
        module = torch.jit.load(io.BytesIO(files[-1]))
        graph = module.inlined_graph  # owns its nodes
        (convolution,) = graph.findAllNodes("aten::_convolution")
        assert list(convolution.inputs())[-1].toIValue() is False  # allow_tf32


def check(name: str) -> None:
    artifacts = built(name)[1]
    for files in artifacts.values():
        assert left_to_the_cpu(onnx.load_from_string(files["onnx"])) == []
        assert devices_named(files["torchscript"]) == set()
    report = judge_files(prepared(name), artifacts, devices=("cpu",))
    assert report.passed, report.summary()


@pytest.mark.parametrize("name", QUICK)
def test_family_stays_on_the_gpu_and_equals_eager(name: str) -> None:
    check(name)


PLACES = {"first": 0, "middle": 0.5, "last": 1}  # of a layer among those with weights


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("fno", "first"),
        ("fno", "middle"),
        ("fno", "last"),
        *(
            pytest.param(name, place, marks=pytest.mark.long)
            for name in (*BUILT, "ffno, instance norm, logits")
            for place in PLACES
            if name != "fno"
        ),
    ],
)
def test_corrupted_layer_is_named(name: str, place: str) -> None:
    artifacts = built(name)[1]
    honest = artifacts["diffraction_to_obj"]["onnx"]
    layers = weighted_layers(honest)
    layer = layers[math.ceil(PLACES[place] * (len(layers) - 1))]
    files = {"diffraction_to_obj": {**artifacts["diffraction_to_obj"], "onnx": with_scaled_weight(honest, layer)}}
    report = judge_files(prepared(name), files, devices=("cpu",))
    assert not report.passed
    first = report.divergence[0].first
    assert first is not None
    assert layer == first.layer or layer.startswith(f"{first.layer}."), (layer, report.summary())
    assert f"diverges first at {first.layer}" in report.summary()


@pytest.mark.long
@pytest.mark.parametrize("name", MORE)
def test_variant_stays_on_the_gpu_and_equals_eager(name: str) -> None:
    check(name)


@pytest.mark.parametrize("name", [*SHARED, TINY])
def test_shared_bundles_stay_on_the_gpu(name: str, exported: Callable[[str], ExportResult]) -> None:
    result = exported(GOLDEN.get(name, name))
    stored = members(result.bundle)
    for graph in result.graphs:
        assert left_to_the_cpu(onnx.load_from_string(stored[contract.onnx_member(graph)])) == []


def operators(data: bytes) -> str:
    counts: dict[str, int] = {}
    for node in onnx.load_from_string(data).graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def test_table_of_operators_has_every_model() -> None:
    lines = TABLE.read_text().splitlines()
    assert {line.split(" | ")[0].strip("| ") for line in lines if " | autoencoder | " in line} == {*GOLDEN, *BUILT}


@pytest.mark.parametrize("name", SHARED)
def test_table_of_operators_is_up_to_date(name: str, exported: Callable[[str], ExportResult]) -> None:
    result = exported(GOLDEN[name])
    stored = members(result.bundle)
    for graph in result.graphs:
        assert f"| {name} | {graph} | {operators(stored[contract.onnx_member(graph)])} |" in TABLE.read_text()


@pytest.mark.parametrize("name", QUICK)
def test_table_of_operators_is_up_to_date_for_other_families(name: str) -> None:
    for graph, files in built(name)[1].items():
        assert f"| {name} | {graph} | {operators(files['onnx'])} |" in TABLE.read_text()


def test_every_generator_is_in_the_table() -> None:
    assert {spec.generator for spec in BUILT.values()} | {"ffno"} == set(GENERATORS)
