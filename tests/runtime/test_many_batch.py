"""Many scans: one that fails stops no other, what is done is not repeated, and the summary says how each ended."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sample_bundles import ROOT

pytest.importorskip("onnx")

from one_layer import write_model, write_scan

from ptycho_runtime.cli import main as cli
from ptycho_runtime.errors import OutputError, ReconstructionError
from ptycho_runtime.many.records import GRAVITY, Fingerprint, ScanRecord, gravest, read_record
from ptycho_runtime.many.results import Results, listed
from ptycho_runtime.many.summary import sheet, table, write_summary

COMMAND = [sys.executable, "-m", "ptycho_runtime"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "one-layer.onnx")


def record(name: str, **fields: object) -> ScanRecord:
    fixed = {
        "fingerprint": None,
        "bundle_sha256": "b",
        "options_sha256": "o",
        "exit_code": 0,
        "verdict": "trusted",
        "files": (f"{name}.h5",),
    }
    return ScanRecord(**{"scan": f"/scans/{name}", "name": name, **fixed, **fields})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two scans of one name, one file that is no scan, and a list."""
    folder = tmp_path_factory.mktemp("scans")
    for name in ("a", "b"):
        (folder / name).mkdir()
        write_scan(folder / name / "scan.npz", seed=ord(name))
    (folder / "a" / "no-scan.npz").write_bytes(b"nothing")
    (folder / "list.txt").write_text("# of the day\na/scan.npz\n\nb/*.npz\n")
    return folder


@pytest.fixture(scope="module")
def results(folder: Path, model: Path) -> Path:
    """Return the results of a batch of all three."""
    scans = [folder / "a" / "no-scan.npz", f"@{folder / 'list.txt'}"]
    command = ["batch", model, *scans, "-o", folder / "out", "--jobs", "2", "--device", "cpu"]
    assert cli.run(list(map(str, command))) == 2
    return folder / "out"


class TestBatch:
    def test_each_scan_has_its_image_or_its_reason(self, results: Path) -> None:
        read = [found for path in results.glob("*.json") if (found := read_record(path))]
        records = {str(Path(found.scan).relative_to(results.parent)): found for found in read}
        assert sorted(records) == ["a/no-scan.npz", "a/scan.npz", "b/scan.npz"]
        assert [records[name].exit_code for name in sorted(records)] == [2, 0, 0]
        assert records["a/no-scan.npz"].files == ()
        assert "no-scan.npz" in records["a/no-scan.npz"].message
        names = [records[name].name for name in ("a/scan.npz", "b/scan.npz")]
        assert names[0] == "scan"
        assert names[1].startswith("scan-")
        for name in names:
            assert (results / f"{name}.h5").is_file()
            assert (results / f"{name}.png").is_file()

    def test_the_summary_says_how_each_ended(self, results: Path) -> None:
        document = json.loads((results / "summary.json").read_text())
        assert (document["scans"], document["outcomes"]["failed"], document["exit_code"]) == (3, 1, 2)
        rows = list(csv.DictReader((results / "summary.csv").open()))
        assert [row["exit_code"] for row in rows] == ["2", "0", "0"]
        assert rows[1]["patterns"] == "36"
        page = (results / "summary.html").read_text()
        assert page.count("<article") == 3
        assert page.count("<img") == 2
        assert page.index("no-scan: failed") < page.index("scan.png")

    def test_without_resume_nothing_is_made_anew(
        self, folder: Path, results: Path, model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.run(["batch", str(model), str(folder / "a" / "scan.npz"), "-o", str(results)]) == 2
        assert "has results of 1 of these scans; give --resume to go on" in capsys.readouterr().err

    def test_resume_makes_only_what_is_not_done(
        self, folder: Path, results: Path, model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = {path.name: path.stat().st_mtime_ns for path in results.glob("scan*.h5")}
        changed = write_scan(folder / "b" / "scan.npz", seed=2)
        os.utime(changed, ns=(1, 1))
        command = ["batch", str(model), f"@{folder / 'list.txt'}", "-o", str(results), "--resume", "--device", "cpu"]
        assert cli.run(command) == 0
        assert "1 of 2 scans are done already" in capsys.readouterr().err
        after = {path.name: path.stat().st_mtime_ns for path in results.glob("scan*.h5")}
        assert after["scan.h5"] == before["scan.h5"]
        assert sorted(name for name in after if after[name] != before[name]) == [
            name for name in after if name != "scan.h5"
        ]

    def test_strictness_is_that_of_now(self, folder: Path, results: Path, model: Path) -> None:
        command = [
            "batch",
            str(model),
            str(folder / "a" / "scan.npz"),
            "-o",
            str(results),
            "--resume",
            "--strict",
            "--device",
            "cpu",
        ]
        found = read_record(results / "scan.json")
        assert found is not None
        assert cli.run(command) == (5 if found.verdict == "not trusted" else 0)


def test_a_killed_batch_goes_on_and_repeats_nothing(model: Path, tmp_path: Path) -> None:
    for number in range(8):
        write_scan(tmp_path / f"{number:02d}.npz", number)
    out = tmp_path / "out"
    command = [*COMMAND, "batch", str(model), str(tmp_path / "*.npz"), "-o", str(out), "--device", "cpu", "--quiet"]
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    results = Results(out)
    # The scan that its process was at may still have been finished by it; it ends with the one that gave it.
    while time.monotonic() < deadline:
        try:
            with results.locked():
                break
        except OutputError:
            time.sleep(0.01)
    time.sleep(0.2)
    first = {path.name: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert 1 <= len(first) < 8
    assert cli.run([*command[3:], "--resume"]) == 0
    assert len(Results(out).records) == 8
    assert {name: (out / name).stat().st_mtime_ns for name in first} == first


def test_a_process_that_dies_ends_its_scan_alone(model: Path, tmp_path: Path) -> None:
    from ptycho_runtime.many.one_scan import Task, Work
    from ptycho_runtime.many.workers import Workers

    work = Work(model, "", tmp_path / "out")
    scans = [write_scan(tmp_path / f"{number}.npz", number) for number in range(2)]
    with Workers(work, 1) as workers:
        for number, found in enumerate(workers.run([Task(scans[0], "a"), Task(scans[0], "b"), Task(scans[1], "c")])):
            assert (found.name, found.exit_code) == [("a", 0), ("b", 2), ("c", 0)][number]
            assert read_record(work.folder / f"{found.name}.json") == found
            if number == 0:
                workers.signal_all(signal.SIGKILL)
            if number == 1:
                assert "was killed (SIGKILL); was there too little memory?" in found.message


def test_a_scan_that_takes_too_long_is_given_up(model: Path, tmp_path: Path) -> None:
    from ptycho_runtime.many.one_scan import Task, Work
    from ptycho_runtime.many.workers import Workers

    work = Work(model, "", tmp_path / "out")
    with Workers(work, 1, most_s=0.01) as workers:
        found = list(workers.run([Task(write_scan(tmp_path / "s.npz"), "a")]))
    assert [(record.exit_code, record.message) for record in found] == [(2, "not done after 0.01 s (--scan-timeout)")]


class TestRecords:
    def test_a_record_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        made = record("a", fingerprint=Fingerprint(3, 4), disagreement=0.5, patterns=7)
        made.write(tmp_path)
        assert read_record(tmp_path / "a.json") == made

    @pytest.mark.parametrize(
        "change",
        [{"name": "../a"}, {"files": ["../a.h5"]}, {"exit_code": 7}, {"patterns": "7"}, {"more": 1}, {"creator": "them"}, {"fingerprint": {"x": 1}}],
        ids=lambda change: next(iter(change)),
    )  # fmt: skip
    def test_what_is_no_record_is_none(self, change: dict[str, object], tmp_path: Path) -> None:
        record("a").write(tmp_path)
        document = json.loads((tmp_path / "a.json").read_text())
        (tmp_path / "a.json").write_text(json.dumps({**document, **change}))
        assert read_record(tmp_path / "a.json") is None

    def test_the_gravest_counts(self) -> None:
        assert [gravest(GRAVITY[:k]) for k in range(len(GRAVITY) + 1)] == [0, 0, 5, 2, 4, 3, 1]


class TestFolder:
    def test_a_summary_of_others_is_not_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "summary.csv").write_text("theirs")
        with pytest.raises(
            OutputError, match=r"summary\.csv: is there, and no record of a batch is; give another folder"
        ):
            Results(tmp_path)

    def test_a_document_of_others_keeps_its_name(self, tmp_path: Path) -> None:
        (tmp_path / "scan.json").write_text("{}")
        assert Results(tmp_path).task(Path("/data/scan.h5")).name.startswith("scan-")

    def test_two_batches_do_not_write_to_one_folder(self, tmp_path: Path) -> None:
        with (
            Results(tmp_path).locked(),
            pytest.raises(OutputError, match="another batch or watch writes there"),
            Results(tmp_path).locked(),
        ):
            pass

    def test_a_pattern_that_matches_nothing_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(ReconstructionError, match="no scan has such a name"):
            listed([str(tmp_path / "*.h5")])

    def test_lists_as_editors_leave_them(self, tmp_path: Path) -> None:
        (tmp_path / "list").write_bytes("\ufeffa.h5\r\n\r\n# b\r\n".encode())
        assert listed([f"@{tmp_path}/list"]) == [tmp_path / "a.h5"]

    @pytest.mark.parametrize("content", [b"", b"# nothing\n", b"a\0b\n"])
    def test_lists_that_name_no_scan(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "list").write_bytes(content)
        with pytest.raises(ReconstructionError, match="is no list of scans; expected a path a line"):
            listed([f"@{tmp_path}/list"])

    def test_name_that_leaves_no_room_for_a_suffix_is_cut(self, tmp_path: Path) -> None:
        names = {Results(tmp_path).task(Path("/data") / f"{'ö' * 124}{last}.h5").name for last in "ab"}
        assert {len(name.encode()) for name in names} == {209}
        assert len(names) == 2

    def test_a_folder_is_no_scan(self, tmp_path: Path) -> None:
        with pytest.raises(ReconstructionError, match="is a folder; give scans, or a pattern"):
            listed([str(tmp_path)])


class TestSummary:
    def test_text_of_files_is_text(self) -> None:
        evil = record("=HYPERLINK(1)", message="<script>\x1b[31m", scan="/s/<b>")
        page, lines = sheet([evil], 1), table([evil])
        assert "<script>" not in page
        assert "&lt;script&gt;\\x1b[31m" in page
        assert "'=HYPERLINK(1)" in lines

    def test_a_name_that_is_no_utf_8_is_linked_by_its_bytes(self) -> None:
        assert '<a href="%FF.h5">' in sheet([record("\udcff", files=("\udcff.h5", "\udcff.png"))], 1)

    def test_what_is_to_come_is_said(self, tmp_path: Path) -> None:
        write_summary(tmp_path, [record("a")], 3)
        assert "<h1>3 scans: 1 trusted; 2 to come</h1>" in (tmp_path / "summary.html").read_text()


def test_result_that_would_replace_a_scan(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.npz", "a.h5"):
        write_scan(tmp_path / name, seed=1)
    before = (tmp_path / "a.npz").read_bytes()
    scans = [str(tmp_path / name) for name in ("a.h5", "a.npz")]
    assert cli.run(["batch", str(model), *scans, "-o", str(tmp_path), "--format", "npz", "--force"]) == 2
    assert "a.npz: is one of the scans; give another folder with -o" in capsys.readouterr().err
    assert (tmp_path / "a.npz").read_bytes() == before
