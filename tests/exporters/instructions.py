"""Instructions of one inference, counted by callgrind.

`count` starts this file under valgrind. Opening a session takes ten times the instructions of a run and not the same number each
time, so counting is on during the run alone: callgrind switches it at the entry and exit of a named C function, and the run
is called through ctypes, which goes through `ffi_call`. Nothing else here does.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# One pattern a group; the middle of the patches of groups of four; products in place of Fourier transforms.
COUNTED = (
    ("cnn-2026-07-n64-g1-demo", "diffraction_to_obj"),
    ("cnn-2026-07-n64-g2", "diffraction_to_obj_centre"),
    ("ffno-2026-07-n64-g1", "diffraction_to_obj"),
)
_EXTENSIONS = ("AVX", "AVX2", "FMA3", "AVX512F")


class NotCountableError(Exception):
    """Instructions cannot be counted on this host."""


@dataclass(frozen=True)
class Counted:
    """Instructions of one inference, and what they depend on."""

    instructions: int
    onnxruntime: str
    instruction_set: str  # what the processor that valgrind emulates has; it knows no AVX-512


def count(model: Path, folder: Path) -> Counted:
    """Return the instructions of a graph's first run on one group, in one thread.

    Args:
        model: an ONNX file.
        folder: where callgrind may leave its output.

    Raises:
        NotCountableError: valgrind is not installed, or cannot see where the run starts.
        RuntimeError: the run failed.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise NotCountableError("valgrind is not installed, so instructions cannot be counted")
    out = folder / f"{model.stem}.callgrind"
    done = subprocess.run(
        [
            valgrind, "--tool=callgrind", "--toggle-collect=ffi_call", "--vgdb=no", f"--callgrind-out-file={out}",
            sys.executable, __file__, str(model),
        ],
        env={**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{model.name} did not run under valgrind (exit {done.returncode}): {done.stderr[-2000:]}")
    totals = re.search(r"^totals: (\d+)$", out.read_text(), re.M)
    instructions = int(totals[1]) if totals else 0
    if not instructions:
        raise NotCountableError(
            "this Python keeps libffi's ffi_call out of valgrind's sight, so a run cannot be told apart"
        )
    return Counted(instructions, **json.loads(done.stdout))


def _run_once(model: str) -> None:
    import numpy as np
    import onnxruntime

    from ptycho_runtime.engine.batching import warmup_feed

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    for pool in ("intra_op", "inter_op"):
        options.add_session_config_entry(f"session.{pool}.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = warmup_feed({i.name: i for i in session.get_inputs()}, batch=1)
    results: list[list[np.ndarray]] = []
    ctypes.CFUNCTYPE(None)(lambda: results.append(session.run(None, feed)))()
    # ctypes prints an exception from within and goes on.
    if not results:
        sys.exit(1)
    features = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    found = " ".join(name for name in _EXTENSIONS if features.get(name))
    print(json.dumps({"onnxruntime": onnxruntime.__version__, "instruction_set": found}))


if __name__ == "__main__":
    _run_once(sys.argv[1])
