"""The surroundings of a command: who reads its output, in which encoding, and for which user."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from broken_loading import broken_loading
from sample_bundles import ROOT

from ptycho_runtime.cli import main as cli
from ptycho_runtime.demo import SCAN
from ptycho_runtime.engine.tuned import Setting, Trial, Tuned, remember, remembered
from ptycho_runtime.errors import OutputError
from ptycho_runtime.export.bundle import open_export

PROGRAM = [sys.executable, "-m", "ptycho_runtime"]


def test_output_that_nobody_reads_is_no_bug() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [*PROGRAM, "doctor"], stdout=write_end, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
        )
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
@pytest.mark.parametrize("arguments", [["doctor"], ["inspect", "--intensity", str(SCAN)]], ids=["doctor", "inspect"])
def test_output_on_a_disk_that_is_full_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
        )
    assert done.returncode == 2
    assert done.stderr == (
        "ptycho-runtime: standard output takes no more: No space left on device; the answer is not whole, "
        "files that were named before are\n"
    )


def test_a_name_that_the_terminal_cannot_show_is_escaped(demo: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((64, 64), np.float32))
    out = tmp_path / "Objekt-ö.npy"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "1"}
    done = subprocess.run(
        [*PROGRAM, "predict", str(demo), str(tmp_path / "x.npy"), "-o", str(out), "--device", "cpu"],
        env=environment, capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert out.is_file()
    assert "Objekt-\\xf6.npy" in done.stdout


def test_what_was_typed_reaches_the_terminal_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.run(["inspect", "x.zip", "--\x1b[2Jx"])
    error = capsys.readouterr().err
    assert "\\x1b[2Jx" in error
    assert "\x1b" not in error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("9 GB"), "ptycho-runtime: takes more memory than this process may have (9 GB)\n"),
        (OSError(36, "File name too long", "x"), "ptycho-runtime: [Errno 36] File name too long: 'x'\n"),
    ],
)
def test_what_the_surroundings_do_is_no_bug(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(*_: object) -> None:
        raise error

    monkeypatch.setattr("ptycho_runtime.export.bundle.open_export", ends)
    assert cli.run(["check", "x.zip"]) == 2
    assert capsys.readouterr().err == message


def test_what_a_signal_breaks_is_no_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["ptycho-runtime", "check", "x.zip"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with broken_loading() as loading, pytest.raises(SystemExit) as ended:
        monkeypatch.setattr("ptycho_runtime.export.bundle.open_export", loading)
        cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "ptycho-runtime: stopped; nothing was finished, nothing is written\n"


class TestUserWithoutHome:
    @pytest.fixture(autouse=True)
    def homeless(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the system not know where this user lives, as in a container that runs as a number."""

        def unknown(path: str | None = None) -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", unknown)

    def test_nothing_was_tuned(self, demo: Path) -> None:
        assert remembered(open_export(demo), "diffraction_to_obj", "cpu") is None

    def test_a_setting_to_be_kept_names_the_way_out(self, demo: Path) -> None:
        with pytest.raises(OutputError, match=r"^this user has no home; set XDG_CACHE_HOME to a folder that can be"):
            remember(open_export(demo), "diffraction_to_obj", "cpu", Tuned((Trial(Setting(4, 1), 1.0, 0.0),)))


def test_threads_beyond_the_host_are_capped_and_said(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.ones((64, 64), np.float32))
    arguments = ["predict", str(demo), str(tmp_path / "x.npy"), "-o", str(tmp_path / "o.npy")]
    assert cli.run([*arguments, "--device", "cpu", "--threads", "4096"]) == 0
    assert "4096 threads were asked for, capped at the " in capsys.readouterr().err


class TestDigest:
    def test_check_says_whose_file_it_is_and_takes_it_back(
        self, demo: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        digest = hashlib.sha256(demo.read_bytes()).hexdigest()
        assert cli.run(["check", str(demo), "--device", "cpu", "--sha256", digest.upper()]) == 0
        assert f"ptycho-runtime: {demo.name}: sha256 {digest}\n" in capsys.readouterr().err

    @pytest.mark.parametrize("command", ["check", "reconstruct", "predict"])
    def test_another_file_than_was_asked_for_is_refused(
        self, command: str, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        np.save(tmp_path / "x.npy", np.ones((64, 64), np.float32))
        more = {
            "check": [],
            "reconstruct": [str(ROOT / "examples" / "demo" / "scan.npz"), "-o", str(tmp_path / "o.npz")],
            "predict": [str(tmp_path / "x.npy"), "-o", str(tmp_path / "o.npy")],
        }
        assert cli.run([command, str(demo), *more[command], "--sha256", 64 * "0"]) == 2
        error = capsys.readouterr().err
        assert error.endswith(f"and {64 * '0'} was asked for; it is another file, do not use it\n")
        assert len(error.splitlines()) == 1
        assert {path.name for path in tmp_path.iterdir()} == {"x.npy"}

    def test_what_is_no_digest_is_refused(self, demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["check", str(demo), "--sha256", "abc"]) == 2
        assert capsys.readouterr().err == (
            "ptycho-runtime: sha256 abc; expected 64 hexadecimal digits, as sha256sum prints them\n"
        )
