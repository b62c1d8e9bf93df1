"""The command line of a beamline host, in processes that have no PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sample_bundles import DEMO, ROOT

from ptycho_runtime.cli import main as cli

SCAN = ROOT / "examples" / "demo" / "scan.npz"
BLOCK = "import sys\nfor name in ('torch', 'onnx', 'ptycho_torch', 'exporters'): sys.modules[name] = None\n"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = BLOCK + "from ptycho_runtime.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, check=False
    )


def test_reconstruct(demo: Path, tmp_path: Path) -> None:
    done = run("reconstruct", demo, SCAN, "-o", tmp_path / "object.npz", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "object.npz") as data:
        assert np.iscomplexobj(data["object"])
    assert (tmp_path / "object.png").is_file()
    assert "400 of 400 groups" in done.stdout
    assert done.stdout.startswith("trusted: object 222 x 222 px")


def test_module_form(tiny: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "ptycho_runtime",
        "reconstruct",
        tiny,
        SCAN,
        "-o",
        tmp_path / "o.h5",
        "--quiet",
        "--no-quality",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.h5").is_file()


def test_importing_needs_neither_torch_onnx_scipy_nor_matplotlib() -> None:
    code = (
        "import sys\nfor name in ('torch', 'onnx', 'scipy', 'matplotlib', 'h5py', 'PIL', 'ptycho_torch', 'exporters'): sys.modules[name] = None\n"
        "import ptycho_runtime, ptycho_runtime.cli.main, ptycho_runtime.scan.read, ptycho_runtime.image.products.write\n"
        "import ptycho_runtime.check, ptycho_runtime.doctor\n"
        "print('pickle' in sys.modules and False)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_source_never_names_a_pickle_reader() -> None:
    for path in (ROOT / "ptycho_runtime").rglob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text
        assert "allow_pickle=True" not in text


def test_predict_starts_in_a_fraction_of_what_importing_torch_takes(demo: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with np.load(SCAN) as data:
        np.save(tmp_path / "one.npy", data["diff3d"][0])
    arguments = [
        sys.executable,
        "-m",
        "ptycho_runtime",
        "predict",
        str(demo),
        str(tmp_path / "one.npy"),
        "-o",
        str(tmp_path / "o.npy"),
        "--device",
        "cpu",
    ]

    def cost(command: list[str]) -> float:
        """Return the seconds of the processor that a command takes, on a host that does other things too."""
        before = os.times()
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert cost(arguments) <= 0.5 * cost([sys.executable, "-c", "import torch"])
    assert np.load(tmp_path / "o.npy").shape == (64, 64)


def test_check(demo: Path) -> None:
    done = run("check", demo, "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert sum(row["engine"] == "onnxruntime" for row in rows) == 7
    assert all(row["passed"] for row in rows)


def test_doctor() -> None:
    facts = json.loads(run("doctor", "--json").stdout)
    assert {"onnxruntime", "providers", "threads", "cuda", "tensorrt", "h5py"} <= set(facts)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["reconstruct", "none.zip", SCAN, "-o", "x.npz"], 2, "none.zip: no such file"),
        (["reconstruct", DEMO, SCAN, "-o", "x.npz"], 2, "holds no exports.json"),
        (["reconstruct", DEMO, SCAN, "-o", "x.doc"], 2, "told by the suffix"),
        (["predict", DEMO, "none.npy", "-o", "x.npy"], 2, "none.npy"),
        (["check", SCAN], 2, "holds no exports.json"),
    ],
)
def test_errors_are_one_line(arguments: list[object], code: int, message: str) -> None:
    done = run(*arguments)
    assert done.returncode == code
    assert len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr


def test_device_that_is_absent(demo: Path, tmp_path: Path) -> None:
    from ptycho_runtime.engine import devices

    if not devices.why_not("cuda"):
        pytest.skip("this host has a GPU")
    done = run("check", demo, "--device", "cuda")
    assert done.returncode == 4
    assert "cuda cannot be used" in done.stderr


def test_positive_numbers_only(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.run(["reconstruct", "a", "b", "-o", "c.npz", "--batch", "0"])
    assert stopped.value.code == 2
    assert "0 is not 1 or more" in capsys.readouterr().err


@pytest.mark.long
def test_memory_stays_flat(demo: Path, tmp_path: Path) -> None:
    """Ten times the patterns on the same area take at most 1.2 times the memory."""
    code = (
        BLOCK + "import ptycho_runtime\nfrom ptycho_runtime.scan.read import read_scan\n"
        "model = ptycho_runtime.open(sys.argv[1], 'cpu')\nmodel.reconstruct(read_scan(sys.argv[2], 64))\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    peaks = []
    for count in (1_000, 10_000):
        random = np.random.default_rng(0)
        patterns = np.sqrt(random.poisson(3.0, (count, 64, 64))).astype(np.float32)
        x, y = random.uniform(40, 200, (2, count))
        path = tmp_path / f"{count}.npz"
        np.savez(path, diff3d=patterns, xcoords=x, ycoords=y)
        del patterns
        done = subprocess.run(
            [sys.executable, "-c", code, str(demo), str(path)], capture_output=True, text=True, cwd=ROOT, check=True
        )
        peaks.append(int(done.stdout))
        path.unlink()
    assert peaks[1] <= 1.2 * peaks[0], peaks
