"""Stores exports in an unpacked bundle in processes that are killed at every line of the writer.

Usage: killed_folder.py FOLDER [one-by-one]. Prints one JSON object. Runs on its own because it forks.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from exporters.stored import exchange
from ptycho_runtime import files
from ptycho_torch.bundle.record import BundleRecord

OWN = {"manifest.dill": b"m", "autoencoder/model.pth": b"w" * 5000, "notes/mine.txt": b"n"}
OLD = {"autoencoder/model.onnx": b"old", "golden.npz": b"old", "exports.json": b'{"is": "old"}'}
NEW = {"autoencoder/model.onnx": b"new" * 5000, "exports.json": b'{"is": "new"}', "golden.npz": b"new"}

STRIDE = 7  # of some hundred lines


def made(folder: Path) -> BundleRecord:
    """Return the record of a folder with an older export, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in {**OWN, **OLD}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in OWN.items()}
    sizes = tuple((name, len(data)) for name, data in {**OWN, **OLD}.items())
    return BundleRecord(
        folder, "folder", "", "", sizes, {}, {}, {}, exports=json.loads(OLD["exports.json"]), _digests=digests
    )


def state(folder: Path) -> str:
    """Return whether a folder is old or new, or has no exports; "mixed" for anything else."""
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    if {name: found.get(name) for name in OWN} != OWN:
        return "mixed"
    if "exports.json" not in found:
        return "none"
    return {str(sorted({**OWN, **OLD}.items())): "old", str(sorted({**OWN, **NEW}.items())): "new"}.get(
        str(sorted(found.items())), "mixed"
    )


class _Killer:
    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, argument: Any) -> _Killer:
        if event == "line" and frame.f_code.co_filename in (exchange.__file__, files.__file__):
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def main() -> None:
    """Kill at each step; after each say what is left, and that the next run clears up."""
    folder = Path(sys.argv[1]) / "wts.h5"
    if sys.argv[2:]:
        exchange.change_places = lambda first, second: False
    states, leftovers, step = [], 0, 0
    while True:
        record = made(folder)
        pid = os.fork()
        if pid == 0:
            sys.settrace(_Killer(step))
            exchange.store_in_folder(record, NEW)
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        states.append(state(folder))
        leftovers += len(list(folder.parent.iterdir())) - 1
        if not os.WIFSIGNALED(status):
            break
        exchange.store_in_folder(made(folder), NEW)
        assert [path.name for path in folder.parent.iterdir()] == [folder.name], "leftovers were not cleaned up"
        step += STRIDE
    assert os.WEXITSTATUS(status) == 0, status
    print(json.dumps({"steps": step, "states": states, "leftovers": leftovers}))


if __name__ == "__main__":
    main()
