"""Devices are proven; a host that computes something else is told."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from sample_bundles import changed, members

from ptycho_runtime import CheckFailedError, DeviceUnavailableError, open_export
from ptycho_runtime import contract as c
from ptycho_runtime.check import check_host, raise_unless_passed
from ptycho_runtime.engine import devices
from ptycho_runtime.engine.session import GraphSession

no_gpu = pytest.mark.skipif(not devices.why_not("cuda"), reason="this host has a GPU")


@no_gpu
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_device_asked_for_by_name_is_that_or_an_error(device: str, demo: Path) -> None:
    with pytest.raises(DeviceUnavailableError, match=f"{device} cannot be used: "):
        GraphSession(open_export(demo).graphs["diffraction_to_obj"], device)


@no_gpu
def test_auto_says_why_it_runs_on_the_cpu(demo: Path) -> None:
    session = GraphSession(open_export(demo).graphs["diffraction_to_obj"], "auto")
    assert session.device == "cpu"
    assert session.note.startswith("running on the CPU: ")


def test_missing_provider_names_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_DRIVER_FILES", ("/dev/null",))
    monkeypatch.setattr(devices.onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert "pip install 'onnxruntime-gpu" in devices.why_not("cuda")


def test_session_that_came_up_elsewhere_is_refused(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "why_not", lambda device, **options: "")
    with pytest.raises(DeviceUnavailableError, match="cuda cannot be used: onnxruntime refused the session"):
        GraphSession(open_export(demo).graphs["diffraction_to_obj"], "cuda")


def test_quota_of_the_control_group(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert devices.cgroup_cpus(tmp_path, tmp_path / "none") == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert devices.cgroup_cpus(tmp_path, tmp_path / "none") == math.inf
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert devices.cgroup_cpus(tmp_path, tmp_path / "none") == 0.5


def test_threads_respect_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cgroup_cpus", lambda: 0.5)
    assert devices.usable_threads() == 1


def test_threads_of_a_session_that_waits_leave_the_cores_to_others(demo: Path) -> None:
    options = GraphSession(open_export(demo).graphs["autoencoder"], "cpu").session.get_session_options()
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


@pytest.mark.parametrize(("groups", "sizes"), [(7, [2, 2, 3]), (3, [1, 1, 1]), (2, [2]), (1, [1])])
def test_groups_are_split_among_threads_and_come_back_in_order(demo: Path, groups: int, sizes: list[int]) -> None:
    model = open_export(demo).graphs["diffraction_to_obj"]
    x = np.random.default_rng(0).random((groups, 1, 64, 64), dtype=np.float32)
    feed = {c.DIFFRACTION: x, c.INPUT_SCALE: np.ones((groups, 1, 1, 1), np.float32)}
    session = GraphSession(model, "cpu", threads=3)
    alone, seen = session._on_cpu, []

    def watched(threads: int, part: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append((threads, len(part[c.DIFFRACTION])))
        return alone(threads, part)

    session._on_cpu = watched  # type: ignore[method-assign]
    found = session.run(feed)
    assert sorted(seen) == [(1 if groups >= 3 else 3, size) for size in sizes]
    for number in range(groups):
        one = GraphSession(model, "cpu", threads=1).run(
            {key: value[number : number + 1] for key, value in feed.items()}
        )
        for name, value in one.items():
            np.testing.assert_allclose(found[name][number : number + 1], value, rtol=0, atol=1e-5)


def test_cold_and_steady_runs_are_told_apart(demo: Path) -> None:
    session = GraphSession(open_export(demo).graphs["autoencoder"], "cpu")
    assert session.cold_s is None
    session.warmup()
    assert session.cold_s is not None
    assert session.steady_s is None
    session.warmup()
    assert session.steady_s is not None


def test_this_host_computes_what_was_exported(demo: Path) -> None:
    rows = check_host(open_export(demo), "cpu")
    assert {(row.graph, row.output) for row in rows} == {
        ("diffraction_to_obj", "object_real"), ("diffraction_to_obj", "object_imag"),
        (c.CENTRE, "object_real"), (c.CENTRE, "object_imag"),
        ("autoencoder", "predicted_diffraction"), ("autoencoder", "amplitude"), ("autoencoder", "phase"),
    }  # fmt: skip
    raise_unless_passed(rows, "demo")


def test_other_reference_fails_and_names_the_figure(demo: Path, tmp_path: Path) -> None:
    stored = members(demo)
    with np.load(io.BytesIO(stored[c.GOLDEN_NPZ])) as data:
        arrays = dict(data)
    arrays["autoencoder.reference.amplitude"] = arrays["autoencoder.reference.amplitude"] * (1 + 1e-5)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    info = json.loads(stored[c.EXPORTS_JSON])
    info["golden"] |= {"sha256": hashlib.sha256(buffer.getvalue()).hexdigest(), "size_bytes": len(buffer.getvalue())}
    new = {c.GOLDEN_NPZ: buffer.getvalue(), c.EXPORTS_JSON: json.dumps(info).encode()}
    rows = check_host(open_export(changed(demo, tmp_path / "w.zip", new)), "cpu")
    with pytest.raises(
        CheckFailedError, match=r"autoencoder amplitude on cpu: max abs .* relative L2 1\.0\de-05 \(allowed"
    ):
        raise_unless_passed(rows, "w.zip")


def test_nothing_compared_is_no_pass() -> None:
    with pytest.raises(CheckFailedError, match="nothing was compared"):
        raise_unless_passed([], "x")
