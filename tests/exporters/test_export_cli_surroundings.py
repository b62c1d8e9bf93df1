"""The surroundings of `ptycho-export`: who reads its output, in which encoding, for which user, and who stops it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from broken_loading import broken_loading
from sample_bundles import DEMO, ROOT

from exporters.cli import inspect as inspect_command
from exporters.cli import start
from exporters.cli.main import main
from ptycho_runtime.files import MAX_LINE, one_line

INSPECT = [sys.executable, "-m", "exporters", "inspect"]


def ran(command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}, check=False
    )


@pytest.mark.parametrize("arguments", [["inspect", "--json", str(DEMO)], ["inspect", str(DEMO)], ["--help"]])
def test_output_that_nobody_reads_is_no_bug(arguments: list[str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "exporters", *arguments]
    try:
        done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    finally:
        os.close(write_end)
    assert done.returncode == 141
    assert done.stderr in ("", "wts.h5.zip: reading\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
@pytest.mark.parametrize("arguments", [["inspect", "--json", str(DEMO)], ["inspect", str(DEMO)], ["--help"]])
def test_output_on_a_disk_that_is_full_is_one_line(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "exporters", *arguments]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stderr.removeprefix("wts.h5.zip: reading\n") == (
        "ptycho-export: standard output takes no more: No space left on device; the answer is not whole, "
        "files that were named before are\n"
    )


def test_what_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "Bündel.zip"
    path.symlink_to(DEMO)
    done = ran([*INSPECT, str(path)], PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 0, done.stderr
    assert "B\\xfcndel.zip: reading" in done.stderr


def test_what_was_typed_reaches_the_terminal_escaped() -> None:
    done = ran([*INSPECT, "--\x1b[2Jx"])
    assert (done.returncode, done.stdout) == (2, "")
    assert "'--\\x1b[2Jx'" in done.stderr
    assert "\x1b" not in done.stderr


def test_without_a_terminal_there_are_lines_and_no_bars() -> None:
    done = ran([*INSPECT, str(DEMO)], TERM="xterm-256color")
    assert done.returncode == 0
    assert done.stderr == "wts.h5.zip: reading\n"
    assert "\r" not in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare to become another user with")
def test_a_user_whom_the_system_knows_by_a_number_alone() -> None:
    other = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]
    if ran([*other, "true"]).returncode:
        pytest.skip("this system lets nobody become another user")
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    done = subprocess.run(
        [*other, *INSPECT, str(DEMO)], env=environment, capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cnn" in done.stdout


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "ptycho-export: stopped; what was not finished is not stored\n"),
        (MemoryError("9 GB"), 2, "takes more memory than this process may have (9 GB)\n"),
        (OSError(28, "No space left on device"), 2, "ptycho-export: [Errno 28] No space left on device\n"),
    ],
)
def test_what_the_surroundings_do_is_no_bug(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(*_: object) -> None:
        raise error

    monkeypatch.setattr(inspect_command.inspection, "inspect", ends)
    monkeypatch.setattr(sys, "argv", ["ptycho-export", "inspect", str(DEMO)])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert capsys.readouterr().err.endswith(message)


def test_a_message_stays_a_line_whatever_a_file_puts_into_it() -> None:
    line = one_line("a\nb " + "x" * 100_000 + " end")
    assert len(line) < MAX_LINE + 10
    assert line.startswith("a b xxx")
    assert line.endswith("xxx end")


def test_what_a_signal_breaks_is_no_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with broken_loading() as loading, pytest.raises(SystemExit) as ended:
        monkeypatch.setattr("exporters.cli.main.main", loading)
        start.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "ptycho-export: stopped; what was not finished is not stored\n"
