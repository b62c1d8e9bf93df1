"""An exported model of one layer with its stored inputs and float64 references: what engines are proven on, without a real network."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_layer import N, write_model

from ptycho_runtime import contract
from ptycho_runtime.engine import openvino
from ptycho_runtime.engine.tuned import Setting, Trial, Tuned, remember
from ptycho_runtime.export.bundle import Export, open_export

GRAPH = contract.DIFFRACTION_TO_OBJ


def proven_export(folder: Path, gridsize: int = 1) -> Export:
    """Return the export of one layer, with a `golden.npz` of three groups."""
    export = open_export(write_model(folder / "model.onnx", gridsize))
    rng = np.random.default_rng(0)
    x = rng.poisson(3.0, (3, gridsize**2, N, N)).astype(np.float32)
    scale = np.array([0.5, 1.0, 2.0], np.float32).reshape(3, 1, 1, 1)
    padded = np.pad((x * scale).astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    kernels = {
        contract.OBJECT_REAL: np.outer([1, 2, 1], [1, 2, 1]) / 16,
        contract.OBJECT_IMAG: np.outer([1, 0, -1], [1, 2, 1]) / 16,
    }
    arrays = {f"{GRAPH}.input.{contract.DIFFRACTION}": x, f"{GRAPH}.input.{contract.INPUT_SCALE}": scale}
    for name, kernel in kernels.items():
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        arrays[f"{GRAPH}.reference.{name}"] = np.einsum("bcijkl,kl->bcij", windows, kernel)
        arrays[f"{GRAPH}.allowed.{name}"] = np.array([1e-5, 1e-6])
    file = io.BytesIO()
    np.savez(file, **arrays)
    return replace(export, golden=file.getvalue())


def tuned_for(export: Export, *trials: tuple[Setting, float], version: str | None = None) -> None:
    """Remember speeds on this host's CPU."""
    versions = {"openvino": openvino.installed_version() if version is None else version}
    remember(export, GRAPH, "cpu", Tuned(tuple(Trial(setting, rate, 0.0) for setting, rate in trials), versions))


def computing_wrongly(monkeypatch: pytest.MonkeyPatch, factor: float = 1.001) -> None:
    """Let OpenVINO multiply what it gives."""
    right = openvino.OpenVinoSession.run

    def wrong(session: openvino.OpenVinoSession, feed: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {name: values * np.float32(factor) for name, values in right(session, feed).items()}

    monkeypatch.setattr(openvino.OpenVinoSession, "run", wrong)
