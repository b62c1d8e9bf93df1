"""Nothing that is run here reports to anybody: no file in the home, no socket."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sample_bundles import ROOT

SOCKET = {"x86_64": 41, "aarch64": 198}  # number of the system call, from the kernel's own tables
needs_seccomp = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in SOCKET, reason="this system offers no seccomp filter"
)
# Run first in the process: from then on opening a socket, in whatever thread and language, ends it with SIGSYS.
DIE_ON_A_SOCKET = f"""
import ctypes, sys
class Step(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("k", ctypes.c_uint))
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.POINTER(Step)))
steps = (Step * 4)(Step(0x20, 0, 0, 0), Step(0x15, 0, 1, {SOCKET.get(platform.machine(), 0)}), Step(6, 0, 0, 0x80000000), Step(6, 0, 0, 0x7FFF0000))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(4, steps)), 0, 0) == 0
"""
RUN = """
import ptycho_runtime
with ptycho_runtime.open(sys.argv[1], device="cpu") as model:
    model.warmup()
"""
RUN_OPENVINO = """
from ptycho_runtime.engine.openvino import OpenVinoSession
from ptycho_runtime import open_export
with OpenVinoSession(open_export(sys.argv[1]).graphs["diffraction_to_obj"]) as session:
    session.warmup()
"""
WAIT = "import time; time.sleep(1)"


def run_in_an_empty_home(code: str, home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY")
    }
    return subprocess.run(
        [sys.executable, "-c", DIE_ON_A_SOCKET + code, *map(str, arguments)],
        env={**environment, "HOME": str(home)},
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


@needs_seccomp
def test_the_filter_would_show_a_socket(tmp_path: Path) -> None:
    done = run_in_an_empty_home("import socket; socket.socket()", tmp_path)
    assert done.returncode == -signal.SIGSYS


@needs_seccomp
@pytest.mark.parametrize("code", [RUN, RUN_OPENVINO], ids=["onnxruntime", "openvino"])
def test_opening_and_running_a_session_leaves_no_file_and_opens_no_socket(
    code: str, demo: Path, tmp_path: Path
) -> None:
    if "openvino" in code:
        pytest.importorskip("openvino")
    done = run_in_an_empty_home(code + WAIT, tmp_path, demo)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("package", ["ptycho_runtime.contract", "ptycho_runtime.cli.main", "exporters"])
def test_telemetry_is_off_before_onnxruntime_can_be_imported(package: str) -> None:
    code = f"import sys, os, {package}; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout == "1 False\n", done.stderr
