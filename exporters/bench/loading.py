"""Reading a bundle safely, against PyTorch reading the same weights out of a zip of the same kind.

Started as `python -m exporters.bench.loading FILE bundle|torch`, each in a fresh process.
"""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporters.bench.case import CannotRun
from exporters.bench.contenders import thread_environment
from exporters.bench.memory import peak_bytes, resident_bytes
from ptycho_torch.bundle import BundleRecord, is_own_member
from ptycho_torch.bundle.write import write_zip

REPEATS = 5


@dataclass(frozen=True)
class Loading:
    """What both readers took, imports left out; medians."""

    weights_bytes: int
    bundle_s: float
    bundle_bytes: int  # above what the process had before
    torch_s: float
    torch_bytes: int

    def line(self) -> str:
        """Return the comparison in one line."""
        seconds = self.bundle_s / self.torch_s
        bundle, torch = self.bundle_bytes / self.weights_bytes, self.torch_bytes / self.weights_bytes
        return (
            f"read_bundle takes {seconds:.2f} × the time of unzipping the weights and torch.load(weights_only=True); "
            f"peak memory {bundle:.2f} × the weights' bytes against {torch:.2f} ×"
        )


def _saved(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return what `torch.save` writes of a state dict."""
    import torch

    buffer = io.BytesIO()
    torch.save({key: torch.tensor(value) for key, value in arrays.items()}, buffer)
    return buffer.getvalue()


def compare_loading(record: BundleRecord, path: Path, threads: int) -> Loading:
    """Return what reading takes, the two readers by turns in fresh processes.

    A bundle is a compressed zip of one member a network, and so is what PyTorch reads; `read_bundle` takes digests of all members,
    settles the parameters and checks the weights besides.

    Args:
        record: the bundle as read.
        path: the file it was read from.
        threads: for every process.
    """
    weights = {role: value for role, value in record.weights.items() if isinstance(value, dict)}
    size_bytes = sum(array.nbytes for arrays in weights.values() for array in arrays.values())
    found: dict[str, list[tuple[float, int]]] = {"bundle": [], "torch": []}
    with tempfile.TemporaryDirectory(prefix="bench-weights-") as folder:
        plain = Path(folder) / "weights.zip"
        write_zip(plain, [(role, _saved(arrays)) for role, arrays in weights.items()])
        if record.exports is not None and record.kind == "zip":  # as it was before the exports were added
            own = [(name, record.read_member(name)) for name, _ in record.members if not is_own_member(name)]
            path = Path(folder) / "bundle.zip"
            write_zip(path, own)
        for _ in range(REPEATS):
            for reader, file in (("bundle", path), ("torch", plain)):
                done = subprocess.run(
                    [sys.executable, "-m", "exporters.bench.loading", str(file), reader],
                    capture_output=True, text=True, env=thread_environment(threads), check=False,
                )  # fmt: skip
                if done.returncode:
                    raise CannotRun(f"{reader}: {done.stderr.strip().rpartition(chr(10))[2]}")
                seconds, peak = json.loads(done.stdout)
                found[reader].append((seconds, peak))
    middle = {
        reader: (statistics.median(s for s, _ in pairs), int(statistics.median(b for _, b in pairs)))
        for reader, pairs in found.items()
    }
    return Loading(size_bytes, *middle["bundle"], *middle["torch"])


def main() -> None:
    """Print [seconds, bytes above what was resident before] of one reading."""
    path, reader = sys.argv[1:]
    if reader == "torch":
        import torch

        before = resident_bytes()
        start = time.perf_counter()
        with zipfile.ZipFile(path) as archive:
            held: object = [
                torch.load(io.BytesIO(archive.read(name)), weights_only=True) for name in archive.namelist()
            ]
    else:
        from ptycho_torch.bundle import read_bundle

        before = resident_bytes()
        start = time.perf_counter()
        held = read_bundle(path)
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, max(0, peak_bytes() - before)]))
    del held


if __name__ == "__main__":
    main()
