"""What `build_network` builds: key names, constants, untouched random generators, refusals."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_models_goldens import GOLDENS  # noqa: E402
from test_models_reference import CASES, SHARED, J, loaded, spec  # noqa: E402

from ptycho_torch.errors import ConfigurationError, UnsupportedArchitectureError  # noqa: E402
from ptycho_torch.models.registry import GENERATORS, build_network  # noqa: E402
from ptycho_torch.spec import ModelSpec  # noqa: E402


def keys(case: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return the shape of every entry of the network's state_dict."""
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in build_network(case).state_dict().items()}


def test_every_generator_has_a_golden_or_an_independent_evaluation() -> None:
    covered = {case.generator for case in (*GOLDENS.values(), *CASES.values())}
    assert set(GENERATORS) - covered == set()


def test_batch_norm_adds_70_keys_and_none_to_the_amplitude_decoder() -> None:
    added = set(keys(spec("cnn", **J, batch_norm=True))) - set(keys(spec("cnn", **J)))
    assert len(added) == 70
    assert {k for k in added if k.startswith("decoder_amp")} == set()
    assert "decoder_phase.phase.conv_up_block.bn2.running_var" in added


def test_attention_keys() -> None:
    cbam = {
        "ChannelGate.mlp.1.weight": (4, 64),
        "ChannelGate.mlp.1.bias": (4,),
        "ChannelGate.mlp.3.weight": (64, 4),
        "ChannelGate.mlp.3.bias": (64,),
        "SpatialGate.compress.weight": (1, 2, 7, 7),
    }
    plain = keys(spec("cnn", **J))
    for kind, expected in {
        "cbam": cbam,
        "eca": {"conv.weight": (1, 1, 3)},
        "spatial": {"spatial_gate.compress.weight": (1, 2, 5, 5)},
    }.items():
        stored = keys(spec("cnn", **J, decoder_attention=kind, decoder_spatial_kernel=5))
        added = {k: v for k, v in stored.items() if k not in plain}
        prefix = "decoder_phase.attention_blocks.0."
        assert {k.removeprefix(prefix): v for k, v in added.items() if k.startswith(prefix)} == expected
        assert len(added) == 4 * len(expected)
    encoder = keys(spec("cnn", **J, encoder_attention="eca"))
    assert encoder["encoder.blocks.2.attention.conv.weight"] == (1, 1, 3)
    assert keys(spec("cnn", **J, bottleneck_cbam=True))["bottleneck_cbam.ChannelGate.mlp.1.weight"] == (8, 128)


def test_channel_gate_has_no_hidden_units_at_n256_scale_1() -> None:
    stored = keys(CASES["cnn-no-hidden-units-n256"])
    assert stored["encoder.blocks.0.attention.ChannelGate.mlp.1.weight"] == (0, 8)
    assert stored["encoder.blocks.0.attention.ChannelGate.mlp.3.weight"] == (8, 0)


def test_shared_decoder_keys() -> None:
    stored = keys(spec("cnn", **SHARED))
    assert {k.split(".")[0] for k in stored} == {"encoder", "decoder_shared"}
    assert {k.split(".")[1] for k in stored if k.startswith("decoder_shared")} == {
        "blocks",
        "refinement_blocks",
        "eca",
        "head",
    }
    assert stored["decoder_shared.eca.conv.weight"] == (1, 1, 3)
    assert stored["decoder_shared.refinement_blocks.0.block.2.weight"] == (64, 64, 3, 3)
    assert stored["decoder_shared.refinement_blocks.1.block.0.weight"] == (64, 32, 3, 3)
    assert stored["decoder_shared.refinement_blocks.1.block.4.weight"] == (32, 64, 3, 3)
    assert stored["decoder_shared.head.conv1.weight"] == (8, 24, 3, 3)
    assert stored["decoder_shared.head.conv_up_block.conv1.weight"] == (32, 8, 3, 3)


@pytest.mark.parametrize(("n", "skips"), [(64, [64, 32]), (128, [64, 32, 16]), (256, [64, 32, 16, 8])])
def test_unet_merges_the_skips_deepest_first(n: int, skips: list[int]) -> None:
    stored = keys(spec("unet", N=n))
    ups = [stored[f"decoder_amp.blocks.{i}.conv2.weight"][0] for i in range(len(skips))]
    merged = [stored[f"decoder_amp.merge_blocks.{i}.0.weight"][:2] for i in range(len(skips))]
    assert merged == [(up, up + skip) for up, skip in zip(ups, skips, strict=True)]
    assert f"decoder_amp.merge_blocks.{len(skips)}.0.weight" not in stored
    assert stored["decoder_amp.merge_blocks.0.2.weight"] == (ups[0], ups[0], 3, 3)


def test_shared_unet_decoder_is_stored_as_decoder() -> None:
    stored = keys(CASES["unet-shared"])
    assert {k.split(".")[0] for k in stored} == {"encoder", "decoder"}
    assert stored["decoder.head.conv1.weight"][0] == 2


@pytest.mark.parametrize("n", [64, 128, 256])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_encoder_widths(n: int, scale: int) -> None:
    stored = keys(spec("cnn", era="A", N=n, n_filters_scale=scale, c_outer=4))
    levels = {64: 3, 128: 4, 256: 5}[n]
    widths = [stored[f"encoder.blocks.{i}.conv2.weight"][0] for i in range(levels)]
    assert widths == [128 * scale // 2 ** (levels - 1 - i) for i in range(levels)]
    assert f"encoder.blocks.{levels}.conv1.weight" not in stored
    decoder = [stored[f"decoder_phase.blocks.{i}.conv2.weight"][0] for i in range(levels - 1)]
    assert decoder == [32 * scale * 2 ** (levels - 2 - i) for i in range(levels - 1)]


def test_ffno_registers_blocks_twice_and_its_filter_in_each() -> None:
    network, _ = loaded(spec("ffno"))
    state = network.state_dict(keep_vars=True)
    aliases = [k for k in state if k.endswith("weights_x")]
    assert len(aliases) == 5  # the stack's own, and that of both blocks under both names
    assert len({id(state[k]) for k in aliases}) == 1
    assert state["blocks.1.expand.weight"] is state["ffno_stack.blocks.1.expand.weight"]
    assert state["ffno_stack.shared_gate"].shape == ()


def test_fno_keys() -> None:
    stored = keys(spec("fno", gridsize=2, fno_blocks=1, fno_cnn_blocks=1, output_mode="amp_phase"))
    convs = {
        "lifter.conv1": (6, 4, 3, 3),
        "lifter.conv2": (6, 6, 3, 3),
        "fno_blocks.0.local_conv": (6, 6, 3, 3),
        "intermediate": (6, 6, 1, 1),
        "cnn_refiner.0.0": (6, 6, 3, 3),
        "output_amp": (4, 6, 1, 1),
        "output_phase": (4, 6, 1, 1),
    }
    expected = {f"{k}.weight": v for k, v in convs.items()} | {f"{k}.bias": v[:1] for k, v in convs.items()}
    assert stored == expected | {"fno_blocks.0.spectral.weights": (6, 6, 5, 5)}


def test_fno_vanilla_keys() -> None:
    stored = keys(spec("fno_vanilla", fno_blocks=1))
    names = {k.removesuffix(".weight").removesuffix(".bias") for k in stored}
    body = {"blocks.0.spectral.weights", "blocks.0.local_conv"}
    assert names == {"lifter.conv1", "lifter.conv2", "output_proj"} | body


def test_uno_has_42_tensors_and_1257858_parameters() -> None:
    stored = keys(CASES["neuralop_uno"])
    assert len(stored) == 42
    assert sum(int(np.prod(shape)) for shape in stored.values()) == 1_257_858
    assert stored["uno.fno_blocks.2.convs.0.weight.tensor"] == (128, 64, 12, 7)
    assert stored["uno.horizontal_skips.1.conv.weight"] == (64, 64, 1)


@pytest.mark.parametrize("name", ["cnn-border-mask", "unet-shared", "ffno", "fno_vanilla", "neuralop_uno"])
def test_building_on_the_meta_device_leaves_random_generators_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    with torch.device("meta"):
        build_network(CASES[name])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_complex_weights_follow_the_precision_of_the_network() -> None:
    network = build_network(spec("fno"))
    key = "fno_blocks.0.spectral.weights"
    weights = network.state_dict()[key].clone()
    assert weights.dtype == torch.complex64
    assert weights.imag.abs().max() > 0
    for convert in (network.double, lambda: network.to(torch.float64)):
        convert()
        assert network.state_dict()[key].dtype == torch.complex128
        assert torch.equal(network.state_dict()[key], weights.to(torch.complex128))
        network.float()
    assert torch.equal(network.state_dict()[key], weights)


def test_border_mask_survives_the_meta_device() -> None:
    network, _ = loaded(spec("cnn", **J))
    mask = network.decoder_amp.amp.border
    assert mask.device.type == "cpu"
    assert mask.dtype == torch.float64
    assert mask[0, 0, 16:48, 16:48].sum() == 0
    assert mask.sum() == 64 * 64 - 32 * 32


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"generator": "unet", "era": "J"}, "'unet' belongs to era V or U or U2"),
        ({"generator": "cnn", "era": "U"}, "era 'U', whose networks are unet"),
        ({"generator": "unet", "output_mode": "amp_phase"}, "the UNet's output mode is 'real_imag'; got 'amp_phase'"),
        ({"generator": "cnn", "output_mode": "amp_phase_logits"}, "has no output mode 'amp_phase_logits'"),
        ({"generator": "cnn", "c_outer": 32}, "c_outer is 32; the last decoder level has 32 channels"),
        ({"generator": "fno", "era": "B"}, "'fno' belongs to era J0 or J"),
        (
            {"generator": "neuralop_uno", "output_mode": "real_imag"},
            "N is 64; generator 'neuralop_uno' exists with 128",
        ),
        (
            {"generator": "neuralop_uno", "N": 128, "gridsize": 2, "output_mode": "real_imag"},
            "gridsize is 2; generator 'neuralop_uno' exists with 1 only",
        ),
        (
            {"generator": "neuralop_uno", "N": 128, "gridsize": 1, "output_mode": "amp_phase"},
            "output_mode is 'amp_phase'; generator 'neuralop_uno' exists with 'real_imag' only",
        ),
    ],
)
def test_impossible_combination_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_network(spec(**values))


@pytest.mark.parametrize("name", ["hybrid", "stable_hybrid", "hybrid_resnet", "transformer"])
def test_unknown_generator_is_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedArchitectureError, match=f"generator is '{name}'"):
        spec(name)
