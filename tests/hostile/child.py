"""Runs in a process of its own with little memory: reads every file of a list and says how each ended.

Usage: child.py LIST RESULT EXTRA_BYTES. LIST is JSON [[name, path], …]; RESULT is where the outcomes go, as JSON.
"""

from __future__ import annotations

import copy
import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy  # noqa: F401  # before the limit: what it maps is not the reader's doing

from exporters.inspect.audit import scan_file
from ptycho_torch import params
from ptycho_torch.bundle import read_bundle

_FORBIDDEN = (
    "exec", "compile", "import", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pickle.find_class",
    "marshal.loads", "socket.connect", "ctypes.dlopen", "os.remove", "os.rename", "os.mkdir", "os.symlink", "shutil.copyfile",
)  # fmt: skip
_events: list[str] = []
_watching = False


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if not _watching:
        return
    if event in _FORBIDDEN:
        _events.append(f"{event} {arguments[:1]!r}"[:200])
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        _events.append(f"open for writing {arguments[0]!r}")


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def main(list_path: str, result_path: str, extra_bytes: str) -> None:
    """Read every file and write the outcomes."""
    global _watching
    cases = json.loads(Path(list_path).read_text())
    sys.addaudithook(_audit)
    for _, path in cases[:1]:  # what is imported late is imported now
        scan_file(path)
    limit = _status_bytes("VmSize") + int(extra_bytes)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = copy.deepcopy(params.cfg)
    outcomes = {}
    for name, path in cases:
        _events.clear()
        started = time.process_time()
        error_class = message = None
        _watching = True
        try:
            read_bundle(path)
        except BaseException as error:  # the test says which ones are right
            error_class, message = type(error).__name__, str(error)
        seconds = time.process_time() - started
        scan = scan_file(path)
        _watching = False
        outcomes[name] = {
            "error_class": error_class,
            "message": message,
            "seconds": seconds,
            "events": list(_events),
            "cfg_untouched": params.cfg == before,
            "torch": "torch" in sys.modules,
            "scan": scan.to_dict(),
            "scan_exit_code": scan.exit_code,
            "scan_lines": scan.text().count("\n"),
        }
    Path(result_path).write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(*sys.argv[1:])
