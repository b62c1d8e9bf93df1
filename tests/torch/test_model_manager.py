"""The loader: real bundles give PtychoPINN's own numbers; everything else is refused and leaves no trace."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sample_bundles import BUNDLES, DEMO, NAMES, bundle_path, golden, relative_l2

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from ptycho_runtime.errors import OutputError  # noqa: E402
from ptycho_torch import (  # noqa: E402
    create_torch_model_with_gridsize,
    load_inference_bundle_torch,
    load_torch_bundle,
    params,
    save_torch_bundle,
)
from ptycho_torch.config import ModelConfig, TrainingConfig  # noqa: E402
from ptycho_torch.errors import (  # noqa: E402
    BundleError,
    ConfigurationError,
    DamagedBundleError,
    EvidenceConflictError,
    MissingModelsError,
    MissingParamsError,
    NotABundleError,
    TensorFlowBundleError,
    WeightMismatchError,
)
from ptycho_torch.workflows import components  # noqa: E402

pytestmark = pytest.mark.load_torch_bundle
SMALL = {"n_filters_scale": 1}


def small_models(gridsize: int = 1) -> dict[str, torch.nn.Module]:
    """Return two freshly initialised models with different weights."""
    torch.manual_seed(7)
    return {
        role: create_torch_model_with_gridsize(gridsize, 64, SMALL) for role in ("autoencoder", "diffraction_to_obj")
    }


def rewrite(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Copy a zip with its members changed."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target


def without_param(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        for member in [m for m in members if m.endswith("params.dill")]:
            values = pickle.loads(members[member])  # the test wrote or ships it
            values.pop(name)
            members[member] = pickle.dumps(values)

    return change


class TestLoadTorchBundle:
    def test_load_round_trip_updates_params_cfg(self, tmp_path: Path, params_cfg: dict[str, object]) -> None:
        models = small_models(gridsize=2)
        config = TrainingConfig(model=ModelConfig(N=64, gridsize=2, n_filters_scale=1), nphotons=12345.0)
        save_torch_bundle(models, tmp_path / "wts.h5", config, intensity_scale=3.5)
        params_cfg.update(N=256, gridsize=1, nphotons=1.0)
        loaded, values = load_torch_bundle(tmp_path / "wts.h5")
        assert (params_cfg["N"], params_cfg["gridsize"], params_cfg["nphotons"]) == (64, 2, 12345.0)
        assert params_cfg["intensity_scale"] == 3.5 == values["intensity_scale"]
        assert values["_version"] == "2.0-pytorch"
        for role, model in models.items():
            stored = loaded[role].state_dict()
            assert list(stored) == list(model.state_dict())
            assert all(torch.equal(stored[key], value) for key, value in model.state_dict().items())
            assert not loaded[role].training
            assert loaded[role].data_config.C == loaded[role].model_config.C_model == 4

    @pytest.mark.parametrize("name", ["N", "gridsize"])
    def test_missing_params_raises_value_error(self, name: str, tmp_path: Path, params_cfg: dict[str, object]) -> None:
        path = rewrite(bundle_path("cnn-2026-02-n64-g1"), tmp_path / "wts.h5.zip", without_param(name))
        before = dict(params_cfg)
        with pytest.raises(ValueError, match="Cannot reconstruct model architecture") as raised:
            load_torch_bundle(tmp_path / "wts.h5")
        assert isinstance(raised.value, MissingParamsError)
        assert name in str(raised.value)
        assert params_cfg == before
        assert path.exists()

    @pytest.mark.parametrize("name", NAMES)
    def test_outputs_equal_what_ptychopinn_computed(self, name: str) -> None:
        models, _ = load_torch_bundle(bundle_path(name))
        wanted = {k: torch.from_numpy(v) for k, v in golden(name).items()}
        scales = wanted["input_scale_factor"], wanted["output_scale_factor"]
        with torch.no_grad():
            patches = models["diffraction_to_obj"].forward_predict(
                wanted["x"], wanted["positions"], wanted["probe"], scales[0]
            )
            outputs = models["autoencoder"](wanted["x"], wanted["positions"], wanted["probe"], *scales)
        assert relative_l2(patches.numpy(), wanted["object_patches"].numpy()) <= 1e-5
        for key, found in zip(("pred_diffraction", "amp", "phase"), outputs, strict=True):
            assert found.shape == wanted[key].shape
            assert relative_l2(found.numpy(), wanted[key].numpy()) <= 1e-5, key

    @pytest.mark.parametrize("name", ["cnn-2026-02-n64-g1", "cnn-2026-02-n64-g2"])
    def test_as_reloaded_equals_ptychopinns_own_reload(self, name: str) -> None:
        models, _ = load_torch_bundle(bundle_path(name), architecture={"scaling": "as-reloaded"})
        wanted = {k: torch.from_numpy(v) for k, v in golden(name).items()}
        feed = wanted["x"], wanted["positions"], wanted["probe"], wanted["input_scale_factor"]
        with torch.no_grad():
            patches = models["diffraction_to_obj"].forward_predict(*feed)
            predicted = models["autoencoder"](*feed, wanted["output_scale_factor"])[0]
        assert relative_l2(patches.numpy(), wanted["object_patches_reloaded"].numpy()) <= 1e-5
        assert relative_l2(predicted.numpy(), wanted["pred_diffraction_reloaded"].numpy()) <= 1e-5

    @pytest.mark.parametrize("name", ["cnn-2026-02-n64-g1", "ffno-2026-07-n64-g1"])
    def test_checkpoint_equals_its_bundle(self, name: str) -> None:
        from_bundle, _ = load_torch_bundle(BUNDLES / f"{name}.zip")
        from_checkpoint, values = load_torch_bundle(BUNDLES / f"{name}.ckpt")
        assert from_checkpoint["autoencoder"].spec == from_bundle["autoencoder"].spec
        stored = from_bundle["diffraction_to_obj"].state_dict()
        assert all(torch.equal(stored[k], v) for k, v in from_checkpoint["diffraction_to_obj"].state_dict().items())
        assert (values["N"], values["gridsize"]) == (64, 1)

    def test_loading_leaves_the_random_generators_untouched(self) -> None:
        torch.manual_seed(3)
        expected = torch.rand(4)
        torch.manual_seed(3)
        load_torch_bundle(DEMO)
        assert torch.equal(torch.rand(4), expected)

    @pytest.mark.parametrize("name", [None, "autoencoder", "diffraction_to_obj"])
    def test_both_models_whatever_the_name(self, name: str | None) -> None:
        models, _ = load_torch_bundle(base_path=DEMO, model_name=name)
        assert list(models) == ["autoencoder", "diffraction_to_obj"]

    def test_name_that_no_bundle_has(self) -> None:
        with pytest.raises(MissingModelsError, match="no model is called 'decoder'"):
            load_torch_bundle(DEMO, "decoder")

    @pytest.mark.parametrize("form", ["zip", "base path", "folder", "run directory"])
    def test_every_way_in_gives_the_same_weights(self, form: str, tmp_path: Path) -> None:
        run = tmp_path / "run"
        run.mkdir()
        shutil.copy(DEMO, run / "wts.h5.zip")
        if form == "folder":
            with zipfile.ZipFile(DEMO) as archive:
                archive.extractall(tmp_path / "unpacked")
        way = {
            "zip": run / "wts.h5.zip",
            "base path": run / "wts.h5",
            "folder": tmp_path / "unpacked",
            "run directory": run,
        }
        model = load_torch_bundle(way[form])[0]["diffraction_to_obj"]
        assert sum(float(p.double().abs().sum()) for p in model.parameters()) == pytest.approx(
            self.demo_sum(), rel=1e-12
        )

    @staticmethod
    def demo_sum() -> float:
        model = load_torch_bundle(DEMO)[0]["diffraction_to_obj"]
        return sum(float(p.double().abs().sum()) for p in model.parameters())

    def test_inference_entry_point_reads_a_run_directory(self, tmp_path: Path) -> None:
        shutil.copy(DEMO, tmp_path / "wts.h5.zip")
        models, values = load_inference_bundle_torch(tmp_path)
        assert set(models) == {"autoencoder", "diffraction_to_obj"}
        assert values["N"] == 64

    def test_inference_entry_point_is_where_scripts_look_for_it(self) -> None:
        assert components.load_inference_bundle_torch is load_inference_bundle_torch

    def test_a_domain_that_is_asked_for_must_be_the_models(self, params_cfg: dict[str, object]) -> None:
        models, _ = load_inference_bundle_torch(
            bundle_dir=DEMO, scale_contract_version="legacy_v1", measurement_domain="normalized_amplitude"
        )
        assert models["autoencoder"].data_config.measurement_domain == "normalized_amplitude"
        before = dict(params_cfg)
        with pytest.raises(EvidenceConflictError, match="the model takes normalized_amplitude"):
            load_inference_bundle_torch(DEMO, measurement_domain="count_intensity")
        with pytest.raises(ConfigurationError, match="expected 'legacy_v1' with 'normalized_amplitude', or"):
            load_inference_bundle_torch(DEMO, scale_contract_version="legacy_v1", measurement_domain="count_intensity")
        assert params_cfg == before

    def test_what_users_reach_for_on_a_module(self) -> None:
        models, _ = load_torch_bundle(DEMO)
        for model in models.values():
            assert (model.data_config.scale_contract_version, model.data_config.probe_scale) == ("legacy_v1", 4.0)
            assert (model.model_config.mode, model.model_config.architecture) == ("Unsupervised", "cnn")
            assert model.model_config.intensity_scale == 1.0
            assert model.training_config.learning_rate == 0.001
            assert model.inference_config.window == 20
            assert model.hparams["training_config"]["optimizer"] == "adam"
            assert model.torch_loss_mode == "poisson"
            assert model.get_ci_statistics() is None
            assert model.generator_overrides == {}
            assert model.model.scaler.intensity_scale_trainable is False

    def test_whole_numbers_written_as_floats(self, tmp_path: Path) -> None:
        def change(members: dict[str, bytes]) -> None:
            for member in [m for m in members if m.endswith("params.dill")]:
                values = pickle.loads(members[member])  # the test ships it
                values.update(N=64.0, gridsize=1.0, n_filters_scale=1.0)
                members[member] = pickle.dumps(values)

        models, values = load_torch_bundle(rewrite(DEMO, tmp_path / "wts.h5.zip", change))
        assert models["autoencoder"].spec.N == values["N"] == 64

    @pytest.mark.parametrize("weights", [b"no weights at all", None])
    def test_params_are_looked_at_before_weights(
        self, weights: bytes | None, tmp_path: Path, params_cfg: dict[str, object]
    ) -> None:
        path = tmp_path / "wts.h5.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(
                "manifest.dill", pickle.dumps({"models": ["diffraction_to_obj"], "version": "2.0-pytorch"})
            )
            archive.writestr("diffraction_to_obj/params.dill", pickle.dumps({"gridsize": 2}))
            if weights is not None:
                archive.writestr("diffraction_to_obj/model.pth", weights)
        refused(
            path, params_cfg, MissingParamsError, "missing required fields: N. Cannot reconstruct model architecture"
        )


def refused(path: Path, params_cfg: dict[str, object], kind: type[Exception], match: str) -> None:
    """Assert that loading fails with exactly this class and leaves `params.cfg` and the file as they were."""
    before = dict(params_cfg)
    digest = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else None
    with pytest.raises(kind, match=match) as raised:
        load_torch_bundle(path)
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    assert params_cfg == before
    assert digest is None or hashlib.sha256(path.read_bytes()).digest() == digest


class TestRefusals:
    def test_absent_file(self, tmp_path: Path, params_cfg: dict[str, object]) -> None:
        refused(tmp_path / "nowhere.zip", params_cfg, FileNotFoundError, "no such bundle")

    def test_not_a_zip(self, tmp_path: Path, params_cfg: dict[str, object]) -> None:
        (tmp_path / "wts.h5.zip").write_bytes(b"not an archive at all" * 10)
        refused(tmp_path / "wts.h5.zip", params_cfg, NotABundleError, "not a zip archive")

    def test_truncated_zip(self, tmp_path: Path, params_cfg: dict[str, object]) -> None:
        (tmp_path / "wts.h5.zip").write_bytes(DEMO.read_bytes()[:100_000])
        refused(tmp_path / "wts.h5.zip", params_cfg, DamagedBundleError, "cut short or corrupt")

    def test_one_model_missing(self, tmp_path: Path, params_cfg: dict[str, object]) -> None:
        path = rewrite(DEMO, tmp_path / "wts.h5.zip", lambda m: m.pop("diffraction_to_obj/model.pth") and None)
        refused(path, params_cfg, MissingModelsError, "lacks the weights of diffraction_to_obj")

    def test_weights_of_another_shape(self, tmp_path: Path, params_cfg: dict[str, object]) -> None:
        small, wide = tmp_path / "small", tmp_path / "wide"
        config = TrainingConfig(model=ModelConfig(N=64, gridsize=1, n_filters_scale=1))
        save_torch_bundle(small_models(), small, config)
        first = small_models()
        state = {k: v.clone() for k, v in first["diffraction_to_obj"].state_dict().items()}
        key = next(k for k in state if k.endswith("weight") and state[k].ndim == 4)
        state[key] = state[key][:, :, :2, :2].clone()
        save_torch_bundle({"autoencoder": first["autoencoder"], "diffraction_to_obj": state}, wide, config)
        refused(wide.with_suffix(".zip"), params_cfg, WeightMismatchError, "has shape")

    def test_missing_layer_is_named(self, tmp_path: Path, params_cfg: dict[str, object]) -> None:
        models = small_models()
        state = {k: v for k, v in models["autoencoder"].state_dict().items()}
        gone = [k for k in state if k.endswith("bias")][-1]
        del state[gone]
        save_torch_bundle({**models, "autoencoder": state}, tmp_path / "w", {"N": 64, "gridsize": 1})
        refused(tmp_path / "w.zip", params_cfg, WeightMismatchError, f"missing {gone}")

    def test_tensorflow_bundle(self, tmp_path: Path, params_cfg: dict[str, object]) -> None:
        path = tmp_path / "wts.h5.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(
                "manifest.dill", pickle.dumps({"models": ["autoencoder", "diffraction_to_obj"], "version": "1.0"})
            )
            archive.writestr("autoencoder/model.keras", b"")
        refused(path, params_cfg, TensorFlowBundleError, "tensorflow backend.*pytorch backend only")

    def test_failure_after_params_were_applied_puts_them_back(
        self, monkeypatch: pytest.MonkeyPatch, params_cfg: dict[str, object]
    ) -> None:
        from ptycho_torch import model_manager

        seen = {}

        def fail(*_: object, **__: object) -> None:
            seen.update(params.cfg)
            raise WeightMismatchError("sabotaged")

        monkeypatch.setattr(model_manager, "build_models", fail)
        before = dict(params_cfg)
        assert before["N"] != 64
        with pytest.raises(WeightMismatchError, match="sabotaged"):
            load_torch_bundle(DEMO)
        assert seen["N"] == 64, "params.cfg is applied before a model is built"
        assert params_cfg == before


def test_models_of_one_sentinel_bundle_are_independent() -> None:
    models, _ = load_torch_bundle(DEMO)
    first, second = (next(models[role].parameters()) for role in ("autoencoder", "diffraction_to_obj"))
    assert torch.equal(first, second)
    with torch.no_grad():
        first.add_(1.0)
    assert not torch.equal(first, second)
    again, _ = load_torch_bundle(DEMO)
    assert torch.equal(next(again["autoencoder"].parameters()), second)


@pytest.mark.parametrize("kind", [DamagedBundleError, MissingModelsError, WeightMismatchError])
def test_errors_that_one_generation_of_scripts_catches_as_runtime_errors(kind: type[Exception]) -> None:
    assert issubclass(kind, ValueError)
    assert issubclass(kind, RuntimeError)


def stored_metadata(path: Path) -> dict[str, object]:
    """Return a bundle's metadata by PyTorch's own reader."""
    with zipfile.ZipFile(path) as archive, archive.open("torch_scaling_metadata.pt") as member:
        metadata: dict[str, object] = torch.load(member, weights_only=True)
    return metadata


class TestSaveTorchBundle:
    @pytest.mark.parametrize("name", ["cnn-2026-07-n64-g2", "cnn-2026-07-n64-g1-demo", "ffno-2026-07-n64-g1"])
    def test_metadata_comes_back_value_for_value(self, name: str, tmp_path: Path) -> None:
        models, values = load_torch_bundle(bundle_path(name))
        path = save_torch_bundle(models_dict=models, base_path=tmp_path / "wts.h5", config=values)
        assert stored_metadata(path) == stored_metadata(bundle_path(name))

    @pytest.mark.parametrize("name", ["cnn-2025-11-n64-g2", "cnn-2026-02-n64-g1"])
    def test_eras_without_metadata_get_none(self, name: str, tmp_path: Path) -> None:
        models, values = load_torch_bundle(bundle_path(name))
        path = save_torch_bundle(models_dict=models, base_path=tmp_path / "wts.h5", config=values)
        with zipfile.ZipFile(path) as archive:
            assert "torch_scaling_metadata.pt" not in archive.namelist()

    def test_a_new_model_has_exactly_the_fields_of_its_era(self, tmp_path: Path) -> None:
        path = save_torch_bundle(
            models_dict=small_models(2), base_path=tmp_path / "wts.h5", config={"N": 64, "gridsize": 2}
        )
        made, example = stored_metadata(path), stored_metadata(bundle_path("cnn-2026-07-n64-g2"))

        def names(value: object) -> object:
            return {k: names(v) for k, v in value.items()} if isinstance(value, dict) else None

        assert names(made) == names(example)
        data: dict[str, object] = made["data_config"]  # type: ignore[assignment]
        assert (data["scale_contract_version"], data["measurement_domain"]) == ("legacy_v1", "normalized_amplitude")
        with zipfile.ZipFile(path) as archive:
            manifest = pickle.loads(archive.read("manifest.dill"))  # the test wrote it
        assert manifest["backend"] == "pytorch"
        assert manifest["artifact_schema_version"] == made["schema_version"] == "torch-artifact-portable-v2"

    def test_statistics_of_counts_survive(self, tmp_path: Path) -> None:
        models, values = load_torch_bundle(DEMO)
        statistics = {"rms_input_scale": [0.5], "mean_measured_intensity": [2.0]}
        for model in models.values():
            model.ci_statistics = statistics
        path = save_torch_bundle(models_dict=models, base_path=tmp_path / "wts.h5", config=values)
        assert stored_metadata(path)["ci_statistics"] == statistics
        assert load_torch_bundle(path)[0]["autoencoder"].get_ci_statistics() == statistics

    def test_both_models_are_needed(self, tmp_path: Path) -> None:
        with pytest.raises(MissingModelsError, match="lack diffraction_to_obj"):
            save_torch_bundle({"autoencoder": small_models()["autoencoder"]}, tmp_path / "w", {"N": 64})

    def test_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(OutputError, match="cannot be written"):
            save_torch_bundle(small_models(), tmp_path / "file" / "w", {"N": 64, "gridsize": 1})

    def test_equal_models_give_equal_bytes(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            save_torch_bundle(small_models(), tmp_path / name, {"N": 64, "gridsize": 1}, intensity_scale=1.0)
        assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


class TestParamsForCheckpoints:
    def test_a_bundle_has_its_own(self) -> None:
        with pytest.raises(ConfigurationError, match="has params of its own"):
            load_torch_bundle(DEMO, params_cfg={"N": 64})

    def test_they_reach_params_cfg(self, tmp_path: Path, params_cfg: dict[str, object]) -> None:
        (tmp_path / "params.json").write_text(json.dumps({"nphotons": 77.0}))
        load_torch_bundle(BUNDLES / "ffno-2026-07-n64-g1.ckpt", params_cfg=tmp_path / "params.json")
        assert params_cfg["nphotons"] == 77.0
        assert params_cfg["N"] == 64


def test_unknown_pattern_size_is_refused() -> None:
    with pytest.raises(BundleError, match="N = 64, 128 or 256"):
        create_torch_model_with_gridsize(1, 100)


def test_equal_arrays_survive_a_round_trip(tmp_path: Path) -> None:
    models = small_models()
    save_torch_bundle(models, tmp_path / "w", {"N": 64, "gridsize": 1, "n_filters_scale": 1})
    loaded, _ = load_torch_bundle(tmp_path / "w.zip")
    x = torch.from_numpy(np.random.default_rng(0).random((2, 1, 64, 64), dtype=np.float32))
    one = torch.ones(2, 1, 1, 1)
    with torch.no_grad():
        for role, model in models.items():
            assert torch.equal(model.forward_predict(x, x, x, one), loaded[role].forward_predict(x, x, x, one))
