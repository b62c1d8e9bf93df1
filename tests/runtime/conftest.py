"""Exported bundles for all tests of the runtime, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared_exports import TINY, export_once

import ptycho_runtime
from ptycho_runtime import demo as package
from ptycho_runtime.image.result import Reconstruction
from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import read_scan


@pytest.fixture(autouse=True)
def no_tuned_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what was tuned on this host out of the tests, and the tests out of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def exported(name: str, factory: pytest.TempPathFactory) -> Path:
    """Export a shared bundle, or find it exported."""
    pytest.importorskip("torch", reason="PyTorch is not installed, so there is nothing to run")
    return export_once(name, factory).bundle


@pytest.fixture(scope="session")
def demo_result() -> Reconstruction:
    """Return the image of every third pattern of the demo that comes with the package; it needs neither PyTorch nor an export."""
    options = ReadOptions(domain="intensity", every=3)
    with ptycho_runtime.open(package.MODEL, "cpu") as model, read_scan(package.SCAN, 64, options) as scan:
        return model.reconstruct(scan)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the exported demo bundle."""
    return exported("cnn-2026-07-n64-g1-demo", tmp_path_factory)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an exported bundle with the inputs and outputs of the demo and hardly any weights, for what is not about numbers."""
    return exported(TINY, tmp_path_factory)


@pytest.fixture(scope="session")
def group_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an exported bundle whose groups hold four patterns."""
    return exported("cnn-2026-07-n64-g2", tmp_path_factory)
