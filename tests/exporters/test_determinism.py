"""The same weights give the same bytes, however many threads there are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

ROOT = Path(__file__).parents[2]
PROGRAM = """
import hashlib, torch
from exporters.parity.golden import make_golden
from exporters.parity.awake import wake
from exporters.parity.inputs import make_pool
from ptycho_torch.models.module import PtychoModel
from ptycho_torch.spec import ModelSpec
torch.manual_seed(0)
model = PtychoModel(ModelSpec(era="J", generator="cnn", N=64, gridsize=1, n_filters_scale=1, c_outer=1, border_mask=True)).eval()
golden = make_golden({"diffraction_to_obj": model, "autoencoder": model}, model.spec)
pool, reach = wake(model, make_pool(model.spec, 8))
print(hashlib.sha256(golden).hexdigest(), pool.sha256(), reach.unseen)
"""


def digests(threads: int) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
    return done.stdout


def test_golden_reference_and_inputs_do_not_depend_on_the_number_of_threads() -> None:
    one, two = digests(1), digests(2)
    assert len(one.split()) == 3
    assert one == two
