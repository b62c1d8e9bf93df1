"""A live run that is killed, and a server that is: the image in the end is that of the file, to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from one_layer import write_model, write_scan
from test_live_stream import SCALE, assert_same_image

pytest.importorskip("p4p")
pytestmark = pytest.mark.long
COUNT = 196
HOW = ("--device", "cpu", "--batch", "8", "--threads", "1", "--input-scale", SCALE, "--amplitude")
RUNTIME = (sys.executable, "-m", "ptycho_runtime")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Return (model, scan, image of the file)."""
    model, scan, image = tmp_path / "model.onnx", tmp_path / "scan.npz", tmp_path / "ref.h5"
    write_model(model)
    write_scan(scan, side=14)
    subprocess.run([*RUNTIME, "reconstruct", model, scan, "-o", image, *HOW], check=True, capture_output=True)
    return model, scan, image


def replay(scan: Path, fps: float, port: int = 0) -> tuple[subprocess.Popen[str], int]:
    command = [
        *RUNTIME,
        "replay",
        str(scan),
        "pva://DET:",
        "--fps",
        str(fps),
        "--port",
        str(port),
        "--amplitude",
        "--quiet",
        "--json",
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, int(json.loads(server.stdout.readline())["port"])


def live(model: Path, out: Path, port: int, *options: str) -> subprocess.Popen[str]:
    surroundings = {**os.environ, "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{port}", "EPICS_PVA_AUTO_ADDR_LIST": "NO"}
    command = [
        *RUNTIME,
        "live",
        str(model),
        "pva://DET:image",
        "--positions",
        "pva://DET:positions",
        "-o",
        str(out),
        "--json",
    ]
    command += [*HOW, "--frames", str(COUNT), "--idle-s", "60", "--journal-s", "0.2", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=surroundings)


def wait_until(known: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not known():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_sigkill_and_resume(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, scan, image = files
    out = tmp_path / "o.h5"
    server, port = replay(scan, 60)
    killed = live(model, out, port)
    state = out.with_name("o.h5.journal") / "state.npz"
    wait_until(state.is_file)
    time.sleep(0.7)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    server.terminate()
    server.wait()
    assert state.is_file()
    assert not out.exists()
    server, port = replay(scan, 400)
    again = live(model, out, port, "--resume")
    account = json.loads(again.communicate(timeout=120)[0].splitlines()[-1])
    server.terminate()
    server.wait()
    assert again.returncode == 0
    assert (account["placed"], account["missing"]) == (COUNT, 0)
    assert account["duplicates"] > 0, "what was placed before came again"
    assert_same_image(out, image)


def test_server_that_goes_and_comes_again(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, scan, image = files
    out = tmp_path / "o.h5"
    server, port = replay(scan, 60)
    running = live(model, out, port)
    wait_until((out.with_name("o.h5.journal") / "state.npz").is_file)
    server.kill()
    server.wait()
    server, _ = replay(scan, 400, port)
    account = json.loads(running.communicate(timeout=120)[0].splitlines()[-1])
    server.terminate()
    server.wait()
    assert running.returncode == 0
    assert (account["placed"], account["missing"]) == (COUNT, 0)
    assert account["duplicates"] > 0
    assert_same_image(out, image)
