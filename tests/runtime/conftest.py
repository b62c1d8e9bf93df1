"""Exported bundles for all tests of the runtime, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_once import graphs_made_once, shared_folder
from sample_bundles import bundle_path


@pytest.fixture(autouse=True)
def no_tuned_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what was tuned on this host out of the tests, and the tests out of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def exported(name: str, factory: pytest.TempPathFactory) -> Path:
    """Export a shared bundle."""
    pytest.importorskip("torch", reason="PyTorch is not installed, so there is nothing to run")
    from exporters import export_bundle

    with graphs_made_once(shared_folder(factory)):
        return export_bundle(bundle_path(name), factory.mktemp(name), batches=(1,)).bundle


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the exported demo bundle."""
    return exported("cnn-2026-07-n64-g1-demo", tmp_path_factory)


@pytest.fixture(scope="session")
def group_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an exported bundle whose groups hold four patterns."""
    return exported("cnn-2026-07-n64-g2", tmp_path_factory)
