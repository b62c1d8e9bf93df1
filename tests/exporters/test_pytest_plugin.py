"""The plug-in in somebody else's project."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from sample_bundles import ROOT, changed, members
from tampering import with_flipped_weight

pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters import ExportResult

Exported = Callable[[str], ExportResult]
NAME = "ffno-2026-07-n64-g1"


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    (folder / "test_own.py").write_text("def test_own():\n    assert True\n")
    command = [sys.executable, "-m", "pytest", "-p", "exporters.pytest_plugin", "-p", "no:cacheprovider", "-v"]
    # By name, so that it is there once, whether or not the installation's entry point brings it too.
    environment = {
        "PYTHONPATH": str(ROOT),
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command += ["--ptycho-batches", "1", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


def test_rows_become_tests(exported: Exported, tmp_path: Path) -> None:
    done = run(tmp_path, "--ptycho-bundle", exported(NAME).bundle)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "diffraction_to_obj-onnx-cpu-batch1 PASSED" in done.stdout
    assert "autoencoder-torchscript-cpu-batch1 PASSED" in done.stdout
    assert "test_own PASSED" in done.stdout


def test_bad_export_fails_its_rows(exported: Exported, tmp_path: Path) -> None:
    bundle, name = exported(NAME).bundle, "autoencoder/model.onnx"
    bad = changed(bundle, tmp_path / "bad.zip", {name: with_flipped_weight(members(bundle)[name])})
    done = run(tmp_path, "--ptycho-bundle", bad)
    assert done.returncode == 1
    assert "autoencoder-onnx-cpu-batch1 FAILED" in done.stdout
    assert "diffraction_to_obj-onnx-cpu-batch1 PASSED" in done.stdout
    assert "times the allowed error" in done.stdout


def test_absent_bundle_fails(tmp_path: Path) -> None:
    done = run(tmp_path, "--ptycho-bundle", tmp_path / "none.zip")
    assert done.returncode == 1
    assert "readable FAILED" in done.stdout
    assert "no such bundle" in done.stdout


def test_installation_declares_it() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    assert declared == {"ptycho-export": "exporters.pytest_plugin"}
