"""Archives: read by exact name, in memory, within limits."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_torch.bundle import folder as files
from ptycho_torch.bundle import limits, members
from ptycho_torch.bundle import zip_archive as archive
from ptycho_torch.errors import BundleError, DamagedBundleError, LimitExceededError, NotABundleError, UnsafeContentError


def zipped(found: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as made:
        for name, data in found.items():
            made.writestr(name, data)
    return buffer.getvalue()


def test_members_have_their_names_sizes_and_contents_in_order() -> None:
    found = archive.open_zip(zipped({"b": b"second", "a/x": b"", "c": b"\0" * 9}), "t.zip")
    assert list(found) == ["b", "a/x", "c"]
    assert found.sizes_bytes == {"b": 6, "a/x": 0, "c": 9}
    assert [found[name] for name in found] == [b"second", b"", b"\0" * 9]
    assert bytes(found.buffer("b")) == b"second"


def test_looking_for_a_member_does_not_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = archive.open_zip(zipped({"a": b"1"}), "t.zip")
    monkeypatch.setattr(archive.zipfile.ZipFile, "open", lambda *_: pytest.fail("read"))
    assert "a" in found
    assert "b" not in found
    with pytest.raises(KeyError):
        found.buffer("b")


def test_a_plain_archive_in_memory_is_read_without_copying() -> None:
    data = zipped({"x/data.pkl": b"pickle", "x/data/0": b"1234"}, zipfile.ZIP_STORED)
    view = archive.open_zip(data, "t", plain=True).buffer("x/data/0")
    assert view.obj is data
    assert view.readonly
    assert bytes(view) == b"1234"


def test_entries_for_folders_are_passed_over() -> None:
    assert list(archive.open_zip(zipped({"a/": b"", "a/x": b"1"}), "t.zip")) == ["a/x"]


@pytest.mark.parametrize("name", ["../x", "a/../x", "/x", "C:x", "..\\x", "a//x", "./x", "a/./x", ".", "..", ""])
def test_names_that_point_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(UnsafeContentError, match="points outside the archive"):
        members.check_names([name], "t.zip")


def test_names_with_backslashes_say_how_the_archive_was_packed() -> None:
    with pytest.raises(UnsafeContentError, match="has backslashes, which zip archives do not use between folders"):
        members.check_names(["autoencoder\\model.pth"], "t.zip")


@given(st.text(min_size=1, max_size=20))
def test_a_name_is_either_refused_or_stays_below_its_folder(name: str) -> None:
    try:
        members.check_names([name], "t.zip")
    except BundleError:
        return
    base = Path("/base/folder")
    assert (base / name).is_relative_to(base)
    assert ".." not in (base / name).parts
    assert "\0" not in name


@pytest.mark.parametrize(
    ("first", "second"), [("a", "a"), ("Manifest.dill", "manifest.dill"), ("caf\u00e9", "cafe\u0301"), ("a", "a/")]
)
def test_names_that_a_file_system_takes_for_one_are_refused(first: str, second: str) -> None:
    with pytest.raises(UnsafeContentError, match=r"occurs twice|only in case"):
        members.check_names([first, second], "t.zip")


def test_what_is_read_counts_and_not_what_the_header_says(monkeypatch: pytest.MonkeyPatch) -> None:
    data = zipped({"a": bytes(5000)}, zipfile.ZIP_STORED)
    monkeypatch.setattr(limits, "MAX_MEMBER_BYTES", 4999)
    with pytest.raises(LimitExceededError, match="'a' unpacks to more than any bundle's"):
        archive.open_zip(data, "t.zip")["a"]


def test_reading_a_member_twice_costs_its_size_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_TOTAL_BYTES", 5000)
    found = archive.open_zip(zipped({"a": bytes(3000), "b": bytes(2001)}), "t.zip")
    assert len(found["a"]) == len(found["a"]) == 3000
    with pytest.raises(LimitExceededError, match="'b' unpacks to more"):
        found["b"]


def test_zeros_that_unpack_to_a_few_megabytes_are_allowed() -> None:
    assert len(archive.open_zip(zipped({"zeros": bytes(4_000_000)}), "t.zip")["zeros"]) == 4_000_000


def test_no_zip_a_cut_zip_and_a_corrupt_member_are_told_apart() -> None:
    data = zipped({"a": bytes(range(256)) * 8})
    with pytest.raises(NotABundleError, match="not a zip archive; expected a PtychoPINN"):
        archive.open_zip(b"hello", "t.zip")
    with pytest.raises(DamagedBundleError, match="cut short or corrupt"):
        archive.open_zip(data[:-30], "t.zip")
    corrupt = bytearray(data)
    corrupt[60] ^= 0xFF
    with pytest.raises(DamagedBundleError, match="member 'a' is cut short or corrupt"):
        archive.open_zip(bytes(corrupt), "t.zip")["a"]


def test_a_folder_has_the_members_of_the_zip_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"22")
    found = files.open_folder(tmp_path)
    assert {name: found[name] for name in found} == {"a/x": b"1", "b": b"22"}
    assert found.sizes_bytes == {"a/x": 1, "b": 2}


def test_a_link_put_in_after_the_listing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    found = files.open_folder(tmp_path)
    (tmp_path / "x").unlink()
    (tmp_path / "x").symlink_to("/etc/passwd")
    with pytest.raises(DamagedBundleError, match="'x' cannot be read"):
        found["x"]


def test_a_file_removed_after_the_listing_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    found = files.open_folder(tmp_path)
    (tmp_path / "x").unlink()
    with pytest.raises(DamagedBundleError, match="'x' cannot be read \\(No such file"):
        found["x"]


def test_more_files_than_a_bundle_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_MEMBERS", 3)
    for n in range(4):
        (tmp_path / str(n)).touch()
    with pytest.raises(LimitExceededError, match="holds more than 3 files"):
        files.open_folder(tmp_path)
    with pytest.raises(LimitExceededError, match="holds 4 members; a bundle has at most 3"):
        archive.open_zip(zipped(dict.fromkeys("abcd", b"")), "t.zip")


def test_a_directory_larger_than_any_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_DIRECTORY_BYTES", 70_000)  # zipfile looks through 64 KB for the end record
    with pytest.raises(LimitExceededError, match="its directory says it has"):
        archive.open_zip(zipped({f"{n:060}": b"" for n in range(1000)}), "t.zip")


def test_an_archive_that_contradicts_itself_is_refused() -> None:
    data = zipped({"a": b"1", "b": b"2"})
    end = data.rindex(b"PK\x05\x06")
    fewer = data[: end + 8] + b"\x01\x00\x01\x00" + data[end + 12 :]
    for changed, what in [
        (fewer, "its end says 1 members, its directory has 2"),
        (b"prefix" + data, "its directory is not where its end says"),
        (data + b"suffix", "something follows its end"),
        (data[:end] + b"gap" + data[end:], "its directory is not where its end says|Bad magic"),
    ]:
        with pytest.raises(
            (DamagedBundleError, NotABundleError), match=f"cut short or corrupt .{what}|not a zip archive"
        ):
            archive.open_zip(changed, "t.zip")


def test_large_archives_endings_are_read_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)  # makes zipfile write the 64-bit ending
    data = zipped({"a": b"1", "b": b"2"})
    monkeypatch.undo()
    assert b"PK\x06\x06" in data
    assert list(archive.open_zip(data, "t.zip")) == ["a", "b"]
    changed = bytearray(data)
    changed[data.index(b"PK\x06\x06") + 32] = 1
    with pytest.raises(DamagedBundleError, match="its end says 1 members"):
        archive.open_zip(bytes(changed), "t.zip")


def with_unicode_path(shown: str) -> bytes:
    entry = zipfile.ZipInfo("notes.txt")
    body = struct.pack("<BI", 1, zlib.crc32(b"notes.txt")) + shown.encode()
    entry.extra = struct.pack("<HH", 0x7075, len(body)) + body
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("manifest.dill", b"1")
        made.writestr(entry, b"2")
    return buffer.getvalue()


@pytest.mark.parametrize("shown", ["manifest.dill", "autoencoder/params.dill", "../x", "notes.txt"])
def test_a_second_name_in_an_extra_field_is_refused_on_every_python(shown: str) -> None:
    with pytest.raises(UnsafeContentError, match=r"has a second name in an extra field|is read as"):
        archive.open_zip(with_unicode_path(shown), "t.zip")


def test_a_name_that_depends_on_who_decodes_it_is_refused() -> None:
    data = zipped({"cafe": b"1"}).replace(b"cafe", b"caf\x82")
    with pytest.raises(UnsafeContentError, match="neither ASCII nor said to be UTF-8"):
        archive.open_zip(data, "t.zip")
