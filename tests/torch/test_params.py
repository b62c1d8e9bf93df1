"""`params.cfg`: one dictionary, filled by configurations, put back on failure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptycho_torch import params
from ptycho_torch.config import InferenceConfig, ModelConfig, TrainingConfig


def test_dataclass_names_become_legacy_keys() -> None:
    cfg: dict[str, object] = {}
    params.update_legacy_dict(
        cfg, TrainingConfig(model=ModelConfig(N=128, object_big=False), train_data_file=Path("a/b.npz"))
    )
    assert cfg["N"] == 128
    assert cfg["object.big"] is False
    assert cfg["train_data_file_path"] == "a/b.npz"


def test_none_leaves_a_value_alone() -> None:
    cfg = {"train_data_file_path": "kept", "other": 1}
    params.update_legacy_dict(cfg, TrainingConfig(train_data_file=None))
    assert cfg["train_data_file_path"] == "kept"
    assert cfg["other"] == 1


def test_inference_config_is_flattened_too() -> None:
    cfg: dict[str, object] = {}
    params.update_legacy_dict(
        cfg, InferenceConfig(model=ModelConfig(gridsize=3), model_path=Path("m"), test_data_file=Path("t.npz"))
    )
    assert cfg["gridsize"] == 3
    assert cfg["test_data_file_path"] == "t.npz"


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="configuration is int"):
        params.update_legacy_dict({}, 3)


def test_block_that_fails_leaves_the_dictionary_as_it_was() -> None:
    cfg = {"a": 1, "b": 2}
    with pytest.raises(KeyError), params.restored_on_failure(cfg):
        cfg.update(a=5, c=3)
        del cfg["b"]
        raise KeyError
    assert cfg == {"a": 1, "b": 2}
    assert list(cfg) == ["a", "b"]


def test_snapshot_is_sorted_json_of_plain_values() -> None:
    text = params.snapshot(
        {"z": np.float32(1.5), "a": np.arange(2), "p": Path("x/y"), "n": float("nan"), "t": (1, None)}
    )
    assert list(json.loads(text)) == ["a", "n", "p", "t", "z"]
    assert json.loads(text) == {"a": [0, 1], "n": "nan", "p": "x/y", "t": [1, None], "z": 1.5}


def test_parameters_are_back_however_the_block_ends() -> None:
    before = dict(params.cfg)
    with params.restored() as cfg:
        cfg.update(N=32, unknown=1)
    assert params.cfg == before
    with pytest.raises(ValueError, match="stop"), params.restored() as cfg:
        cfg.clear()
        raise ValueError("stop")
    assert params.cfg == before


def test_ptychopinns_own_dictionary_is_used_where_it_is_importable(tmp_path: Path) -> None:
    (tmp_path / "ptycho").mkdir()
    (tmp_path / "ptycho" / "__init__.py").touch()
    (tmp_path / "ptycho" / "params.py").write_text("cfg = {'N': 999}\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from ptycho_torch import params\nimport ptycho.params\nassert params.cfg is ptycho.params.cfg\nprint(params.cfg['N'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "999"
