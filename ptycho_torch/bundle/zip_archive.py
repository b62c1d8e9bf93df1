"""Read the members of a zip in memory, by exact name, within limits. Nothing is ever unpacked to disk."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from ptycho_runtime.files import other_name, printable
from ptycho_torch.bundle import limits
from ptycho_torch.bundle.members import CHUNK_BYTES, Members, check_names
from ptycho_torch.bundle.zip_directory import check_directory
from ptycho_torch.errors import DamagedBundleError, LimitExceededError, NotABundleError, UnsafeContentError

_SUPPORTED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
# What zipfile raises for bytes that are no archive, or that contradict themselves.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    struct.error,
    AttributeError,
    IndexError,
)


class _Budget:
    """What may still be read of one archive; the same member read again costs nothing more."""

    def __init__(self, label: str, archive_bytes: int) -> None:
        self._label = label
        self._total = min(limits.MAX_TOTAL_BYTES, limits.RATIO_FREE_BYTES * 4 + limits.MAX_RATIO * archive_bytes)
        self._read: dict[str, int] = {}
        self._spent = 0

    def spend(self, name: str, so_far_bytes: int, stored_bytes: int) -> None:
        """Raise `LimitExceededError` once a member, or all together, are more than a bundle's."""
        before = self._read.get(name, 0)
        if so_far_bytes > before:
            self._read[name] = so_far_bytes
            self._spent += so_far_bytes - before
        if so_far_bytes > limits.MAX_MEMBER_BYTES or self._spent > self._total:
            raise LimitExceededError(
                f"{self._label}: member {printable(name)!r} unpacks to more than any bundle's; refused"
            )
        if so_far_bytes > limits.RATIO_FREE_BYTES and so_far_bytes > limits.MAX_RATIO * max(stored_bytes, 1):
            raise LimitExceededError(
                f"{self._label}: member {printable(name)!r} unpacks to more than {limits.MAX_RATIO} times its size; refused"
            )


class _ShortReads(io.RawIOBase):
    """A file that refuses to be read in one piece larger than any real directory."""

    def __init__(self, file: BinaryIO, label: str) -> None:
        super().__init__()
        self._file = file
        self._label = label
        self.limited = True

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            here = self._file.tell()
            size = self._file.seek(0, os.SEEK_END) - here
            self._file.seek(here)
        if self.limited and size > limits.MAX_DIRECTORY_BYTES:
            raise LimitExceededError(f"{self._label}: its directory says it has {size} bytes; refused")
        return self._file.read(max(size, 0))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


def open_zip(data: memoryview | bytes | BinaryIO, label: str, *, plain: bool = False) -> Members:
    """Return the members of a zip in memory or in an open file.

    Args:
        data: the archive.
        label: its name for messages.
        plain: it is a PyTorch file, whose members are never compressed; other ones are refused.

    Raises:
        NotABundleError: it is no zip archive.
        DamagedBundleError: its directory is cut short or corrupt.
        UnsafeContentError: a name, link, overlap or encryption that no bundle has.
        LimitExceededError: more members than any bundle has.
    """
    in_memory = memoryview(data) if isinstance(data, (bytes, memoryview)) else None
    file: BinaryIO = _MemoryFile(in_memory) if in_memory is not None else data  # type: ignore[assignment]
    size_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(4)
    guarded = _ShortReads(file, label)
    try:
        archive = zipfile.ZipFile(guarded)
    except LimitExceededError:
        raise
    except _UNREADABLE as error:
        if head == b"PK\x03\x04":
            raise DamagedBundleError(
                f"{label}: the zip archive is cut short or corrupt ({printable(error)}); copy it again"
            ) from error
        raise NotABundleError(
            f"{label}: not a zip archive; expected a PtychoPINN wts.h5.zip or a Lightning .ckpt"
        ) from error
    guarded.limited = False
    infos = archive.infolist()
    check_directory(file, len(infos), label)
    check_names([info.orig_filename for info in infos], label)
    for info in infos:
        if problem := other_name(info):
            raise UnsafeContentError(f"{label}: member {printable(ascii(info.orig_filename))} {problem}; refused")
    infos = [info for info in infos if not info.is_dir()]
    _check_entries(infos, label, plain=plain)
    by_name = {info.filename: info for info in infos}
    budget = _Budget(label, size_bytes)

    def chunks(name: str) -> Iterator[bytes]:
        return _read_member(archive, by_name[name], label, budget)

    def view(name: str) -> memoryview:
        assert in_memory is not None
        return _view_member(in_memory, by_name[name], label)

    sizes_bytes = {info.filename: info.file_size for info in infos}
    return Members(label, sizes_bytes, chunks, view if in_memory is not None and plain else None)


class _MemoryFile(io.RawIOBase):
    """A file over bytes that are in memory already, without another copy of the whole."""

    def __init__(self, data: memoryview) -> None:
        super().__init__()
        self._data = data
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        end = len(self._data) if size is None or size < 0 else min(len(self._data), self._at + size)
        taken = bytes(self._data[self._at : end])
        self._at = max(self._at, end)
        return taken

    def seek(self, offset: int, whence: int = 0, /) -> int:
        target = offset + (0, self._at, len(self._data))[whence]
        if target < 0:
            raise OSError("a position before the start")
        self._at = target
        return target

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True


def _check_entries(infos: list[zipfile.ZipInfo], label: str, *, plain: bool) -> None:
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        stored = info.compress_type == zipfile.ZIP_STORED
        problem = None
        if info.flag_bits & 0x1:
            problem = "is encrypted"
        elif stat.S_ISLNK(info.external_attr >> 16):
            problem = "is a symbolic link"
        elif info.compress_type not in _SUPPORTED:
            problem = f"uses compression {info.compress_type}, not deflate"
        elif plain and not stored:
            problem = "is compressed, which PyTorch never does"
        elif info.header_offset < end:
            problem = "overlaps another one"
        if problem is not None:
            raise UnsafeContentError(f"{label}: member {printable(ascii(info.filename))} {problem}; refused")
        if stored and info.compress_size != info.file_size:
            raise DamagedBundleError(
                f"{label}: member {printable(ascii(info.filename))} is stored with two different sizes; copy it again"
            )
        end = info.header_offset + _LOCAL_HEADER.size + info.compress_size


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, label: str, budget: _Budget) -> Iterator[bytes]:
    total = 0
    try:
        with archive.open(info) as member:
            while chunk := member.read(CHUNK_BYTES):
                total += len(chunk)
                budget.spend(info.filename, total, info.compress_size)
                yield chunk
    except LimitExceededError:
        raise
    except _UNREADABLE as error:
        raise DamagedBundleError(
            f"{label}: member {printable(ascii(info.filename))} is cut short or corrupt ({printable(error)}); copy it again"
        ) from error
    if total != info.file_size:
        raise DamagedBundleError(
            f"{label}: member {printable(ascii(info.filename))} has {total} bytes, its header says {info.file_size}; copy it again"
        )


def _view_member(data: memoryview, info: zipfile.ZipInfo, label: str) -> memoryview:
    """Return a plainly stored member as a part of the archive's bytes, checked as zipfile would."""
    header = data[info.header_offset : info.header_offset + _LOCAL_HEADER.size]
    if len(header) < _LOCAL_HEADER.size:
        raise DamagedBundleError(f"{label}: member {printable(ascii(info.filename))} is cut short; copy it again")
    magic, *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    named_from = info.header_offset + _LOCAL_HEADER.size
    start = named_from + name_length + extra_length
    content = data[start : start + info.file_size]
    local_name = bytes(data[named_from : named_from + name_length])
    encoding = "utf-8" if info.flag_bits & 0x800 else "cp437"
    if magic != b"PK\x03\x04" or local_name != info.orig_filename.encode(encoding, "replace"):
        raise DamagedBundleError(
            f"{label}: member {printable(ascii(info.filename))} has two different names; copy it again"
        )
    if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
        raise DamagedBundleError(
            f"{label}: member {printable(ascii(info.filename))} is cut short or corrupt (wrong checksum); copy it again"
        )
    return content
