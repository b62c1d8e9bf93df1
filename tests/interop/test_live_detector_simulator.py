"""pvaPy's area-detector simulator, a server that is not ours: its frames land where the plan says, all of them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

pytest.importorskip("p4p")
sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
from one_layer import N, write_model

SIMULATOR = os.environ.get("PVAPY_AD_SIM_SERVER") or shutil.which("pvapy-ad-sim-server")
pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(SIMULATOR is None, reason="pvapy is not installed"),
]
COUNT, PLACE_PX = 40, 40.0


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_frames_of_the_simulator_land_at_their_places(tmp_path: Path) -> None:
    # Frames are filled with their own number, which the simulator counts from 1.
    frames = np.broadcast_to(np.arange(1, COUNT + 1, dtype=np.uint16)[:, None, None] ** 2, (COUNT, N, N))
    np.save(tmp_path / "frames.npy", frames)
    rows, columns = np.divmod(np.random.default_rng(0).permutation(COUNT), 8)
    plan = "\n".join(f"{k + 1},{PLACE_PX * columns[k]},{PLACE_PX * rows[k]}" for k in range(COUNT))
    (tmp_path / "plan.csv").write_text(f"id,x,y\n{plan}\n")
    model = write_model(tmp_path / "model.onnx")
    udp = str(free_port(socket.SOCK_DGRAM))
    # It answers searches over UDP alone.
    server_side = {"EPICS_PVAS_SERVER_PORT": str(free_port(socket.SOCK_STREAM)), "EPICS_PVAS_BROADCAST_PORT": udp}
    client_side = {
        "EPICS_PVA_ADDR_LIST": "127.0.0.1",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_BROADCAST_PORT": udp,
    }
    simulator = subprocess.Popen(
        [str(SIMULATOR), "-cn", "DET:image", "-if", str(tmp_path / "frames.npy"), "-nf", str(COUNT), "-cs", "20", "-fps", "50",
         "-std", "15", "-rt", "40", "-dc", "-rp", "0"],
        env={**os.environ, **server_side, "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ptycho_runtime", "live", str(model), "pva://DET:image", "--positions", str(tmp_path / "plan.csv"),
             "--frames", str(COUNT), "--input-scale", "1", "-o", str(tmp_path / "o.h5"), "--json", "--device", "cpu"],
            env={**os.environ, **client_side}, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
    finally:
        simulator.terminate()
        simulator.wait()
    assert done.returncode == 0, done.stderr
    account = json.loads(done.stdout.splitlines()[-1])
    assert (account["placed"], account["missing"], account["dropped"]) == (COUNT, 0, {})
    with h5py.File(tmp_path / "o.h5") as file:
        object_ = file["object"][0].real
        x0 = file["object"].attrs["center_x_px"] - object_.shape[1] / 2
        y0 = file["object"].attrs["center_y_px"] - object_.shape[0] / 2
    found = object_[np.rint(PLACE_PX * rows - y0).astype(int), np.rint(PLACE_PX * columns - x0).astype(int)]
    assert np.allclose(found, np.arange(COUNT) + 1, rtol=1e-6)
