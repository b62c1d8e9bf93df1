"""Scans over EPICS PV Access on loopback: each frame lands at its own place, and the image is the one of the file."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from one_layer import N, write_model, write_scan

from ptycho_runtime.cli.main import run
from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.image.core import Batch, Core
from ptycho_runtime.live.journal import Journal
from ptycho_runtime.live.ledger import KEYS
from ptycho_runtime.live.replay import Faults, Replay, order_of
from ptycho_runtime.scan.read import read_scan
from ptycho_runtime.scan.scan import Scan

pytest.importorskip("p4p")
SCALE = "0.01"
PLACE_PX = 40.0  # between two frames: their patches do not meet


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("live") / "model.onnx")


@contextmanager
def served(scan: Scan, monkeypatch: pytest.MonkeyPatch, faults: Faults | None = None, **how: Any) -> Iterator[Replay]:
    """Serve a scan and send it once somebody listens."""
    with Replay(scan, "DET", port=0, **how) as server:
        monkeypatch.setenv("EPICS_PVA_NAME_SERVERS", f"127.0.0.1:{server.port}")
        monkeypatch.setenv("EPICS_PVA_AUTO_ADDR_LIST", "NO")

        def send() -> None:
            if server.wait_for_client(60, settle_s=0.3):
                server.send(2000, faults)

        thread = threading.Thread(target=send)
        thread.start()
        yield server
        server.stop_sending()
        thread.join()


def live(model: Path, out: Path, *options: str, positions: str = "pva://DET:positions") -> int:
    stream = [] if "--follow" in options else ["pva://DET:image", "--positions", positions, "--end", "pva://DET:end"]
    arguments = [
        "live",
        str(model),
        *stream,
        "-o",
        str(out),
        "--device",
        "cpu",
        "--batch",
        "8",
        "--threads",
        "1",
        "--json",
    ]
    return run([*arguments, "--idle-s", "15", "--batch-window-s", "0.02", "--no-quality", *options])


def account(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    last: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert tuple(last) == KEYS
    held = sum(last[name] for name in ("placed", "waiting_position", "waiting_group", "queued", "failed"))
    assert last["seen"] == held + sum(last["dropped"].values())
    return last


def numbered(count: int) -> Scan:
    """Return a scan whose frames are filled with their own number, far enough from one another."""
    side = int(np.ceil(np.sqrt(count)))
    places = np.stack(np.divmod(np.arange(count), side), axis=-1)[:, ::-1] * PLACE_PX
    values = (np.arange(count) + 1).astype(np.float32)
    frames = 7 + np.arange(count)
    shuffled = np.random.default_rng(0).permutation(places)
    return Scan(
        "numbered", lambda rows: np.broadcast_to(values[rows - 7, None, None], (len(rows), N, N)), frames, shuffled, N,
        "amplitude", energy_of_row={},
    )  # fmt: skip


@pytest.mark.parametrize("codec", ["", "lz4", "bslz4", "blosc"])
def test_each_frame_lands_at_its_own_place(
    codec: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = numbered(60)
    with served(scan, monkeypatch, Faults(reorder=20, late_positions=25, duplicate=True), codec=codec):
        assert live(model, tmp_path / "o.h5", "--input-scale", "1", "--frames", "60") == 0
    found = account(capsys)
    assert (found["placed"], found["missing"]) == (60, 0)
    with h5py.File(tmp_path / "o.h5") as file:
        object_ = file["object"][0]
        x0 = file["object"].attrs["center_x_px"] - object_.shape[1] / 2
        y0 = file["object"].attrs["center_y_px"] - object_.shape[0] / 2
        assert np.array_equal(file["probe_position_indexes"][()], scan.frames)
    columns, rows = (np.rint(scan.positions_px - [x0, y0]).astype(int)).T
    # The patch of a frame that is the same everywhere is that number, and the blur sums to one.
    assert np.array_equal(object_[rows, columns].real, np.arange(60) + 1)


def assert_same_image(found: Path, expected: Path) -> None:
    """Compare all that is measured or computed, to the bit; not what a file says of when and how it came about."""
    with h5py.File(found) as ours, h5py.File(expected) as theirs:
        names = [name for name in theirs if isinstance(theirs[name], h5py.Dataset)]
        assert len(names) > 15
        for name in names:
            assert np.asarray(ours[name][()]).tobytes() == np.asarray(theirs[name][()]).tobytes(), name
        facts = [
            name for name in theirs.attrs if name.startswith("trust") or name in ("verdict", "groups_done", "partial")
        ]
        assert len(facts) > 8
        assert all(str(ours.attrs[name]) == str(theirs.attrs[name]) for name in facts)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_image_is_that_of_the_file_to_the_bit(
    gridsize: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Out of order, with positions a hundred frames late and frames twice."""
    model = write_model(tmp_path / "model.onnx", gridsize)
    path = write_scan(tmp_path / "scan.npz", side=14, probe=True)
    options = ["--device", "cpu", "--batch", "8", "--threads", "1", "--input-scale", SCALE, "--amplitude", "--quiet"]
    assert run(["reconstruct", str(model), str(path), "-o", str(tmp_path / "ref.h5"), *options, "--no-quality"]) == 0
    with (
        read_scan(path, N) as scan,
        served(scan, monkeypatch, Faults(reorder=20, late_positions=100, duplicate=True), codec="lz4"),
    ):
        # The probe comes with the stream, or is given.
        extra = [
            "--frames",
            "196",
            *(["--probe", str(path)] if gridsize == 2 else []),
            "--amplitude",
            "--input-scale",
            SCALE,
        ]
        assert live(model, tmp_path / "o.h5", *extra) == 0
    found = account(capsys)
    assert (found["seen"], found["placed"], found["missing"]) == (196, 196, 0)
    assert found["duplicates"] == len(order_of(196, Faults(reorder=20, duplicate=True))) - 196 > 0
    assert_same_image(tmp_path / "o.h5", tmp_path / "ref.h5")
    assert not (tmp_path / "o.h5.journal").exists()


@pytest.mark.parametrize("gridsize", [1, pytest.param(2, marks=pytest.mark.long)])
def test_run_goes_on_where_an_earlier_one_ended(
    gridsize: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = write_model(tmp_path / "model.onnx", gridsize), tmp_path / "o.h5"
    path = write_scan(tmp_path / "scan.npz", side=8)
    reference = ["--device", "cpu", "--batch", "8", "--threads", "1", "--input-scale", SCALE, "--amplitude", "--quiet"]
    assert run(["reconstruct", str(model), str(path), "-o", str(tmp_path / "ref.h5"), *reference]) == 0
    half = Faults(lose=0.4)
    with read_scan(path, N) as scan:
        with served(scan, monkeypatch, half):
            assert live(model, out, "--frames", "64", "--input-scale", SCALE) == 0
        earlier = account(capsys)
        assert (out.with_name("o.h5.journal") / "state.npz").is_file()
        with served(scan, monkeypatch):
            assert live(model, out, "--frames", "64", "--input-scale", SCALE, "--resume") == 0
    later = account(capsys)
    assert 0 < earlier["placed"] == len(order_of(64, half)) < 64
    assert (later["placed"], later["duplicates"], later["missing"]) == (64, earlier["placed"], 0)
    assert later["queued"] == 0
    if gridsize == 1:  # neighbours of the frames that were lost at first are others than those of the whole scan
        assert_same_image(out, tmp_path / "ref.h5")
    assert not out.with_name("o.h5.journal").exists()


def test_frames_that_begin_anew_are_a_file_of_their_own(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = numbered(20)
    double = np.concatenate([np.arange(20), np.arange(20)])
    values = np.concatenate([np.arange(20) + 1.0, np.arange(20) + 101.0]).astype(np.float32)
    twice = Scan(
        "twice", lambda rows: np.broadcast_to(values[rows, None, None], (len(rows), N, N)), 7 + double, scan.positions_px[double],
        N, "amplitude", rows=np.arange(40), energy_of_row={},
    )  # fmt: skip
    with served(twice, monkeypatch):
        assert live(model, tmp_path / "o.h5", "--input-scale", "1", positions="attribute") == 0
    assert account(capsys)["placed"] == 20
    for name, first in (("o.h5", 1.0), ("o-2.h5", 101.0)):
        with h5py.File(tmp_path / name) as file:
            assert sorted(set(np.rint(np.abs(file["object"][0].real)).ravel())) == [0.0, *(first + np.arange(20))]


def test_frame_that_the_server_holds_from_before_is_left_out(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = numbered(20)
    order = np.array([11, *range(20)])
    values = np.array([500.0, *(np.arange(20) + 1.0)], np.float32)
    stale = Scan(
        "stale", lambda rows: np.broadcast_to(values[rows, None, None], (len(rows), N, N)), scan.frames[order],
        scan.positions_px[order], N, "amplitude", rows=np.arange(21), energy_of_row={},
    )  # fmt: skip
    with served(stale, monkeypatch) as server:
        stamp = server.stamp_s
        server.stamp_s = lambda number, fps: stamp(number, fps) - (100.0 if server.sent == 0 else 0.0)
        assert live(model, tmp_path / "o.h5", "--input-scale", "1", "--frames", "20", positions="attribute") == 0
    assert account(capsys)["placed"] == 20
    assert not (tmp_path / "o-2.h5").exists()
    with h5py.File(tmp_path / "o.h5") as file:
        assert np.abs(file["object"][0]).max() == 20.0


def test_lost_frames_are_said_to_be_missing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = Faults(lose=0.2)
    with served(numbered(50), monkeypatch, faults):
        assert live(model, tmp_path / "o.h5", "--input-scale", "1", "--frames", "50") == 0
    found = account(capsys)
    sent = len(order_of(50, faults))
    assert (found["placed"], found["missing"]) == (sent, 50 - sent)
    assert sent < 50
    with h5py.File(tmp_path / "o.h5") as file:
        assert file.attrs["partial"]
        never = json.loads(file["skipped_frames"][()])["frames that never came"]
    assert set(never) == set(range(7, 57)) - set((7 + order_of(50, faults)).tolist())


def test_negative_frame_is_a_fault_with_an_account(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = numbered(30)
    values = np.ones((30, N, N), np.float32)
    values[20, 3, 3] = -1
    scan.read = lambda rows: values[rows - 7]
    with served(scan, monkeypatch):
        assert live(model, tmp_path / "o.h5", "--input-scale", "1") == 2
    text = capsys.readouterr()
    assert "fault: frame 27 holds negative values" in text.err
    found = json.loads(text.out.splitlines()[-1])
    assert found["failed"] == 1
    assert found["placed"] + found["waiting_position"] + found["queued"] + found["failed"] == found["seen"]


def test_session_that_fails_is_a_fault_with_what_was_placed_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    core_run, runs = Core.run, 0

    def failing(self: Core, *groups: Any) -> Batch:
        nonlocal runs
        runs += 1
        if runs == 3:
            raise ReconstructionError("onnxruntime cannot run the graph")
        return core_run(self, *groups)

    monkeypatch.setattr(Core, "run", failing)
    with served(numbered(40), monkeypatch):
        # No scale is known: the first sixteen frames make one.
        assert live(model, tmp_path / "o.h5", "--scale-window", "16") == 2
    text = capsys.readouterr()
    assert "fault: onnxruntime cannot run the graph" in text.err
    assert "of the first 16 frames" in text.err
    found = json.loads(text.out.splitlines()[-1])
    assert 0 < found["failed"] <= 8
    assert 0 < found["placed"] <= 16
    assert found["seen"] == found["placed"] + found["failed"] + found["queued"] + found["waiting_position"]
    with h5py.File(tmp_path / "o.h5") as file:
        assert file.attrs["partial"]
        assert file.attrs["groups_done"] == found["placed"]


def test_file_that_is_written_meanwhile(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, path = numbered(40), tmp_path / "scan.h5"
    with h5py.File(path, "w", libver="latest") as file:
        patterns = file.create_dataset("diff3d", (0, N, N), "f4", maxshape=(None, N, N), chunks=(1, N, N))
        x, y = (file.create_dataset(f"{axis}coords", data=scan.positions_px[:, k]) for k, axis in enumerate("xy"))
        assert len(x) == len(y) == 40
        file.swmr_mode = True

        def write() -> None:
            for row in range(40):
                patterns.resize(row + 1, axis=0)
                patterns[row] = row + 1
                patterns.flush()

        thread = threading.Thread(target=write)
        thread.start()
        code = run(
            ["live", str(model), str(path), "--follow", "--amplitude", "-o", str(tmp_path / "o.h5"), "--input-scale", "1",
             "--frames", "40", "--json", "--idle-s", "15", "--device", "cpu"]
        )  # fmt: skip
        thread.join()
    assert code == 0
    found = account(capsys)
    assert (found["placed"], found["missing"]) == (40, 0)


def frames_so_far(picture: Path) -> int:
    if not picture.is_file():
        return 0
    with h5py.File(picture) as file:
        return int(file.attrs["frames"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_run_writes_what_it_placed_and_can_go_on(
    number: signal.Signals, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, path, out = numbered(40), tmp_path / "scan.h5", tmp_path / "o.h5"
    journal = Journal(out)
    with h5py.File(path, "w", libver="latest") as file:
        patterns = file.create_dataset("diff3d", (12, N, N), "f4", maxshape=(None, N, N), chunks=(1, N, N))
        patterns[:] = np.arange(1, 13)[:, None, None]
        for k, axis in enumerate("xy"):
            file.create_dataset(f"{axis}coords", data=scan.positions_px[:, k])
        file.swmr_mode = True
        options = ("--follow", "--amplitude", "--input-scale", "1", "--frames", "40", "--journal-s", "0.05")

        def stop() -> None:
            end = time.monotonic() + 60
            while frames_so_far(journal.picture) < 12 and time.monotonic() < end:
                time.sleep(0.02)
            os.kill(os.getpid(), number)

        thread = threading.Thread(target=stop)
        thread.start()
        code = run(
            ["live", str(model), str(path), "-o", str(out), "--device", "cpu", "--json", "--idle-s", "15", *options]
        )
        thread.join()
    assert code == 130
    found = account(capsys)
    assert (found["placed"], found["missing"]) == (12, 28)
    with h5py.File(out) as file:
        assert file.attrs["partial"]
        assert file.attrs["groups_done"] == 12
    assert journal.exists, "for --resume"
