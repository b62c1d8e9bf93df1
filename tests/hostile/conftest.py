"""One child process reads the whole corpus within an address-space limit; the tests look at how each file ended."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cases import CASES

EXTRA_BYTES = 192 << 20  # above what Python and numpy have mapped before the first file is read


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return how each case ended, by name; `canary` and `appeared` are what it left on the disk."""
    root = tmp_path_factory.mktemp("hostile")
    canaries, home = root / "canaries", root / "home"
    canaries.mkdir()
    home.mkdir()
    listed, before = [], {}
    for case in CASES:
        folder = root / "files" / case.name
        folder.mkdir(parents=True)
        path = case.build(folder, f"touch {shlex.quote(str(canaries / case.name))}")
        listed.append([case.name, str(path)])
        before[case.name] = sorted(map(str, folder.rglob("*")))
    (root / "list.json").write_text(json.dumps(listed))
    environment = {
        **os.environ,
        "HOME": str(home),
        "TMPDIR": str(home),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [
        sys.executable,
        str(Path(__file__).with_name("child.py")),
        str(root / "list.json"),
        str(root / "result.json"),
    ]
    done = subprocess.run([*command, str(EXTRA_BYTES)], cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, dict[str, Any]] = json.loads((root / "result.json").read_text())
    for name, outcome in found.items():
        outcome["canary"] = (canaries / name).exists()
        outcome["appeared"] = sorted(set(map(str, (root / "files" / name).rglob("*"))) - set(before[name]))
        outcome["appeared"] += sorted(map(str, home.rglob("*")))
    return found
