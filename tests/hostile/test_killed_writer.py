"""A write that is killed, runs out of room or has company leaves the old file or the new one, whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")


def run(mode: str, folder: Path) -> dict[str, Any]:
    """Run one of `killed_writer`'s modes in a process of its own."""
    script = Path(__file__).with_name("killed_writer.py")
    done = subprocess.run([sys.executable, str(script), mode, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_killed_at_every_step(tmp_path: Path) -> None:
    found = run("every-step", tmp_path)
    assert found["steps"] > 40
    assert set(found["states"]) == {"old", "new"}
    assert found["states"] == sorted(found["states"], key=["old", "new"].index)  # old up to one step, new from there on
    assert found["leftovers"] > 10  # the kills were real: files were left, and the next run removed them


def test_three_writers_and_one_that_keeps_dying(tmp_path: Path) -> None:
    found = run("many-writers", tmp_path)
    assert found["statuses"] == [0, 0, 0]
    assert found["whole"] == 30
    assert found["names"] == ["wts.h5.zip"]


def test_full_disk(tmp_path: Path) -> None:
    found = run("full-disk", tmp_path)
    assert found["codes"] == [3, 3, 3, 3, 3, 3, 3, 0]
    assert found["states"] == ["old"] * 7 + ["new"]
