"""`make` hands on what it is given, character by character; nothing in a value is run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
STUB = f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"
GIVEN_BY_MAKE = (
    "BUNDLE",
    "OUT",
    "SCAN",
    "BUDGET",
    "GIVEN",
    "PYTHON",
    "VENV",
    "BASE",
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
)


def made(folder: Path, *arguments: str) -> list[str]:
    """Return the arguments with which a target calls Python."""
    stub = folder / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    command = ["make", "-s", "-C", str(ROOT), f"PYTHON={stub}", *arguments]
    # As from a shell: `make test` has given its own values to this process.
    env = {name: value for name, value in os.environ.items() if name not in GIVEN_BY_MAKE}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=env)
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "value",
    ["/data/my run/wts.h5.zip", "O'Brien.zip", 'a"b.zip', "a; touch CANARY", "run$X7", "$(shell touch CANARY)", "`touch CANARY`", "a\\b", "*"],
)  # fmt: skip
def test_a_value_arrives_as_it_was_given(value: str, tmp_path: Path) -> None:
    assert made(tmp_path, "inspect", f"BUNDLE={value}") == ["-m", "exporters", "inspect", value]
    assert made(tmp_path, "export", f"BUNDLE={value}", f"OUT={value}")[3:] == ["--out", value, value]
    arguments = made(tmp_path, "reconstruct", f"BUNDLE={value}", f"SCAN={value}", f"OUT={value}")
    assert arguments == ["-m", "ptycho_runtime", "reconstruct", value, value, "-o", value]
    assert [path.name for path in tmp_path.iterdir()] == ["python"]
    assert not (ROOT / "CANARY").exists()


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    assert made(tmp_path, "inspect") == ["-m", "exporters", "inspect", "examples/demo/wts.h5.zip"]
    assert made(tmp_path, "verify") == ["-m", "exporters", "verify", "artifacts/wts.h5/wts.h5.zip"]
    assert made(tmp_path, "bench") == ["-m", "exporters", "bench", "examples/demo/wts.h5.zip"]
    budget = made(tmp_path, "bench", "BUDGET=phase=0.01rad,amp=1%")
    assert budget[3:-1] == ["--scan", "examples/demo/scan.npz", "--budget", "phase=0.01rad,amp=1%"]
