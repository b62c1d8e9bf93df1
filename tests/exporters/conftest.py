"""Exports that many tests look at, made once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from made_once import graphs_made_once, shared_folder
from sample_bundles import bundle_path

if TYPE_CHECKING:
    from exporters import ExportResult


@pytest.fixture(scope="session", autouse=True)
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Export no graph twice."""
    with graphs_made_once(shared_folder(tmp_path_factory)):
        yield


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ExportResult]:
    """Return a function that exports a shared bundle by name; the result is shared, so copy before changing it."""

    @functools.cache
    def make(name: str) -> ExportResult:
        from exporters import export_bundle
        from ptycho_torch import params

        with params.restored():  # whichever test asks first, before or after it applied parameters
            params.cfg.clear()
            params.cfg.update(params.defaults())
            return export_bundle(bundle_path(name), tmp_path_factory.mktemp(name), batches=(1, 3))

    return make
