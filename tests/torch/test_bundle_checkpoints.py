"""Checkpoints as training leaves them: state of the run, configuration objects, wrappers, other precisions."""

from __future__ import annotations

import collections
import functools
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sample_bundles import BUNDLES  # noqa: E402

from ptycho_torch.bundle import read_bundle  # noqa: E402
from ptycho_torch.errors import NotABundleError, UnsafeContentError, WeightMismatchError  # noqa: E402

CKPT = BUNDLES / "cnn-2026-02-n64-g1.ckpt"


def saved(tmp_path: Path, **changes: Any) -> Path:
    whole = torch.load(CKPT, weights_only=False)
    whole.update(changes)
    path = tmp_path / "last.ckpt"
    torch.save({key: value for key, value in whole.items() if value is not None}, path)
    return path


def weights() -> dict[str, Any]:
    state: dict[str, Any] = torch.load(CKPT, weights_only=False)["state_dict"]
    return state


def test_state_of_the_run_is_skipped_and_said(tmp_path: Path) -> None:
    schedulers = [{"milestones": collections.Counter({3: 1}), "_get_lr_called": functools.partial(int, "3")}]
    record = read_bundle(
        saved(tmp_path, lr_schedulers=schedulers, callbacks={"best": collections.deque([1.0], maxlen=3)})
    )
    assert np.array_equal(record.weights["autoencoder"][key := next(iter(weights()))], weights()[key])  # type: ignore[index]
    (notice,) = record.notices
    assert "state of the training run is skipped unread" in notice
    assert "collections.Counter" in notice and "functools.partial" in notice


class _Custom:
    pass


def test_a_class_of_a_stranger_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    with pytest.raises(UnsafeContentError, match=r"holds the global \S*_Custom; refused"):
        read_bundle(saved(tmp_path, callbacks={"mine": _Custom()}))


def test_training_state_where_the_configuration_should_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeContentError, match=r"holds the global collections\.Counter; refused"):
        read_bundle(saved(tmp_path, hyper_parameters={"model_config": collections.Counter()}))


def test_training_state_is_no_key_of_anything(tmp_path: Path) -> None:
    with pytest.raises(UnsafeContentError, match=r"the global torch\.nn\.modules\.linear\.Linear as a dictionary key"):
        read_bundle(saved(tmp_path, callbacks={torch.nn.Linear: 1}))


def test_configuration_objects_are_read_as_their_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("ptycho_torch.config_params")
    kinds = {}
    for name in ("ModelConfig", "DataConfig", "TrainingConfig", "InferenceConfig"):
        kinds[name] = type(name, (), {"__module__": module.__name__})
        setattr(module, name, kinds[name])
    monkeypatch.setitem(sys.modules, module.__name__, module)
    plain = torch.load(CKPT, weights_only=False)["hyper_parameters"]
    objects = {}
    for key, name in (("model_config", "ModelConfig"), ("data_config", "DataConfig")):
        objects[key] = kinds[name]()
        vars(objects[key]).update(plain[key])
    path = saved(tmp_path, hyper_parameters={**plain, **objects})
    monkeypatch.undo()
    record = read_bundle(path)
    assert record.checkpoint is not None
    assert record.checkpoint["hyper_parameters"] == plain


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_other_precisions_are_read_as_float32_and_said(dtype: str, tmp_path: Path) -> None:
    stored = {key: value.to(getattr(torch, dtype)) for key, value in weights().items()}
    record = read_bundle(saved(tmp_path, state_dict=stored))
    for key, value in stored.items():
        read = record.weights["autoencoder"][key]  # type: ignore[index]
        assert read.dtype == np.float32
        assert np.array_equal(read, value.float().numpy())
    assert record.notices == (
        f"{dtype} weights ({len(stored)} of {len(stored)}) are read as float32: last.ckpt: state_dict",
    )


def test_a_float64_beyond_float32_is_refused(tmp_path: Path) -> None:
    stored = {key: value.double() for key, value in weights().items()}
    next(iter(stored.values())).view(-1)[0] = 1e39
    with pytest.raises(WeightMismatchError, match="float64 values beyond float32"):
        read_bundle(saved(tmp_path, state_dict=stored))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda key: f"module.{key}",
        lambda key: f"_orig_mod.{key}",
        lambda key: f"module._orig_mod.{key}",
        lambda key: f"model._orig_mod.{key.removeprefix('model.')}",
    ],
)
def test_prefixes_of_wrappers_are_taken_off_and_said(wrap: Any, tmp_path: Path) -> None:
    record = read_bundle(saved(tmp_path, state_dict={wrap(key): value for key, value in weights().items()}))
    assert list(record.weights["autoencoder"]) == list(weights())
    assert any("which a wrapper added; read without it" in notice for notice in record.notices)


def test_two_keys_that_differ_in_their_wrapper_are_refused(tmp_path: Path) -> None:
    key, value = next(iter(weights().items()))
    with pytest.raises(WeightMismatchError, match="save the module itself, not a wrapper around it"):
        read_bundle(saved(tmp_path, state_dict={**weights(), f"module.{key}": value}))


def test_a_state_dict_alone_is_told(tmp_path: Path) -> None:
    path = tmp_path / "weights.ckpt"
    torch.save(weights(), path)
    with pytest.raises(NotABundleError, match="is a state_dict alone, without the configuration it was trained with"):
        read_bundle(path)


def test_a_plain_pickle_as_weights_is_told(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(pickle.dumps({"state_dict": {}}))
    with pytest.raises(NotABundleError, match=r"is a plain pickle, not a file that torch\.save wrote"):
        read_bundle(path)


def test_keys_beside_the_model_can_be_left_out(tmp_path: Path) -> None:
    extra = {"ema.model.weight": torch.ones(2), "val_metric.total": torch.tensor([float("nan")])}
    path = saved(tmp_path, state_dict={**weights(), **extra})
    assert set(extra) < set(read_bundle(path).weights["autoencoder"])
    record = read_bundle(path, ignore_extra=True)
    assert list(record.weights["autoencoder"]) == list(weights())
    assert record.weights["autoencoder"] is record.weights["diffraction_to_obj"]
    assert record.notices == ("last.ckpt: left out of the state_dict: ema.model.weight, val_metric.total",)
