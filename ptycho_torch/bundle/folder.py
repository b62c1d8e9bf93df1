"""Read folders and single files as members; links, pipes and devices are refused."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ptycho_runtime.files import printable
from ptycho_torch.bundle import limits
from ptycho_torch.bundle.members import CHUNK_BYTES, Members, check_names
from ptycho_torch.errors import DamagedBundleError, LimitExceededError, UnsafeContentError


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading; raises `DamagedBundleError` for what is no regular file (a pipe would block, a device never end)."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise DamagedBundleError(f"{path}: is no regular file; give a bundle, checkpoint or run directory")
    return open(handle, "rb")  # noqa: PTH123  # a handle, no path


def open_folder(folder: Path) -> Members:
    """Return the files below a folder as members; links are refused, and so is what is no regular file."""
    sizes: dict[str, int] = {}
    pending = [folder]
    while pending:
        here = pending.pop()
        for entry in sorted(os.scandir(here), key=lambda entry: entry.name):
            path = Path(entry.path)
            name = path.relative_to(folder).as_posix()
            if entry.is_symlink():
                raise UnsafeContentError(f"{folder}: {printable(ascii(name))} is a symbolic link; refused")
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            elif entry.is_file(follow_symlinks=False):
                sizes[name] = entry.stat(follow_symlinks=False).st_size
            else:
                raise UnsafeContentError(f"{folder}: {printable(ascii(name))} is no regular file; refused")
            if len(sizes) + len(pending) > limits.MAX_MEMBERS:
                raise LimitExceededError(f"{folder}: holds more than {limits.MAX_MEMBERS} files")
            if name.count("/") >= limits.MAX_FOLDER_DEPTH:
                raise LimitExceededError(f"{folder}: {printable(ascii(name))} is nested too deep; refused")
    sizes = dict(sorted(sizes.items()))
    check_names(list(sizes), str(folder))

    def chunks(name: str) -> Iterator[bytes]:
        return _read_file(folder / name, f"{folder}: {printable(ascii(name))}")

    return Members(str(folder), sizes, chunks)


def _read_file(path: Path, where: str) -> Iterator[bytes]:
    total = 0
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UnsafeContentError(f"{where} is no regular file; refused")
            while chunk := file.read(CHUNK_BYTES):
                total += len(chunk)
                if total > limits.MAX_MEMBER_BYTES:
                    raise LimitExceededError(f"{where} is larger than any bundle's member")
                yield chunk
    except OSError as error:
        raise DamagedBundleError(f"{where} cannot be read ({error.strerror})") from error


def single_file(file: BinaryIO, name: str) -> Members:
    """Return an open file as the only member of an archive."""
    size_bytes = file.seek(0, os.SEEK_END)

    def chunks(_: str) -> Iterator[bytes]:
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            yield chunk

    return Members(name, {name: size_bytes}, chunks)
