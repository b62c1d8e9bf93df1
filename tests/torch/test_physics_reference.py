"""The forward physics of every era and variant: eager, and the real-valued graph that is exported, against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters.graph.eager import eager_outputs  # noqa: E402
from exporters.graph.graphs import build_graph, graph_io  # noqa: E402
from exporters.parity.independent import physics as reference  # noqa: E402
from ptycho_runtime import contract  # noqa: E402
from ptycho_torch.errors import ConfigurationError  # noqa: E402
from ptycho_torch.models.module import PtychoModel  # noqa: E402
from ptycho_torch.models.physics import disk_probe_mask, sampling_positions_px  # noqa: E402
from ptycho_torch.models.registry import GENERATORS  # noqa: E402
from ptycho_torch.spec import ModelSpec  # noqa: E402

N = 64
UNET = {"generator": "unet", "physics": "rectangular", "patch_weighting": "probe", "output_mode": "real_imag"}
NEW = {"probe_scale": 4.0, "border_mask": True}
RECTANGULAR = {"physics": "rectangular", "output_mode": "real_imag"}
VARIANTS: dict[str, dict[str, object]] = {
    "A": {"era": "A"},
    "A gridsize 1": {"era": "A", "gridsize": 1},
    "A object_big off": {"era": "A", "object_big": False},
    "A2": {"era": "A2"},
    "A2 trainable scale, two datasets": {"era": "A2", "num_datasets": 2, "intensity_scale_trainable": True, "intensity_scale": 3.0},
    "B": {"era": "B", "probe_scale": 4.0},
    "B gridsize 3": {"era": "B", "gridsize": 3, "probe_scale": 4.0},
    "B gridsize 1": {"era": "B", "gridsize": 1, "probe_scale": 4.0},
    "B as reloaded": {"era": "B", "scaling": "as-reloaded", "intensity_scale_trainable": True, "intensity_scale": 31.6},
    "B probe mask tensor": {"era": "B", "probe_mask": "tensor"},
    "V probe": {"era": "V", "patch_weighting": "probe", "physics": "rectangular"},
    "V uniform": {"era": "V", "patch_weighting": "uniform", "physics": "rectangular"},
    "U": {"era": "U", **UNET},
    "U2": {"era": "U2", **UNET},
    "U2 two datasets": {"era": "U2", "num_datasets": 2, **UNET},
    "J0": {"era": "J0", "probe_scale": 4.0},
    "J": {"era": "J", **NEW},
    "J gridsize 1": {"era": "J", "gridsize": 1, **NEW},
    "J gridsize 3": {"era": "J", "gridsize": 3, **NEW},
    "J wide neighbours": {"era": "J", "max_neighbor_distance_px": 6.5, **NEW},
    "J probe weights": {"era": "J", "patch_weighting": "probe", **NEW},
    "J uniform weights": {"era": "J", "patch_weighting": "uniform", **NEW},
    "J soft disk, gain": {"era": "J", "probe_mask": "disk", "amplitude_physics_gain": 2.5, **NEW},
    "J soft disk of its own size": {"era": "J", "probe_mask": "disk", "probe_mask_sigma_px": 2.0, "probe_mask_diameter_px": 40.0, **NEW},
    "U2 plain tanh": {"era": "U2", "unet_heads": "tanh", **UNET},
    "J real_imag": {"era": "J", "output_mode": "real_imag", **NEW},
    "J rectangular": {"era": "J", **NEW, **RECTANGULAR},
    "J rectangular, three datasets, probe weights": {"era": "J", "num_datasets": 3, "patch_weighting": "probe", **NEW, **RECTANGULAR},
    "J object_big off": {"era": "J", "object_big": False, **NEW},
    "J delta tied": {"era": "J", "parity_scale_mode": "tied", "parity_fixed_delta": 0.3, **NEW},
    "J delta input": {"era": "J", "parity_scale_mode": "input", "parity_fixed_delta": 0.3, **NEW},
    "J delta output": {"era": "J", "parity_scale_mode": "output", "parity_fixed_delta": -0.2, **NEW},
    "J ffno": {"era": "J", "generator": "ffno", "gridsize": 2, "output_mode": "real_imag", "fno_width": 4, "fno_modes": 3, "probe_scale": 4.0},
    "J0 fno": {"era": "J0", "generator": "fno", "gridsize": 1, "fno_width": 4, "fno_modes": 3, "probe_scale": 4.0},
    "J fno_vanilla": {"era": "J", "generator": "fno_vanilla", "gridsize": 2, "output_mode": "amp_phase_logits", "fno_width": 4, "fno_modes": 3},
    "J neuralop_uno": {"era": "J", "generator": "neuralop_uno", "N": 128, "gridsize": 1, "output_mode": "real_imag", "probe_scale": 4.0},
}  # fmt: skip


def spec_of(name: str) -> ModelSpec:
    values = {"generator": "cnn", "N": N, "gridsize": 2, "n_filters_scale": 1, **VARIANTS[name]}
    channels = values["gridsize"] ** 2 if values.get("object_big", True) else 1
    if values["era"] == "J" and values["generator"] == "cnn":
        values |= {"amp_channels": channels, "c_outer": channels}
    return ModelSpec(**values)


class Case:
    """One model in float64 with random weights and scalars, and one feed."""

    def __init__(self, name: str) -> None:
        self.spec = spec = spec_of(name)
        random = np.random.default_rng(4)
        self.mask = random.random((spec.N, spec.N)) if spec.probe_mask == "tensor" else None
        torch.manual_seed(2)
        self.model = PtychoModel(spec, self.mask).eval()
        self.scalars: dict[str, np.ndarray] = {}
        with torch.no_grad():
            for key, value in self.model.named_parameters():
                short = key.rsplit(".", 1)[-1]
                if short in ("alpha", "beta", "s1", "s2"):
                    value.copy_(torch.from_numpy(random.uniform(0.5, 2.0, value.shape)))
                    self.scalars[short] = value.detach().double().numpy()
        self.model = self.model.double()
        groups, modes = max(2, spec.num_datasets), 1 if spec.era == "U" and spec.single_probe_mode else 2
        scale = random.uniform(0.5, 1.5, (groups, 1, 1, 1))
        positions = random.uniform(-2, 2, (groups, spec.C, 1, 2)).astype(np.float32)
        positions[0] = np.round(positions[0])  # whole pixels, where rounding decides what is covered
        axis = np.arange(spec.N) - spec.N / 2
        envelope = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * (spec.N / 6) ** 2))
        probe = envelope * np.exp(1j * random.normal(size=(modes, spec.N, spec.N)))
        self.feed = {
            contract.DIFFRACTION: random.random((groups, spec.in_channels, spec.N, spec.N)),
            contract.INPUT_SCALE: scale,
            contract.POSITIONS: positions.astype(np.float64),
            contract.PROBE_REAL: probe.real,
            contract.PROBE_IMAG: probe.imag,
            contract.OUTPUT_SCALE: scale * 1.3,
            contract.EXPERIMENT_ID: np.arange(groups) % spec.num_datasets,
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        names = [info["name"] for info in graph_io(self.spec, "autoencoder")[0]]
        return {name: torch.from_numpy(self.feed[name]) for name in names}

    def expected(self) -> np.ndarray:
        """Return the prediction from the network's own patches, by the second writing of the physics."""
        spec, feed = self.spec, self.feed
        with torch.no_grad():
            x, scale = torch.from_numpy(feed[contract.DIFFRACTION]), torch.from_numpy(feed[contract.INPUT_SCALE])
            patches = self.model.forward_predict(x, x, x, scale).numpy()
        factor = feed[contract.OUTPUT_SCALE].ravel()
        if spec.intensity_scale_trainable:
            factor = np.full_like(factor, spec.intensity_scale)
        elif spec.parity_scale_mode in ("tied", "output"):
            factor = factor * np.exp(float(np.float32(spec.parity_fixed_delta)))
        mask = reference.soft_disk(spec) if spec.probe_mask == "disk" else self.mask
        probe = feed[contract.PROBE_REAL] + 1j * feed[contract.PROBE_IMAG]
        return reference.predict(
            spec,
            patches,
            reference.Beam(feed[contract.POSITIONS], probe, factor, feed[contract.EXPERIMENT_ID]),
            self.scalars,
            mask,
        )


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", VARIANTS)
def test_eager_and_exported_graph_equal_plain_numpy(name: str) -> None:
    case = Case(name)
    with torch.no_grad():
        eager = eager_outputs(case.model, "autoencoder", case.tensors())
        graph = build_graph(case.model, "autoencoder").double()(*case.tensors().values())
    expected = case.expected()
    # The default probe mask is stored in float32, as PtychoPINN stores it.
    limit = 1e-7 if case.spec.probe_mask == "disk" else 1e-10
    assert distance(eager[contract.PREDICTED].numpy(), expected) <= limit
    for key, value in zip((info["name"] for info in graph_io(case.spec, "autoencoder")[1]), graph, strict=True):
        assert value.shape == eager[key].shape, key
        assert distance(value.numpy(), eager[key].numpy()) <= 1e-10, key


@pytest.mark.parametrize("mode", ["tied", "fixed", "input", "output"])
def test_parity_delta_acts_on_the_input_factor(mode: str) -> None:
    model = PtychoModel(
        ModelSpec(era="J", generator="cnn", N=N, gridsize=1, parity_scale_mode=mode, parity_fixed_delta=0.5)
    )
    one = torch.ones(1, 1, 1, 1)
    assert float(model.input_factor(one).detach()) == pytest.approx(1.0 if mode == "output" else np.exp(-0.5), rel=1e-6)
    assert float(model.output_factor(one).detach()) == pytest.approx(1.0 if mode == "input" else np.exp(0.5), rel=1e-6)


def test_incoherent_modes_differ_from_coherent_ones() -> None:
    coherent, incoherent = Case("U"), Case("U2")
    incoherent.model.load_state_dict(coherent.model.state_dict())
    found = [
        eager_outputs(x.model, "autoencoder", coherent.tensors())[contract.PREDICTED].detach().numpy()
        for x in (coherent, incoherent)
    ]
    assert distance(found[0], found[1]) > 0.01


def test_sampling_positions_equal_the_step_by_step_rounding() -> None:
    from ptycho_torch.models.physics import sampling_grid

    for shift in (0.0, 1.0, -1.75, 0.3333):
        for size in (64, 68, 78):
            found = sampling_positions_px(torch.tensor(shift), torch.from_numpy(sampling_grid(size)))
            assert np.array_equal(found.numpy().astype(np.float64), reference.positions_px(shift, size))


@pytest.mark.parametrize(
    ("sigma", "diameter"), [(1.0, None), (2.0, 40.0), (0.2, 40.0), (0.0, 33.0), (-1.0, None), (30.0, 9.0)]
)
def test_soft_disk_equals_scipys(sigma: float, diameter: float | None) -> None:
    spec = ModelSpec("J", "cnn", N, 1, probe_mask="disk", probe_mask_sigma_px=sigma, probe_mask_diameter_px=diameter)
    mask = disk_probe_mask(N, sigma, diameter)
    assert np.abs(mask - reference.soft_disk(spec)).max() <= 1e-7
    assert mask.max() == 1.0
    assert mask.min() >= 0.0


def test_a_disk_without_a_pixel_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"a probe mask of diameter 0\.5 px holds no pixel"):
        disk_probe_mask(N, 1.0, 0.5)


def test_every_generator_and_era_is_among_the_variants() -> None:
    specs = [spec_of(name) for name in VARIANTS]
    assert {spec.generator for spec in specs} == set(GENERATORS)
    assert {spec.era for spec in specs} == {"A", "A2", "B", "V", "U", "U2", "J0", "J"}
