"""Evidence in, one architecture out: each rule of precedence, each refusal."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_bundles import BUNDLES, DEMO, NAMES, bundle_path, changed, members

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from spec_strategies import hyper_parameters, record  # noqa: E402

from ptycho_torch import read_bundle  # noqa: E402
from ptycho_torch.architecture import UNBUILDABLE, detect  # noqa: E402
from ptycho_torch.bundle import ROLES, BundleRecord  # noqa: E402
from ptycho_torch.errors import (  # noqa: E402
    AmbiguousArchitectureError,
    ConfigurationError,
    EvidenceConflictError,
    LimitExceededError,
    MissingParamsError,
    UnsupportedArchitectureError,
    WeightMismatchError,
)
from ptycho_torch.metadata import spec_metadata  # noqa: E402
from ptycho_torch.spec import ModelSpec  # noqa: E402

J = ModelSpec(
    era="J",
    generator="cnn",
    N=64,
    gridsize=2,
    n_filters_scale=1,
    amp_channels=4,
    c_outer=4,
    border_mask=True,
    probe_scale=4.0,
)
B = ModelSpec(era="B", generator="cnn", N=64, gridsize=2, n_filters_scale=1, c_outer=4, probe_scale=4.0)
COUNTS = {"scale_contract_version": "ci_intensity_v2", "measurement_domain": "count_intensity"}
RELOADED = {"N": 64, "gridsize": 2, "architecture": "cnn", "intensity_scale.trainable": True}
RECTANGULAR = replace(J, physics="rectangular", output_mode="real_imag")


def with_metadata(spec: ModelSpec, **fields: Any) -> BundleRecord:
    metadata = spec_metadata(spec)
    metadata["model_config"].update(fields)
    return record(spec, metadata=metadata)


class TestRealBundles:
    @pytest.mark.parametrize(
        ("name", "era", "gridsize", "activation"),
        [
            ("cnn-2025-11-n64-g2", "A", 2, "silu"),
            ("cnn-2026-02-n64-g1", "B", 1, "silu"),
            ("cnn-2026-02-n64-g2", "B", 2, "sigmoid"),
            ("cnn-2026-07-n64-g2", "J", 2, None),
            ("cnn-2026-07-n64-g1-demo", "J", 1, "silu"),
            ("ffno-2026-07-n64-g1", "J", 1, None),
        ],
    )
    def test_what_they_are(self, name: str, era: str, gridsize: int, activation: str | None) -> None:
        spec = detect(read_bundle(bundle_path(name))).spec
        assert (spec.era, spec.gridsize, spec.N) == (era, gridsize, 64)
        assert activation in (None, spec.amp_activation)

    @pytest.mark.parametrize("name", NAMES)
    def test_both_roles_are_of_one_architecture(self, name: str) -> None:
        found = read_bundle(bundle_path(name))
        assert detect(found, "autoencoder").spec == detect(found, "diffraction_to_obj").spec

    def test_every_field_says_what_settled_it(self) -> None:
        found = detect(read_bundle(DEMO))
        sources = {"weights", "checkpoint", "metadata", "params", "override", "assumed"}
        assert {settled.source for settled in found.evidence.values()} <= sources
        assert found.evidence["n_filters_scale"].source == "weights"
        assert found.evidence["probe_scale"].source == "metadata"

    def test_old_bundle_reports_what_it_assumes(self) -> None:
        found = detect(read_bundle(BUNDLES / "cnn-2025-11-n64-g2.zip"))
        assert {"probe_scale", "max_neighbor_distance_px", "probe_mask"} <= set(found.assumed)
        assert any("probe.big" in notice for notice in found.notices)

    def test_reload_that_differs_from_training_is_told(self) -> None:
        found = detect(read_bundle(BUNDLES / "cnn-2026-02-n64-g1.zip"))
        assert found.spec.scaling == "as-trained"
        assert any("computes something else than the trained module" in notice for notice in found.notices)

    def test_defaults_in_params_neither_decide_nor_conflict(self) -> None:
        values = read_bundle(BUNDLES / "ffno-2026-07-n64-g1.zip").params["autoencoder"]
        assert values["architecture"] == "cnn"
        assert detect(read_bundle(BUNDLES / "ffno-2026-07-n64-g1.zip")).spec.generator == "ffno"


class TestConflicts:
    @pytest.mark.parametrize(
        ("fields", "match"),
        [
            ({"n_filters_scale": 2}, "n_filters_scale = 2, the weights say 1"),
            ({"architecture": "ffno"}, "generator = 'ffno', the weights say 'cnn'"),
            ({"batch_norm": True}, "batch_norm = True, the weights say False"),
            ({"use_shared_decoder": True}, "shared_decoder = True, the weights say False"),
            ({"num_datasets": 3}, "num_datasets = 3, the weights say 1"),
            (
                {"object_layout": "single_patch", "training_canvas": "independent"},
                "object_big = False, the weights say True",
            ),
            ({"object_layout": "single_patch"}, "is no layout PtychoPINN has"),
        ],
    )
    def test_metadata_against_weights(self, fields: dict[str, Any], match: str) -> None:
        with pytest.raises(EvidenceConflictError, match=match):
            detect(with_metadata(J, **fields))

    @pytest.mark.parametrize(
        "override", [{"N": 128}, {"generator": "ffno"}, {"n_filters_scale": 2}, {"era": "A"}, {"batch_norm": True}]
    )
    def test_override_against_weights(self, override: dict[str, Any]) -> None:
        with pytest.raises((EvidenceConflictError, WeightMismatchError)):
            detect(record(B, params={"N": 64, "gridsize": 2, "architecture": "cnn"}), architecture=override)

    def test_params_of_another_group_size(self) -> None:
        with pytest.raises(EvidenceConflictError, match="params and weights do not belong together"):
            detect(record(B, params={"N": 64, "gridsize": 3, "architecture": "cnn"}))

    def test_params_of_another_pattern_size(self) -> None:
        with pytest.raises(EvidenceConflictError, match="N = 128, the weights say 64"):
            detect(record(B, params={"N": 128, "gridsize": 2, "architecture": "cnn"}))


class TestUndecided:
    def test_two_eras_of_one_network_without_params_to_tell(self) -> None:
        with pytest.raises(AmbiguousArchitectureError, match=r'"era": "J0".*"era": "J"'):
            detect(
                record(
                    J,
                    params={},
                    kind="ckpt",
                    checkpoint={"hyper_parameters": {"data_config": {"N": 64, "grid_size": (2, 2)}}},
                )
            )

    def test_physics_of_two_eras_leaves_the_network_usable(self) -> None:
        found = detect(
            record(
                B,
                params={},
                kind="ckpt",
                checkpoint={"hyper_parameters": {"data_config": {"N": 64, "grid_size": (2, 2)}}},
            )
        )
        assert isinstance(found.autoencoder_refusal, AmbiguousArchitectureError)
        assert '{"era": "A2"} or {"era": "B"}' in str(found.autoencoder_refusal)

    def test_override_settles_it(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text('{"era": "A2"}')
        hyper = {"hyper_parameters": {"data_config": {"N": 64, "grid_size": (2, 2)}}}
        found = detect(record(B, params={}, kind="ckpt", checkpoint=hyper), architecture=tmp_path / "a.json")
        assert found.autoencoder_refusal is None
        assert found.spec.era == "A2"
        assert found.evidence["era"].source == "override"

    def test_era_the_weights_do_not_allow(self) -> None:
        hyper = {"hyper_parameters": {"data_config": {"N": 64, "grid_size": (2, 2)}}}
        with pytest.raises(EvidenceConflictError, match="the weights allow only"):
            detect(record(B, params={}, kind="ckpt", checkpoint=hyper), architecture={"era": "J"})

    def test_parity_delta_of_unknown_mode(self) -> None:
        import dataclasses

        delta = dataclasses.replace(J, parity_scale_mode="tied")
        metadata = spec_metadata(J)
        with pytest.raises(AmbiguousArchitectureError, match="has log_scale_delta but nothing says its mode"):
            detect(record(delta, metadata=metadata))
        assert (
            detect(record(delta, metadata=metadata), architecture={"parity_scale_mode": "input"}).spec.parity_scale_mode
            == "input"
        )

    def test_unets_name_all_readings_or_take_one_probe_mode(self) -> None:
        unet = ModelSpec(
            era="U",
            generator="unet",
            N=64,
            gridsize=1,
            n_filters_scale=1,
            physics="rectangular",
            patch_weighting="probe",
            output_mode="real_imag",
        )
        with pytest.raises(AmbiguousArchitectureError, match=r'"era": "U2".*"era": "V".*"unet_heads": "tanh"'):
            detect(record(unet))
        found = detect(record(unet, kind="ckpt", checkpoint={"hyper_parameters": hyper_parameters(unet)}))
        assert found.spec.single_probe_mode
        assert any("one probe mode" in notice for notice in found.notices)
        assert not detect(record(unet), architecture={"era": "U"}).spec.single_probe_mode


class TestDomain:
    def labelled(self, spec: ModelSpec, **data: str) -> BundleRecord:
        metadata = spec_metadata(spec)
        metadata["data_config"].update(data)
        return record(spec, metadata=metadata)

    def test_amplitude_models_that_say_counts_take_amplitudes(self) -> None:
        found = detect(self.labelled(J, **COUNTS))
        assert found.spec.measurement_domain == "amplitude"
        assert any("physics is amplitude, so it takes amplitudes" in notice for notice in found.notices)

    def test_rectangular_models_with_the_pair_take_counts(self) -> None:
        found = detect(self.labelled(RECTANGULAR, **COUNTS))
        assert found.spec.measurement_domain == "counts"
        assert found.notices == []

    def test_rectangular_models_of_the_older_contract_take_amplitudes(self) -> None:
        found = detect(self.labelled(RECTANGULAR))
        assert found.spec.measurement_domain == "amplitude"

    @pytest.mark.parametrize("half", ["scale_contract_version", "measurement_domain"])
    def test_half_a_pair_under_rectangular_physics_is_refused(self, half: str) -> None:
        with pytest.raises(EvidenceConflictError, match="a pair that PtychoPINN refuses under rectangular physics"):
            detect(self.labelled(RECTANGULAR, **{half: COUNTS[half]}))

    @pytest.mark.parametrize(
        ("holder", "name", "value"),
        [
            ("training_config", "torch_loss_mode", "mae"),
            ("model_config", "amplitude_physics_gain", 2.0),
        ],
    )
    def test_counts_that_were_never_trained_so_are_refused(self, holder: str, name: str, value: object) -> None:
        metadata = self.labelled(RECTANGULAR, **COUNTS).metadata
        assert metadata is not None
        metadata[holder][name] = value
        with pytest.raises(EvidenceConflictError, match=f"{name} = {value!r}"):
            detect(record(RECTANGULAR, metadata=metadata))
        settled = detect(record(RECTANGULAR, metadata=metadata), architecture={"measurement_domain": "counts"})
        assert settled.spec.measurement_domain == "counts"

    def test_an_override_settles_it(self) -> None:
        override = {"measurement_domain": "counts"}
        assert detect(self.labelled(J, **COUNTS), architecture=override).spec.measurement_domain == "counts"


class TestProbeMask:
    def test_sigma_and_diameter_are_taken(self) -> None:
        found = detect(with_metadata(J, probe_mask=True, probe_mask_sigma=2.0, probe_mask_diameter=40.0))
        assert (found.spec.probe_mask, found.spec.probe_mask_sigma_px, found.spec.probe_mask_diameter_px) == (
            "disk",
            2.0,
            40.0,
        )
        assert found.autoencoder_refusal is None

    def test_numbers_of_its_own_come_first_and_are_never_negative(self) -> None:
        mask = np.linspace(-1, 1, 64 * 64).reshape(64, 64).astype(np.float32)
        found = detect(with_metadata(J, probe_mask=True, probe_mask_tensor=mask))
        assert found.spec.probe_mask == "tensor"
        assert np.array_equal(found.probe_mask, np.maximum(mask, 0))


class TestScaling:
    def test_at_scale_one_the_reload_still_differs(self) -> None:
        found = detect(record(B, params={**RELOADED, "intensity_scale": 1.0}))
        assert not found.spec.intensity_scale_trainable
        assert any("at intensity_scale 1 it ignores output_scale_factor" in notice for notice in found.notices)

    def test_as_reloaded_at_scale_one(self) -> None:
        found = detect(record(B, params={**RELOADED, "intensity_scale": 1.0}), architecture={"scaling": "as-reloaded"})
        assert (found.spec.intensity_scale_trainable, found.spec.intensity_scale) == (True, 1.0)


class TestRefusals:
    def test_all_reasons_are_said(self) -> None:
        with pytest.raises(EvidenceConflictError) as caught:
            detect(with_metadata(J, batch_norm=True, n_filters_scale=2, use_shared_decoder=True))
        text = str(caught.value)
        assert "\n" not in text
        assert all(f"{name} = " in text for name in ("batch_norm", "n_filters_scale", "shared_decoder"))
        assert text.count("drawn.zip") == 1

    def test_reasons_against_the_autoencoder_do_not_replace_one_another(self) -> None:
        found = detect(
            with_metadata(J, physics_forward_mode="rectangular_scaled", probe_mask_tensor=np.zeros((3, 3), np.float32))
        )
        text = str(found.autoencoder_refusal)
        assert "rectangular physics with output mode" in text
        assert "its probe mask is float32 of shape (3, 3)" in text

    def test_keys_beside_the_model_are_named(self) -> None:
        found = record(J)
        weights = {**found.weights["autoencoder"], "ema.decay": np.zeros(1, np.float32)}
        with pytest.raises(WeightMismatchError, match=r"keys beside the model's: ema\.decay; --ignore-extra"):
            detect(replace(found, weights=dict.fromkeys(ROLES, weights)))

    @pytest.mark.parametrize("name", ["ccnf", "patterson", "overlap_gated"])
    def test_architectures_of_a_branch_say_which(self, name: str) -> None:
        with pytest.raises(UnsupportedArchitectureError, match=f"{name}.*branch latent_experimental"):
            detect(with_metadata(J, architecture=name))

    @pytest.mark.parametrize("name", [*UNBUILDABLE, "transformer_of_next_year"])
    def test_architecture_nobody_can_build(self, name: str) -> None:
        with pytest.raises(UnsupportedArchitectureError, match=f"names the architecture '{name}'"):
            detect(with_metadata(J, architecture=name))

    def test_weights_of_no_known_network(self) -> None:
        strange = {"model.autoencoder.transformer.weight": np.zeros((2, 2), np.float32)}
        found = record(J)
        found.weights.update(dict.fromkeys(ROLES, strange))
        with pytest.raises(UnsupportedArchitectureError, match=r"first keys: model\.autoencoder\.transformer\.weight"):
            detect(found)

    def test_checkpoint_without_anything_to_go_by(self) -> None:
        with pytest.raises(MissingParamsError, match=r"Cannot reconstruct model architecture.*--params"):
            detect(record(J, params={}, kind="ckpt", checkpoint={}))

    def test_unknown_override_field(self) -> None:
        with pytest.raises(ConfigurationError, match="unknown architecture field"):
            detect(record(J), architecture={"gridsze": 2})

    def test_stored_architecture_with_an_unknown_field(self, tmp_path: Path) -> None:
        path = changed(DEMO, tmp_path / "w.zip", {"architecture.json": b'{"colour": "red"}'})
        with pytest.raises(ConfigurationError, match="unknown architecture field"):
            detect(read_bundle(path))

    @pytest.mark.parametrize(("key", "value"), [("N", 100), ("N", 10**9), ("gridsize", 0), ("gridsize", 10**6)])
    def test_numbers_out_of_range(self, key: str, value: int, tmp_path: Path) -> None:
        source = BUNDLES / "cnn-2026-02-n64-g1.zip"
        new = {}
        for name, data in members(source).items():
            if name.endswith("params.dill"):
                new[name] = pickle.dumps({**pickle.loads(data), key: value})  # the project's own test file
        with pytest.raises((ConfigurationError, EvidenceConflictError, LimitExceededError), match=key):
            detect(read_bundle(changed(source, tmp_path / "w.zip", new)))


def test_override_file_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ConfigurationError, match="is no JSON"):
        detect(read_bundle(DEMO), architecture=tmp_path / "a.json")


def test_spec_survives_json() -> None:
    assert ModelSpec.from_json(json.loads(J.dumps())) == J
