"""Drawing leaves nothing in a home that has nothing of matplotlib's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

DRAW = """
import os
from ptycho_runtime.drawing import import_matplotlib
import_matplotlib()
from matplotlib.figure import Figure
figure = Figure()
figure.subplots().set_title("ψ")
figure.savefig(os.devnull, format="png")
assert "MPLCONFIGDIR" not in os.environ
"""


@pytest.mark.parametrize("used_before", [False, True])
def test_home_stays_as_it_was(used_before: bool, tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    if used_before:
        (home / ".cache/matplotlib").mkdir(parents=True)
    environment = {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", DRAW], env=environment, check=True, timeout=60)
    assert list(temporary.iterdir()) == []
    fonts = [path.name for path in home.rglob("fontlist*.json")]
    assert bool(fonts) == used_before
    assert used_before or list(home.iterdir()) == []
