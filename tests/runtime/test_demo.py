"""The demo that comes with the package: a first picture on a host that has nothing else."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sample_bundles import ROOT

from ptycho_runtime import demo as package
from ptycho_runtime.cli.main import run

MOST_BYTES = 2_000_000  # of what the demo adds to the wheel


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """Return the script that made the demo's files."""
    pytest.importorskip("onnx")
    spec = importlib.util.spec_from_file_location("maker", ROOT / "examples" / "demo" / "make_package_demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_demo_leaves_a_product_and_a_picture_and_says_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["demo", "--json"]) == 0
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert answer["verdict"] == "trusted"
    assert answer["patterns"] == 148
    assert answer["written"] == ["ptycho-demo/object.h5", "ptycho-demo/object.png"]
    assert sorted(path.name for path in (tmp_path / "ptycho-demo").iterdir()) == ["object.h5", "object.png"]
    assert "ptycho-runtime reconstruct" in printed.err
    assert "trained for such scans alone" in printed.err


def test_demo_keeps_the_wheel_small() -> None:
    assert package.MODEL.stat().st_size + package.SCAN.stat().st_size < MOST_BYTES


def test_demo_scan_is_a_part_of_the_simulated_one(maker: ModuleType) -> None:
    with np.load(package.SCAN) as data:
        stored = dict(data)
    made = maker.part_of_the_scan()
    assert stored.keys() == made.keys()
    for name, values in made.items():
        assert np.array_equal(stored[name], values), name


def test_demo_model_is_the_exported_one_in_half_precision(maker: ModuleType, demo: Path) -> None:
    import onnx
    from onnx import numpy_helper

    from ptycho_runtime.export.bundle import open_export

    def weights(model: bytes) -> dict[str, np.ndarray]:
        proto = onnx.load_from_string(model)
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}

    stored = weights(package.MODEL.read_bytes())
    made = weights(maker.halved(open_export(demo).graphs["diffraction_to_obj"]))
    assert stored.keys() == made.keys()
    for name, values in made.items():
        assert np.array_equal(stored[name], values), name
