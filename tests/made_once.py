"""Graphs that many tests export, made once in a run of the tests: what those tests look at comes after the exporter.

The exporter itself is tested by those that call it directly, and by those that ask for it with `exporting_anew`.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def graphs_made_once(folder: Path) -> Iterator[None]:
    """Let `exporters.pipeline` take a graph's file from a folder where it was made before from the same model and arguments."""
    from exporters import pipeline

    with pytest.MonkeyPatch.context() as patch:
        for name in ("export_onnx", "export_torchscript"):
            patch.setattr(pipeline, name, _remembered(getattr(pipeline, name), folder))
        yield


@contextmanager
def exporting_anew() -> Iterator[None]:
    """Export graphs in this block whether or not they were made before."""
    from exporters import pipeline
    from exporters.formats.onnx import export_onnx
    from exporters.formats.torchscript import export_torchscript

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "export_onnx", export_onnx)
        patch.setattr(pipeline, "export_torchscript", export_torchscript)
        yield


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """Return a folder of this run of the tests, the same for all its processes."""
    base = factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / "graphs-made-once"
    folder.mkdir(exist_ok=True)
    return folder


def _remembered(export: Callable[..., bytes], folder: Path) -> Callable[..., bytes]:
    def remembered(module: Any, *arguments: object) -> bytes:
        file = folder / f"{export.__name__}-{_digest(module, arguments)}"
        if not file.exists():
            made = file.with_suffix(f".{id(module)}.tmp")
            made.write_bytes(export(module, *arguments))
            made.rename(file)
        return file.read_bytes()

    return remembered


def _digest(module: Any, arguments: tuple[object, ...]) -> str:
    import torch

    weights = io.BytesIO()
    torch.save(module.state_dict(), weights)
    plain = {
        name: [(key, value) for key, value in sorted(vars(part).items()) if not key.startswith("_")]
        for name, part in module.named_modules()
    }
    text = re.sub(r"0x[0-9a-f]+", "", repr((type(module).__name__, module, plain, arguments)))  # addresses
    return hashlib.sha256(text.encode() + weights.getvalue()).hexdigest()
