"""`params.cfg`, the flat dictionary PtychoPINN configures itself by, and how configurations reach it.

Where PtychoPINN's own `ptycho.params` is importable, its `cfg` is the dictionary used here; otherwise ours is.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

_DEFAULTS: dict[str, Any] = {
    "N": 128, "offset": 4, "gridsize": 2, "outer_offset_train": None, "outer_offset_test": None, "batch_size": 16,
    "nepochs": 60, "n_filters_scale": 2, "output_prefix": "outputs", "big_gridsize": 10, "max_position_jitter": 10,
    "sim_jitter_scale": 0, "default_probe_scale": 0.7, "mae_weight": 0, "nll_weight": 1, "tv_weight": 0,
    "realspace_mae_weight": 0, "realspace_weight": 0, "nphotons": 1e9, "nimgs_train": 9, "nimgs_test": 3,
    "data_source": "generic", "probe.trainable": False, "intensity_scale.trainable": False, "positions.provided": False,
    "object.big": True, "probe.big": False, "probe_scale": 10, "set_phi": False, "probe.mask": True, "pad_object": True,
    "model_type": "pinn", "label": "", "size": 392, "amp_activation": "sigmoid", "h5_path": "wts.h5", "npseed": 42,
    "debug": True, "gaussian_smoothing_sigma": 0, "use_xla_translate": True,
}  # fmt: skip

# Names that differ between the configuration dataclasses and the legacy dictionary.
LEGACY_NAMES = {
    "object_big": "object.big",
    "probe_big": "probe.big",
    "probe_mask": "probe.mask",
    "probe_trainable": "probe.trainable",
    "intensity_scale_trainable": "intensity_scale.trainable",
    "positions_provided": "positions.provided",
    "output_dir": "output_prefix",
    "train_data_file": "train_data_file_path",
    "test_data_file": "test_data_file_path",
}


def _shared_cfg() -> dict[str, Any]:
    try:
        theirs = getattr(importlib.import_module("ptycho.params"), "cfg", None)
    except ImportError:
        theirs = None
    return theirs if isinstance(theirs, dict) else copy.deepcopy(_DEFAULTS)


cfg: dict[str, Any] = _shared_cfg()


def defaults() -> dict[str, Any]:
    """Return what `cfg` starts as when PtychoPINN is not there."""
    return copy.deepcopy(_DEFAULTS)


def to_legacy(config: Any) -> dict[str, Any]:
    """Return a configuration dataclass (or mapping) as flat legacy keys; a nested model is flattened, paths become text.

    Raises `TypeError` for anything that is neither a dataclass instance nor a mapping.
    """
    if isinstance(config, Mapping):
        items = dict(config)
    elif is_dataclass(config) and not isinstance(config, type):
        items = {f.name: getattr(config, f.name) for f in fields(config)}
    else:
        raise TypeError(f"configuration is {type(config).__name__}; expected a configuration dataclass or a dictionary")
    flat: dict[str, Any] = {}
    for name, value in items.items():
        if name == "model" and (is_dataclass(value) or isinstance(value, Mapping)):
            flat.update(to_legacy(value))
        else:
            flat[LEGACY_NAMES.get(name, name)] = os.fspath(value) if isinstance(value, os.PathLike) else value
    return flat


def update_legacy_dict(cfg: dict[str, Any], config: Any) -> None:
    """Write every value of a configuration that is not None into `cfg`, new keys included; leave the rest alone."""
    cfg.update({key: value for key, value in to_legacy(config).items() if value is not None})


@contextmanager
def restored_on_failure(target: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the dictionary and put it back exactly as it was if the block raises."""
    target = cfg if target is None else target
    before = dict(target)
    try:
        yield target
    except BaseException:
        _put_back(target, before)
        raise


@contextmanager
def restored() -> Iterator[dict[str, Any]]:
    """Yield `cfg` and put it back exactly as it was, however the block ends."""
    before = dict(cfg)
    try:
        yield cfg
    finally:
        _put_back(cfg, before)


def _put_back(target: dict[str, Any], before: Mapping[str, Any]) -> None:
    target.clear()
    target.update(before)


def snapshot(values: Mapping[str, Any] | None = None) -> str:
    """Return `cfg` (or other parameters) as JSON text with sorted keys; arrays and paths as plain values."""
    return json.dumps(plain(cfg if values is None else values), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def plain(value: Any) -> Any:
    """Return a value as plain JSON types; what JSON lacks becomes text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return plain(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value) if not isinstance(value, Path) else value.as_posix()
