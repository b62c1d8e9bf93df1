"""On a Dask cluster the same bits come out as in one run, also when a worker is killed in the middle, and nothing done is repeated."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("distributed")

from one_layer import write_model, write_scan

import ptycho_runtime
from ptycho_runtime.cli import main as cli
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.many.cluster import Cluster, PartsWork, local_workers, run_parts, share_of_threads
from ptycho_runtime.many.merge import gathered, merge
from ptycho_runtime.many.one_scan import Task, Work
from ptycho_runtime.many.records import read_record
from ptycho_runtime.scan.read import read_scan

RUN = RunOptions("cpu", threads=1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster("local:2") as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster")
    write_model(folder / "model.onnx", 2)
    write_scan(folder / "scan.npz", side=10, probe=True)
    return folder


def work_of(folder: Path, out: Path, patterns: int = 16) -> PartsWork:
    with ptycho_runtime.open(folder / "model.onnx", RUN) as model:
        sha256 = model.export.sha256
    return PartsWork(folder / "model.onnx", sha256, folder / "scan.npz", out, patterns, run=RUN)


def whole(folder: Path) -> np.ndarray:
    with ptycho_runtime.open(folder / "model.onnx", RUN) as model, read_scan(folder / "scan.npz", 32) as scan:
        found: np.ndarray = model.reconstruct(scan).object
    return found


@pytest.mark.long
def test_parts_give_the_bits_of_one_run_when_a_worker_is_killed(cluster: Cluster, folder: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if not killed:
            killed.append(next(iter(cluster.client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    work = work_of(folder, tmp_path, 4)
    paths = run_parts(cluster, work, kill)
    assert len(paths) == 25
    assert killed
    assert merge(gathered(paths)).object.tobytes() == whole(folder).tobytes()


@pytest.mark.long
def test_what_is_done_is_kept(cluster: Cluster, folder: Path, tmp_path: Path) -> None:
    work = work_of(folder, tmp_path)
    paths = run_parts(cluster, work)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    paths[2].unlink()
    assert run_parts(cluster, work) == paths
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert [name for name in before if after[name] != before[name]] == [paths[2].name]


@pytest.mark.long
def test_a_scheduler_that_forgets_its_tasks_gets_them_again(cluster: Cluster, folder: Path, tmp_path: Path) -> None:
    restarted: list[bool] = []

    def restart(done: int, total: int) -> None:
        if not restarted:
            restarted.append(True)
            cluster.client.restart()

    paths = run_parts(cluster, work_of(folder, tmp_path, 8), restart)
    assert merge(gathered(paths)).object.tobytes() == whole(folder).tobytes()


@pytest.mark.long
def test_another_scheduler_goes_on_where_one_was_lost(folder: Path, tmp_path: Path) -> None:
    work = work_of(folder, tmp_path, 8)
    with Cluster("local:1") as first:

        def lose(done: int, total: int) -> None:
            first.client.loop.add_callback(first._local.scheduler.close)

        with pytest.raises(
            ReconstructionError, match=r"the Dask scheduler was lost with .* tasks to do; start it and run this again"
        ):
            run_parts(first, work, lose)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("part*.h5")}
    assert before
    with Cluster("local:1") as second:
        paths = run_parts(second, work)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before
    assert merge(gathered(paths)).object.tobytes() == whole(folder).tobytes()


@pytest.mark.long
def test_a_batch_on_a_cluster(cluster: Cluster, folder: Path, tmp_path: Path) -> None:
    cluster.work = Work(folder / "model.onnx", "", tmp_path, run=RUN)
    (tmp_path / "no-scan.npz").write_bytes(b"nothing")
    tasks = [Task(folder / "scan.npz", "good"), Task(tmp_path / "no-scan.npz", "bad")]
    records = {record.name: record for record in cluster.run(tasks)}
    assert (records["good"].exit_code, records["bad"].exit_code) == (0, 2)
    assert read_record(tmp_path / "good.json") == records["good"]
    assert (tmp_path / "good.h5").is_file()


@pytest.mark.long
def test_the_command_line(folder: Path, tmp_path: Path) -> None:
    words = [folder / "model.onnx", folder / "scan.npz", "--device", "cpu", "--threads", "1", "--quiet", "-o"]
    assert (
        cli.run(["reconstruct", *map(str, words), str(tmp_path / "dask.npz"), "--dask", "local:2", "--chunk", "30"])
        == 0
    )
    with np.load(tmp_path / "dask.npz") as found:
        assert found["object"].tobytes() == whole(folder).tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dask.npz", "dask.png"]
    words = [
        folder / "model.onnx",
        folder / "scan.npz",
        "-o",
        tmp_path / "batch",
        "--device",
        "cpu",
        "--dask",
        "local:1",
        "--quiet",
    ]
    assert cli.run(["batch", *map(str, words)]) == 0
    assert (tmp_path / "batch" / "scan.h5").is_file()


def test_what_is_no_address() -> None:
    with pytest.raises(ReconstructionError, match=r"--dask local:0: no scheduler can be reached there \(0 processes\)"):
        Cluster("local:0")


def test_processes_of_one_host_share_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptycho_runtime.many.one_scan.usable_threads", lambda: 8)
    assert share_of_threads("local:3", RunOptions()).threads == 2
    for none in ("local:x", "local:", "local:-1", "local:100000"):
        with pytest.raises(ReconstructionError, match=r"expected local:N with N from 1 to 1024"):
            share_of_threads(none, RunOptions())
    assert share_of_threads("local:3", RunOptions(threads=5)).threads == 5
    assert share_of_threads("tcp://host:8786", RunOptions()).threads is None
    assert local_workers("local:12") == 12
