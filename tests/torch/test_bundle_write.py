"""Archives written: members in order, the same bytes for the same members."""

from __future__ import annotations

import hashlib
import io
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_torch.bundle.write import write_zip, zip_bytes

MEMBERS = [("manifest.dill", b"m" * 100), ("a/model.pth", bytes(range(256)) * 40), ("golden.npz", b"PK")]


def test_a_zip_has_its_members_in_order_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "wts.h5.zip"
    write_zip(path, MEMBERS)
    with zipfile.ZipFile(path) as archive:
        assert [(info.filename, archive.read(info)) for info in archive.infolist()] == MEMBERS
    assert [file.name for file in path.parent.iterdir()] == ["wts.h5.zip"]


def test_equal_members_give_equal_bytes_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zip(tmp_path / "a.zip", MEMBERS)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    monkeypatch.setattr(time, "localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    write_zip(tmp_path / "b.zip", iter(MEMBERS))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert zip_bytes(MEMBERS) == zip_bytes(MEMBERS)


def test_the_bytes_of_a_zip_are_pinned_down_to_its_headers(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", [("golden.npz", b"stored")])  # stored: independent of zlib's version
    assert hashlib.sha256((tmp_path / "a.zip").read_bytes()).hexdigest() == (
        "ad52e7e110099352e47b257ec06dad92c2070f6b5e6668bd100c701339d4f519"
    )


@given(st.dictionaries(st.text("abc/.", min_size=1, max_size=8), st.binary(max_size=200), max_size=5))
def test_bytes_of_a_zip_come_back(members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(io.BytesIO(zip_bytes(members.items()))) as archive:
        assert {info.filename: archive.read(info) for info in archive.infolist()} == members


def test_numpy_reads_an_npz_made_here() -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.arange(3.0))
    with np.load(io.BytesIO(zip_bytes([("a.npy", buffer.getvalue())]))) as found:
        assert np.array_equal(found["a"], np.arange(3.0))
