"""A stored TorchScript file reaches no file and no network, and is only run in this way."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from exporters.formats.torchscript_run import ConfinedTorchScript  # noqa: E402
from ptycho_torch.errors import UnsafeContentError  # noqa: E402


class Doubles(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.conv2d(x, torch.ones(1, 1, 1, 1)) * 2.0,)


class Saves(torch.nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        torch.save(x, self.path)
        return (x,)


class Reads(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.from_file("/etc/passwd", False, 8, dtype=torch.uint8),)


def scripted(module: torch.nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue()


X = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)


def test_arithmetic_runs() -> None:
    with ConfinedTorchScript(scripted(Doubles()), ["y"]) as stored:
        for factor in (1, 3):
            assert np.array_equal(stored.run([X * factor])["y"], X * factor * 2)


def test_a_file_that_writes_is_not_obeyed(tmp_path: Path) -> None:
    target = tmp_path / "written.pt"
    scripted_file = scripted(Saves(str(target)))
    with ConfinedTorchScript(scripted_file, ["y"]) as stored:
        stored.run([X])
    assert list(tmp_path.iterdir()) == []
    # It does write where nothing holds it back.
    torch.jit.load(io.BytesIO(scripted_file))(torch.ones(1))
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_that_reads_is_not_obeyed() -> None:
    with (
        ConfinedTorchScript(scripted(Reads()), ["y"]) as stored,
        pytest.raises(UnsafeContentError, match="confined, raised"),
    ):
        stored.run([X])


class Endless(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        while bool(x.sum() > 0):
            x = x + 1.0
        return (x,)


def test_a_file_that_never_ends_is_ended() -> None:
    stored = ConfinedTorchScript(scripted(Endless()), ["y"], limit_s=20.0)
    with stored:
        stored.limit_s = 1.0
        with pytest.raises(UnsafeContentError, match="took more than 1 s"):
            stored.run([X])
