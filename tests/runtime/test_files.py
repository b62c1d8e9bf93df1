"""Writing: the old file or the new one, whole."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import threading
import zipfile
from pathlib import Path

import pytest

from ptycho_runtime import files
from ptycho_runtime.errors import OutputError
from ptycho_runtime.files import write_file
from ptycho_torch.bundle.write import write_zip

MEMBERS = [("manifest.dill", b"m" * 100), ("a/model.pth", bytes(range(256)) * 40), ("golden.npz", b"PK")]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_new_file_has_the_permissions_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_bundle_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    real = tmp_path / "run" / "wts.h5.zip"
    real.parent.mkdir()
    real.write_bytes(b"old")
    link = tmp_path / "latest.zip"
    link.symlink_to(real)
    write_zip(link, MEMBERS)
    assert link.is_symlink()
    assert zipfile.is_zipfile(real)


def test_a_link_where_a_loose_file_goes_is_replaced_and_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"untouched")
    (tmp_path / "model.onnx").symlink_to(other)
    write_file(tmp_path / "model.onnx", b"new")
    assert other.read_bytes() == b"untouched"
    assert not (tmp_path / "model.onnx").is_symlink()


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_refuses_leaves_the_old_file(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wts.h5.zip"
    path.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OutputError, match=f"wts.h5.zip: cannot be written .{os.strerror(code)}.; give another"):
        write_zip(path, MEMBERS)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["wts.h5.zip"]


def test_members_that_cannot_be_read_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "wts.h5.zip"
    path.write_bytes(b"old")

    def members() -> object:
        yield MEMBERS[0]
        raise ValueError("unreadable")

    with pytest.raises(ValueError, match="unreadable"):
        write_zip(path, members())  # type: ignore[arg-type]
    assert (path.read_bytes(), names(tmp_path)) == (b"old", ["wts.h5.zip"])


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        write_file(tmp_path / "out" / "x", b"")


def test_leftovers_of_killed_runs_are_removed_and_those_of_live_ones_kept(tmp_path: Path) -> None:
    dead, live, other = (tmp_path / name for name in (".x.zip.1.tmp", ".x.zip.2.tmp", ".y.zip.1.tmp"))
    for path in (dead, live, other):
        path.write_bytes(b"half")
    with live.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_zip(tmp_path / "x.zip", MEMBERS)
    assert names(tmp_path) == [".x.zip.2.tmp", ".y.zip.1.tmp", "x.zip"]


def test_names_with_pattern_characters_are_cleaned_up_too(tmp_path: Path) -> None:
    (tmp_path / ".run[1]*.zip.1.tmp").write_bytes(b"half")
    (tmp_path / ".run1.zip.1.tmp").write_bytes(b"another's")
    write_zip(tmp_path / "run[1]*.zip", MEMBERS)
    assert names(tmp_path) == [".run1.zip.1.tmp", "run[1]*.zip"]


def test_without_locks_only_old_leftovers_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    old, young = tmp_path / ".x.1.tmp", tmp_path / ".x.2.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1e9, 1e9))
    write_file(tmp_path / "x", b"new")
    assert names(tmp_path) == [".x.2.tmp", "x"]


def test_a_temporary_file_taken_for_a_leftover_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = files.lock, []

    def lock(file: io.BufferedWriter) -> bool | None:
        calls.append(file.name)
        if len(calls) == 1:  # another run locks it first
            return False
        if len(calls) == 2:  # another run has removed it
            Path(file.name).unlink()
        return original(file)

    monkeypatch.setattr(files, "lock", lock)
    write_file(tmp_path / "x", b"new")
    assert len(set(calls)) == 3
    assert ((tmp_path / "x").read_bytes(), names(tmp_path)) == (b"new", ["x"])


def test_a_file_system_that_cannot_sync_folders_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.fsync

    def fsync(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):  # noqa: PTH112
            raise OSError(errno.EINVAL, "Invalid argument")
        original(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_file(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"


def test_threads_that_write_one_path_all_succeed(tmp_path: Path) -> None:
    path, errors = tmp_path / "wts.h5.zip", []

    def write(mark: int) -> None:
        try:
            for _ in range(20):
                write_zip(path, [("a", bytes([mark]) * 5000), ("b", bytes([mark]) * 50)])
        except OutputError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with zipfile.ZipFile(path) as archive:
        assert archive.read("a")[:1] == archive.read("b")[:1]
    assert names(tmp_path) == ["wts.h5.zip"]
