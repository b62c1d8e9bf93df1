"""A bundle's life in four processes: saved, loaded, exported, run where PyTorch cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

SAVE = """
import torch
from ptycho_torch import create_torch_model_with_gridsize, save_torch_bundle
torch.manual_seed(11)
fields = {"generator": "ffno", "output_mode": "real_imag", "object_big": False, "fno_width": 4, "fno_modes": 4, "fno_blocks": 1}
models = {role: create_torch_model_with_gridsize(1, 64, fields) for role in ("autoencoder", "diffraction_to_obj")}
save_torch_bundle(models, "run/wts.h5", {"N": 64, "gridsize": 1})
"""
LOAD = """
import numpy as np, torch
from ptycho_torch import load_torch_bundle, params
models, _ = load_torch_bundle("run/wts.h5")
assert params.cfg["N"] == 64
x = torch.from_numpy(np.random.default_rng(5).random((3, 1, 64, 64), dtype=np.float32))
with torch.no_grad():
    patches = models["diffraction_to_obj"].forward_predict(x, None, None, torch.full((3, 1, 1, 1), 0.7))
np.savez("expected.npz", x=x.numpy(), patches=patches.numpy())
"""
RUN = """
import sys
sys.modules["torch"] = None
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("out/diffraction_to_obj/model.onnx", providers=["CPUExecutionProvider"])
x = np.load("expected.npz")["x"]
real, imag = session.run(None, {"diffraction": x, "input_scale_factor": np.full((3, 1, 1, 1), 0.7, np.float32)})
np.save("found.npy", real + 1j * imag)
assert sys.modules["torch"] is None
"""


@pytest.mark.long
def test_bundle_saved_loaded_exported_and_run_in_processes_of_their_own(tmp_path: Path) -> None:
    steps = (
        ["-c", SAVE],
        ["-c", LOAD],
        ["-m", "exporters", "export", "run", "--out", "out", "--batches", "1"],
        ["-c", RUN],
    )
    for step in steps:
        done = subprocess.run([sys.executable, *step], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    expected, found = np.load(tmp_path / "expected.npz")["patches"], np.load(tmp_path / "found.npy")
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
