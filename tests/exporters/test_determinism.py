"""The same weights give the same bytes, however many threads there are."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters.parity.awake import wake  # noqa: E402
from exporters.parity.golden import make_golden  # noqa: E402
from exporters.parity.inputs import make_pool  # noqa: E402
from ptycho_torch.models.module import PtychoModel  # noqa: E402
from ptycho_torch.spec import ModelSpec  # noqa: E402

ROOT = Path(__file__).parents[2]


def reference() -> str:
    """Return what identifies a golden reference, and inputs that were looked for."""
    torch.manual_seed(0)
    model = PtychoModel(
        ModelSpec(era="J", generator="cnn", N=64, gridsize=1, n_filters_scale=1, c_outer=1, border_mask=True)
    ).eval()
    golden = make_golden({"diffraction_to_obj": model, "autoencoder": model}, model.spec)
    pool, reach = wake(model, make_pool(model.spec, 8))
    return f"{hashlib.sha256(golden).hexdigest()} {pool.sha256()} {reach.unseen}"


REFERENCE = "from test_determinism import reference\nprint(reference())"

EXPORT = """
import hashlib, sys
from pathlib import Path
from shared_exports import tiny_bundle
from exporters import export_bundle
folder = Path(sys.argv[1])
result = export_bundle(tiny_bundle(folder), folder / "out", batches=(5,))
for name in ("exports.json", "golden.npz", result.bundle.name):
    print(name, hashlib.sha256((folder / "out" / name).read_bytes()).hexdigest())
"""


def digests(threads: int, program: str, *arguments: object) -> str:
    """Return what a program prints that may use so many processors and threads."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests", Path(__file__).parent)))
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    pinned = f"import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{threads}])\n{program}"
    command = [sys.executable, "-c", pinned, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def test_golden_reference_and_inputs_do_not_depend_on_the_number_of_threads() -> None:
    here = torch.get_num_threads()
    with torch.random.fork_rng():
        found = reference()
    assert len(found.split()) == 3
    assert digests(1 if here > 1 else 2, REFERENCE).strip() == found


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_whole_bundle_does_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    one, two = (digests(threads, EXPORT, tmp_path / str(threads)) for threads in (1, 2))
    assert [line.split()[0] for line in one.splitlines()] == ["exports.json", "golden.npz", "wts.h5.zip"]
    assert one == two
