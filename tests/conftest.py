"""What holds for all tests: the same examples in every run, and a `params.cfg` that each test leaves as it found it."""

from __future__ import annotations

import copy
import gc
from collections.abc import Generator, Iterator

import hypothesis
import pytest

from ptycho_torch import params

# PyTorch and its exporter make objects by the hundred thousand that stay; looking through them for circles after every 700 new ones
# took a third of an export's time.
gc.set_threshold(50_000, 20, 20)
# Property tests try the same examples in every run and have no clock: none fails by chance, or because the host is busy.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def params_cfg() -> Iterator[dict[str, object]]:
    """Give a test the shared dictionary and put it back afterwards."""
    before = copy.deepcopy(params.cfg)
    yield params.cfg
    _put_back(before)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
    """Put the dictionary back after a fixture that is made before `params_cfg` looks at it, such as a module's export."""
    if fixturedef.scope == "function":
        return (yield)
    before = copy.deepcopy(params.cfg)
    try:
        return (yield)
    finally:
        _put_back(before)


def _put_back(before: dict[str, object]) -> None:
    params.cfg.clear()
    params.cfg.update(before)
