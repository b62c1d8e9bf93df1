"""One exported demo bundle for all tests of the runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_bundles import DEMO


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the exported demo bundle."""
    pytest.importorskip("torch", reason="PyTorch is not installed, so there is nothing to run")
    from exporters import export_bundle

    return export_bundle(DEMO, tmp_path_factory.mktemp("demo"), batches=(1,)).bundle


@pytest.fixture(scope="session")
def group_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an exported bundle whose groups hold four patterns."""
    pytest.importorskip("torch", reason="PyTorch is not installed, so there is nothing to run")
    from sample_bundles import bundle_path

    from exporters import export_bundle

    return export_bundle(bundle_path("cnn-2026-07-n64-g2"), tmp_path_factory.mktemp("group"), batches=(1,)).bundle
