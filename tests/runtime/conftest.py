"""Exported bundles for all tests of the runtime, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_bundles import bundle_path

from ptycho_torch import params


@pytest.fixture(autouse=True)
def no_tuned_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what was tuned on this host out of the tests, and the tests out of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def exported(name: str, folder: Path) -> Path:
    """Export a shared bundle and leave `params.cfg` as it was."""
    pytest.importorskip("torch", reason="PyTorch is not installed, so there is nothing to run")
    from exporters import export_bundle

    before = dict(params.cfg)
    try:
        return export_bundle(bundle_path(name), folder, batches=(1,)).bundle
    finally:
        params.cfg.clear()
        params.cfg.update(before)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the exported demo bundle."""
    return exported("cnn-2026-07-n64-g1-demo", tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def group_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an exported bundle whose groups hold four patterns."""
    return exported("cnn-2026-07-n64-g2", tmp_path_factory.mktemp("group"))
