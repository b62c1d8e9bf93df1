"""Range checks on the numbers a bundle's parameters and configurations hold, before anything is sized by them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ptycho_runtime.files import printable
from ptycho_torch.errors import LimitExceededError

# Generous: an architecture outside what PtychoPINN builds is refused later, with the list of what it builds. These bounds
# only keep a number from a file from asking for more than a machine has.
_WHOLE: dict[str, tuple[int, int]] = {
    "N": (1, 4096),
    "gridsize": (1, 64),
    "C": (1, 4096),
    "C_model": (1, 4096),
    "C_forward": (1, 4096),
    "n_filters_scale": (1, 1024),
    "fno_modes": (1, 4096),
    "fno_width": (1, 65536),
    "fno_blocks": (0, 1024),
    "fno_cnn_blocks": (0, 1024),
    "learned_input_channels": (1, 4096),
    "max_hidden_channels": (1, 1 << 20),
    "resnet_width": (1, 1 << 20),
    "num_datasets": (1, 1 << 20),
    "decoder_last_amp_channels": (1, 65536),
    "decoder_spatial_kernel": (1, 1024),
    "neighbor_count": (0, 1 << 20),
    "batch_size": (1, 1 << 30),
}
_REAL: dict[str, tuple[float, float]] = {
    "nphotons": (0.0, 1e30),
    "probe_scale": (0.0, 1e15),
    "intensity_scale": (0.0, 1e30),
    "max_neighbor_distance": (0.0, 1e6),
    "amplitude_physics_gain": (-1e15, 1e15),
}
_MAX_DEPTH = 4  # configurations lie at most this deep in a checkpoint


def check_numbers(values: Mapping[Any, Any], where: str, _depth: int = 0) -> None:
    """Refuse sizes and scales that no bundle has, in a dictionary and the dictionaries inside it.

    Values that are no numbers are left to the architecture's own checks, which know what is expected there.

    Raises:
        LimitExceededError: a number that is not finite or beyond any real bundle's; the message names it and the range.
    """
    for key, stored in values.items():
        value = stored
        if isinstance(value, Mapping) and _depth < _MAX_DEPTH:
            check_numbers(value, where, _depth + 1)
        if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not isinstance(key, str):
            continue
        low, high = _WHOLE.get(key) or _REAL.get(key) or (-math.inf, math.inf)
        known = key in _WHOLE or key in _REAL
        if known and not low <= value <= high:
            raise LimitExceededError(
                f"{where}: {printable(key)} is {printable(value)}; expected {low:g} to {high:g}; refused before anything is made of it"
            )
