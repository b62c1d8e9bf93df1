"""Networks of every family against an independent float64 evaluation of the same layers."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")


from exporters.parity.independent.network import network as reference  # noqa: E402
from ptycho_torch.models.registry import build_network  # noqa: E402
from ptycho_torch.spec import ModelSpec  # noqa: E402


def spec(generator: str, **values: object) -> ModelSpec:
    """Return a spec of era J (U for the UNet) with scale 1, unless `values` say otherwise."""
    base: dict[str, object] = {"era": "J", "generator": generator, "N": 64, "gridsize": 2, "n_filters_scale": 1}
    if generator == "unet":
        base |= {"era": "U", "output_mode": "real_imag", "c_outer": 4}
    if generator in ("ffno", "fno", "fno_vanilla"):
        base |= {"gridsize": 1, "fno_width": 6, "fno_modes": 5, "fno_blocks": 2, "output_mode": "real_imag"}
    return ModelSpec(**(base | values))


J = {"amp_channels": 4, "c_outer": 4, "border_mask": True}
SHARED = {"amp_channels": 4, "c_outer": 8, "border_mask": True, "shared_decoder": True}
CASES = {
    "cnn-plain": spec("cnn", era="A", c_outer=4),
    "cnn-cbam-sigmoid": spec("cnn", era="B", c_outer=4, encoder_attention="cbam", amp_activation="sigmoid"),
    "cnn-border-mask": spec("cnn", **J, encoder_attention="cbam", bottleneck_cbam=True),
    "cnn-real-imag": spec("cnn", **J, output_mode="real_imag"),
    "cnn-batch-norm": spec("cnn", **J, batch_norm=True),
    "cnn-probe-small": spec("cnn", **J, probe_big=False),
    "cnn-object-small": spec("cnn", era="B", c_outer=4, object_big=False),
    "cnn-legacy-channels": spec("cnn", amp_channels=2, c_outer=6, border_mask=True),
    "cnn-eca-idle": spec("cnn", **J, encoder_attention="eca", decoder_attention="eca"),
    "cnn-spatial-idle": spec("cnn", **J, decoder_attention="spatial", decoder_spatial_kernel=5),
    "cnn-supervised-n128": spec("cnn", era="A", N=128, gridsize=1, c_outer=4, supervised=True),
    "cnn-no-hidden-units-n256": spec("cnn", era="B", N=256, gridsize=1, c_outer=4, encoder_attention="cbam"),
    "cnn-scale-2-gridsize-3": spec("cnn", gridsize=3, n_filters_scale=2, amp_channels=9, c_outer=9, border_mask=True),
    "shared": spec("cnn", **SHARED),
    "shared-real-imag-batch-norm": spec("cnn", **SHARED, output_mode="real_imag", batch_norm=True),
    "shared-j0": spec("cnn", era="J0", shared_decoder=True, c_outer=4, probe_big=False, decoder_attention="cbam"),
    "unet": spec("unet", encoder_attention="cbam"),
    "unet-batch-norm-eca": spec("unet", batch_norm=True, encoder_attention="eca", decoder_attention="eca"),
    "unet-n128-probe-small": spec("unet", N=128, gridsize=1, probe_big=False, decoder_attention="cbam"),
    "unet-n256-bottleneck": spec("unet", N=256, gridsize=1, bottleneck_cbam=True),
    "unet-shared": spec("unet", shared_decoder=True, amp_channels=1, decoder_attention="spatial"),
    "unet-shared-batch-norm": spec("unet", era="U2", shared_decoder=True, amp_channels=4, batch_norm=True),
    "ffno": spec("ffno", gridsize=2, learned_input_channels=2),
    "ffno-all-frequencies": spec("ffno", fno_modes=40, fno_width=4, input_transform="instancenorm"),
    "fno": spec("fno", gridsize=2, input_transform="sqrt"),
    "fno-amp-phase": spec("fno", gridsize=2, output_mode="amp_phase", input_transform="log1p"),
    "fno-logits-no-refiner": spec("fno", N=128, gridsize=2, output_mode="amp_phase_logits", fno_cnn_blocks=0),
    "fno_vanilla": spec("fno_vanilla", gridsize=3),
    "fno_vanilla-all-frequencies": spec("fno_vanilla", fno_modes=70, fno_width=2, fno_blocks=1),
    "neuralop_uno": spec("neuralop_uno", N=128, gridsize=1, output_mode="real_imag"),
}


def random_weights(network: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return weights for every key of the network, large enough that each layer shapes the result; aliases agree."""
    rng = np.random.default_rng(seed)
    by_tensor: dict[int, torch.Tensor] = {}
    weights = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if id(tensor) not in by_tensor:
            shape = tuple(tensor.shape)
            if name.endswith("num_batches_tracked"):
                value = torch.tensor(7)
            elif tensor.is_complex():
                pair = rng.standard_normal((2, *shape)) * (0.3 if "uno" in name else 1.0) / np.sqrt(shape[0])
                value = torch.from_numpy(pair[0] + 1j * pair[1])
            elif name.endswith("running_var"):
                value = torch.from_numpy(rng.uniform(0.5, 2.0, shape))
            else:
                fan_in = max(1, int(np.prod(shape[1:]))) if len(shape) > 1 else 16
                value = torch.from_numpy(np.asarray(rng.standard_normal(shape) * np.sqrt(2.0 / fan_in)))
            by_tensor[id(tensor)] = value
        weights[name] = by_tensor[id(tensor)]
    return weights


def loaded(case: ModelSpec) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """Return the network built on the meta device, with random float64 weights."""
    with torch.device("meta"):
        network = build_network(case)
    weights = random_weights(network)
    network.load_state_dict(weights, strict=True, assign=True)
    return network.double().eval(), weights


# Others of their family are evaluated in every run.
LONG = ("cnn-no-hidden-units-n256", "unet-n256-bottleneck")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in CASES]
)
def test_network_equals_independent_evaluation(name: str) -> None:
    case = CASES[name]
    network, weights = loaded(case)
    x = np.random.default_rng(1).gamma(1.0, 1.0, (2 if case.N < 256 else 1, case.in_channels, case.N, case.N))
    with torch.no_grad():
        outputs = network(torch.from_numpy(x))
    expected = reference(case, {k: v.numpy() for k, v in weights.items()}, x)
    for got, want in zip(outputs, expected, strict=True):
        assert got.dtype == torch.float64
        assert got.shape == want.shape
        assert np.linalg.norm(got.numpy() - want) <= 1e-10 * np.linalg.norm(want)
        assert want.std() > 1e-3  # a constant output would agree with anything
