"""What others wrote meanwhile is never lost, and a killed export leaves a folder that is whole."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import killed_folder as k
import pytest

pytest.importorskip("torch")

from exporters.stored import exchange
from ptycho_runtime.errors import ChangedMeanwhileError
from ptycho_runtime.files import replacing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork, SIGKILL and locks")


def killed(folder: Path, *how: str) -> dict[str, Any]:
    script = Path(k.__file__)
    done = subprocess.run([sys.executable, str(script), str(folder), *how], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_folder_killed_at_every_step_is_old_or_new(tmp_path: Path) -> None:
    found = killed(tmp_path)
    assert found["steps"] > 60
    assert set(found["states"]) == {"old", "new"}
    assert found["states"] == sorted(found["states"], key=["old", "new"].index)
    assert found["leftovers"] > 10


def test_where_folders_cannot_change_places_a_killed_one_may_have_no_exports(tmp_path: Path) -> None:
    found = killed(tmp_path, "one-by-one")
    assert set(found["states"]) == {"old", "none", "new"}
    assert found["states"] == sorted(found["states"], key=["old", "none", "new"].index)


def test_a_file_replaced_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "wts.h5.zip"
    path.write_bytes(b"read")
    digest = hashlib.sha256(b"read").hexdigest()
    lies = pytest.raises(ChangedMeanwhileError, match=r"the new result lies in .*wts\.h5\.new\.zip")
    with lies, replacing(path, expected_sha256=digest) as file:
        file.write(b"export of what was read")
        path.write_bytes(b"saved by training meanwhile")
    assert path.read_bytes() == b"saved by training meanwhile"
    assert (tmp_path / "wts.h5.new.zip").read_bytes() == b"export of what was read"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wts.h5.new.zip", "wts.h5.zip"]


def test_a_file_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "wts.h5.zip"
    with pytest.raises(ChangedMeanwhileError), replacing(path, expected_sha256=hashlib.sha256(b"").hexdigest()) as file:
        file.write(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["wts.h5.new.zip"]


def test_of_two_writers_that_read_the_same_file_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wts.h5.zip"
    path.write_bytes(b"read")
    digest = hashlib.sha256(b"read").hexdigest()
    with pytest.raises(ChangedMeanwhileError), replacing(path, expected_sha256=digest) as first:
        first.write(b"first")
        with replacing(path, expected_sha256=digest) as second:
            second.write(b"second")
    assert path.read_bytes() == b"second"
    assert (tmp_path / "wts.h5.new.zip").read_bytes() == b"first"


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "autoencoder" / "model.pth").write_bytes(b"v" * 5000),
        lambda folder: (folder / "another.txt").write_bytes(b"x"),
        lambda folder: (folder / "manifest.dill").unlink(),
        lambda folder: (folder / "exports.json").write_bytes(b'{"is": "xyz"}'),
        lambda folder: (folder / "exports.json").write_bytes(b"[" * 13),
    ],
)
def test_a_folder_changed_meanwhile_stays(
    change: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "wts.h5"
    record = k.made(folder)
    change(folder)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(ChangedMeanwhileError, match=r"lies in .*wts\.new\.h5"):
        exchange.store_in_folder(record, k.NEW)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert (tmp_path / "wts.new.h5" / "golden.npz").read_bytes() == k.NEW["golden.npz"]


def test_what_is_written_between_the_look_and_the_exchange_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "wts.h5"
    record = k.made(folder)
    original = exchange.change_places

    def late(first: Path, second: Path) -> bool:
        (folder / "late.txt").write_bytes(b"late")
        monkeypatch.setattr(exchange, "change_places", original)
        return original(first, second)

    monkeypatch.setattr(exchange, "change_places", late)
    with pytest.raises(ChangedMeanwhileError):
        exchange.store_in_folder(record, k.NEW)
    assert (folder / "late.txt").read_bytes() == b"late"
    assert (folder / "exports.json").read_bytes() == k.OLD["exports.json"]


def test_modes_of_the_folder_and_its_files_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "wts.h5"
    record = k.made(folder)
    folder.chmod(0o750)
    (folder / "golden.npz").chmod(0o640)
    exchange.store_in_folder(record, k.NEW)
    assert k.state(folder) == "new"
    assert folder.stat().st_mode & 0o777 == 0o750
    assert (folder / "golden.npz").stat().st_mode & 0o777 == 0o640
