"""Exports that many tests look at, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from shared_exports import export_once, without_pictures

if TYPE_CHECKING:
    from exporters import ExportResult


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ExportResult]:
    """Return a function that exports a shared bundle by name; the result is shared, so copy before changing it."""
    return lambda name: export_once(name, tmp_path_factory)


@pytest.fixture(name="without_pictures")
def _without_pictures() -> Iterator[None]:
    """Leave the pictures out of the reports that a test makes."""
    with without_pictures():
        yield
