"""The plug-in in somebody else's project."""

from __future__ import annotations

import subprocess
import sys
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
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-v",
        "--ptycho-batches",
        "1",
        *map(str, arguments),
    ]
    if (
        "ptycho-export"
        not in subprocess.run(
            [sys.executable, "-m", "pytest", "--version", "--version"], capture_output=True, text=True, check=False
        ).stderr
    ):
        command[3:3] = ["-p", "exporters.pytest_plugin"]  # an installation from before the entry point
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
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
