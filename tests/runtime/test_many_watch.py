"""A watched folder: a scan is taken when it is complete, once, however often the watch begins; its service promises what it does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from one_layer import write_model, write_scan

from ptycho_runtime.cli import main as cli
from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.many.one_scan import Task, Work, record_of
from ptycho_runtime.many.records import EXIT_INPUT, ScanRecord
from ptycho_runtime.many.results import Results
from ptycho_runtime.many.watch import Arrivals, Place, Rhythm, has_writer, watch


class Noting:
    """Runs nothing: notes the scans and says that they ended."""

    def __init__(self, work: Work, exit_code: int = 0) -> None:
        self.work, self.exit_code = work, exit_code
        self.scans: list[str] = []

    def run(self, tasks: Iterable[Task]) -> Iterator[ScanRecord]:
        for task in tasks:
            self.scans.append(task.scan.name)
            files = (f"{task.name}.h5",) if self.exit_code == 0 else ()
            for name in files:
                (self.work.folder / name).write_bytes(b"object")
            record = record_of(self.work, task, self.exit_code, files=files, verdict="trusted" if files else "")
            record.write(self.work.folder)
            yield record


def watched(folder: Path, exit_code: int = 0, **place: object) -> list[str]:
    """Watch a folder until all that is there is done; return the scans that were begun."""
    out = folder.parent / "out"
    out.mkdir(exist_ok=True)
    work = Work(folder / "model", "", out)
    executor = Noting(work, exit_code)
    arrivals = Arrivals(Place(folder, "*.h5", **{"settled_s": 0.0, **place}), out)  # type: ignore[arg-type]
    watch(executor, work, Results(out), arrivals, Rhythm(0.0, once=True), lambda record: None)
    return executor.scans


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "scans"
    found.mkdir()
    for name in ("a.h5", "b.h5", "c.txt"):
        (found / name).write_bytes(b"frames")
    return found


def test_each_scan_is_begun_once_however_often_the_watch_begins(folder: Path) -> None:
    assert watched(folder) == ["a.h5", "b.h5"]
    assert watched(folder) == []
    (folder / "d.h5").write_bytes(b"frames")
    assert watched(folder) == ["d.h5"]


def test_a_scan_that_failed_is_begun_again_when_its_file_has_changed(folder: Path) -> None:
    assert watched(folder, EXIT_INPUT) == ["a.h5", "b.h5"]
    assert watched(folder, EXIT_INPUT) == []
    (folder / "a.h5").write_bytes(b"more frames")
    assert watched(folder) == ["a.h5"]


class TestComplete:
    def test_a_file_that_changes_is_not_complete(self, folder: Path) -> None:
        arrivals = Arrivals(Place(folder, settled_s=0.0), folder.parent / "out")
        never = Arrivals(Place(folder, settled_s=1000.0), folder.parent / "out")
        files = arrivals.files()
        assert [path.name for path in files] == ["a.h5", "b.h5"]
        assert arrivals.complete(files) == files
        assert never.complete(files) == []

    def test_the_clock_begins_anew_with_each_change(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [0.0]
        monkeypatch.setattr("time.monotonic", lambda: now[0])
        arrivals = Arrivals(Place(folder, settled_s=10.0), folder.parent / "out")
        scan = [folder / "a.h5"]
        found = []
        for time_s, text in (
            (0.0, None),
            (9.0, None),
            (9.5, b"longer frames"),
            (11.0, None),
            (19.4, None),
            (19.5, None),
        ):
            now[0] = time_s
            if text:
                scan[0].write_bytes(text)
            found.append(arrivals.complete(scan) == scan)
        assert found == [False, False, False, False, False, True]

    def test_an_empty_file_is_not_complete(self, folder: Path) -> None:
        (folder / "a.h5").write_bytes(b"")
        arrivals = Arrivals(Place(folder, settled_s=0.0), folder.parent / "out")
        assert [path.name for path in arrivals.complete(arrivals.files())] == ["b.h5"]

    def test_a_file_that_is_open_for_writing_is_not_complete(self, folder: Path) -> None:
        path = folder / "a.h5"
        with path.open("r+b"):
            if not has_writer(path):
                pytest.skip("this file system grants no leases")
            arrivals = Arrivals(Place(folder, settled_s=0.0), folder.parent / "out")
            assert [found.name for found in arrivals.complete(arrivals.files())] == ["b.h5"]
        assert not has_writer(path)

    def test_who_reads_is_no_writer(self, folder: Path) -> None:
        with (folder / "a.h5").open("rb"):
            assert not has_writer(folder / "a.h5")

    def test_a_marker_says_that_a_scan_is_complete(self, folder: Path) -> None:
        arrivals = Arrivals(Place(folder, marker=".done", settled_s=1000.0), folder.parent / "out")
        assert arrivals.complete(arrivals.files()) == []
        (folder / "b.h5.done").touch()
        assert arrivals.complete(arrivals.files()) == [folder / "b.h5"]

    def test_results_are_no_scans(self, folder: Path) -> None:
        out = folder / "objects"
        out.mkdir()
        (out / "a.h5").write_bytes(b"object")
        assert out / "a.h5" not in Arrivals(Place(folder, "**/*.h5"), out).files()
        with pytest.raises(
            ReconstructionError, match="results would be taken for scans there; give another folder with -o"
        ):
            Arrivals(Place(folder), folder)

    def test_a_folder_that_is_not_there_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(ReconstructionError, match="is no folder that scans could come to"):
            Arrivals(Place(tmp_path / "none"), tmp_path)


def test_the_command_makes_images_of_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    model = write_model(tmp_path / "m.onnx")
    write_scan(scans / "one.npz")
    (scans / "two.npz").write_bytes(b"nothing")
    command = [
        "watch",
        model,
        scans,
        "--pattern",
        "*.npz",
        "-o",
        tmp_path / "out",
        "--once",
        "--settled",
        "0",
        "--look-every",
        "0",
    ]
    assert cli.run([*map(str, command), "--device", "cpu"]) == 2
    assert "1 failed" in capsys.readouterr().out
    assert (tmp_path / "out" / "one.h5").is_file()
    assert sorted(path.name for path in scans.iterdir()) == ["one.npz", "two.npz"]


@pytest.mark.parametrize("pattern", ["", "/data/*.h5", "**h5"])
def test_pattern_that_is_none(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(ReconstructionError, match=r"is no pattern of names in a folder .*expected one such as"):
        Arrivals(Place(tmp_path, pattern), tmp_path / "out")
