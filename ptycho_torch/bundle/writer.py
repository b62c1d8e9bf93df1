"""Write files whole or not at all: temporary file in the target folder, fsync, rename."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from ptycho_torch.errors import OutputNotWritableError

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say; a real time would make two equal exports differ
_STORED_SUFFIXES = (".npz",)  # compressed already


def write_zip(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write a zip archive with the same bytes for the same members; an older file stays whole until the new one is.

    Args:
        path: where to; its folder is made if missing.
        members: (name, content) in the order they are to have.

    Raises:
        OutputNotWritableError: the folder or disk refuses; the older file is untouched.
    """
    with _replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, data in members:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            stored = name.endswith(_STORED_SUFFIXES)
            entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; raises `OutputNotWritableError` with the older file untouched."""
    with _replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    made = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        # The lock tells a later run that this file still has a writer; it goes with the process, however it ends.
        with temporary.open("xb") as file:
            made = True
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
            made = False
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise OutputNotWritableError(
            f"{path}: cannot be written ({error.strerror or error}); give another folder or make room there"
        ) from error
    finally:
        if made:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(OSError), leftover.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def zip_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a stored zip with fixed times as bytes, for files that are archives themselves (`.npz`)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
