"""A `params.cfg` that every test, and every fixture that outlives one, leaves as it found it."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator

import pytest

from ptycho_torch import params


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
