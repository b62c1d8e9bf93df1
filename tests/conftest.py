"""A `params.cfg` that every test leaves as it found it."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from ptycho_torch import params


@pytest.fixture(autouse=True)
def params_cfg() -> Iterator[dict[str, object]]:
    """Give a test the shared dictionary and put it back afterwards."""
    before = copy.deepcopy(params.cfg)
    yield params.cfg
    params.cfg.clear()
    params.cfg.update(before)
