"""Read the members of a zip or of a folder in memory, by exact name, within limits."""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ptycho_torch.bundle import limits
from ptycho_torch.errors import DamagedBundleError, LimitExceededError, NotABundleError, UnsafeContentError

_CHUNK_BYTES = 1 << 20
_DRIVE = re.compile(r"^[A-Za-z]:")
_SUPPORTED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Members(Mapping[str, bytes]):
    """The members of one archive: names and sizes at once, contents when asked for."""

    def __init__(self, label: str, sizes_bytes: dict[str, int], read: Callable[[str], bytes]) -> None:
        """Take the archive's name for messages, its members in order, and how to read one."""
        self.label = label
        self.sizes_bytes = sizes_bytes
        self._read = read

    def __getitem__(self, name: str) -> bytes:
        """Return a member's content; raises `DamagedBundleError` or `LimitExceededError` where it cannot be had."""
        if name not in self.sizes_bytes:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the archive's order."""
        return iter(self.sizes_bytes)

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self.sizes_bytes)


def check_names(names: list[str], label: str) -> None:
    """Refuse names that point outside the archive or that two files systems would take for one another."""
    if len(names) > limits.MAX_MEMBERS:
        raise LimitExceededError(f"{label}: holds {len(names)} members; a bundle has at most {limits.MAX_MEMBERS}")
    seen: dict[str, str] = {}
    for name in names:
        parts = name.split("/")
        if "\0" in name or "\\" in name or name.startswith("/") or _DRIVE.match(name) or ".." in parts or not name:
            raise UnsafeContentError(f"{label}: member name {name!r} points outside the archive; refused")
        folded = name.casefold()
        if folded in seen:
            how = "occurs twice" if seen[folded] == name else f"differs from {seen[folded]!r} only in case"
            raise UnsafeContentError(f"{label}: member name {name!r} {how}; refused")
        seen[folded] = name


def open_zip(data: bytes | Path, label: str) -> Members:
    """Return the members of a zip given as bytes or as a path.

    Raises:
        NotABundleError: it is no zip archive.
        DamagedBundleError: its directory is cut short or corrupt.
        UnsafeContentError: a name, link or encryption that no bundle has.
        LimitExceededError: more members than any bundle has.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data) if isinstance(data, bytes) else data)
    except (
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        NotImplementedError,
        OverflowError,
        UnicodeDecodeError,
    ) as error:
        head = data[:4] if isinstance(data, bytes) else _head(data)
        if head == b"PK\x03\x04":
            raise DamagedBundleError(
                f"{label}: the zip archive is cut short or corrupt ({error}); copy it again"
            ) from error
        raise NotABundleError(
            f"{label}: not a zip archive; expected a PtychoPINN wts.h5.zip or a Lightning .ckpt"
        ) from error
    infos = [info for info in archive.infolist() if not info.is_dir()]
    check_names([info.orig_filename for info in infos], label)
    for info in infos:
        if info.flag_bits & 0x1:
            raise UnsafeContentError(f"{label}: member {info.filename!r} is encrypted; refused")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise UnsafeContentError(f"{label}: member {info.filename!r} is a symbolic link; refused")
        if info.compress_type not in _SUPPORTED:
            raise UnsafeContentError(
                f"{label}: member {info.filename!r} uses compression {info.compress_type}; expected stored or deflate"
            )
    by_name = {info.filename: info for info in infos}
    budget = [limits.MAX_TOTAL_BYTES]

    def read(name: str) -> bytes:
        return _read_member(archive, by_name[name], label, budget)

    return Members(label, {info.filename: info.file_size for info in infos}, read)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, label: str, budget: list[int]) -> bytes:
    chunks: list[bytes] = []
    total = 0
    try:
        with archive.open(info) as member:
            while chunk := member.read(_CHUNK_BYTES):
                total += len(chunk)
                budget[0] -= len(chunk)
                if total > limits.MAX_MEMBER_BYTES or budget[0] < 0 or total > info.file_size:
                    raise LimitExceededError(
                        f"{label}: member {info.filename!r} is larger than it says or than any bundle's"
                    )
                if total > limits.RATIO_FREE_BYTES and total > limits.MAX_RATIO * max(info.compress_size, 1):
                    raise LimitExceededError(
                        f"{label}: member {info.filename!r} unpacks to more than {limits.MAX_RATIO} times its size"
                    )
                chunks.append(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, LimitExceededError):
            raise
        raise DamagedBundleError(
            f"{label}: member {info.filename!r} is cut short or corrupt ({error}); copy it again"
        ) from error
    if total != info.file_size:
        raise DamagedBundleError(
            f"{label}: member {info.filename!r} has {total} bytes, its header says {info.file_size}; copy it again"
        )
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def open_folder(folder: Path) -> Members:
    """Return the files below a folder as members; links are refused."""
    sizes: dict[str, int] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise UnsafeContentError(f"{folder}: {name!r} is a symbolic link; refused")
        if path.is_file():
            sizes[name] = path.stat().st_size
        if len(sizes) > limits.MAX_MEMBERS:
            raise LimitExceededError(f"{folder}: holds more than {limits.MAX_MEMBERS} files")
    check_names(list(sizes), str(folder))

    def read(name: str) -> bytes:
        if sizes[name] > limits.MAX_MEMBER_BYTES:
            raise LimitExceededError(f"{folder}: {name!r} is larger than any bundle's member")
        try:
            return (folder / name).read_bytes()
        except OSError as error:
            raise DamagedBundleError(f"{folder}: {name!r} cannot be read ({error.strerror})") from error

    return Members(str(folder), sizes, read)
