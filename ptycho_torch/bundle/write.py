"""Write files whole or not at all: temporary file in the target folder, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import glob
import io
import os
import secrets
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from ptycho_torch.errors import OutputNotWritableError

if sys.platform != "win32":
    import fcntl

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say; a real time would make two equal exports differ
_UNIX = 3  # the system a zip says it was made on, the same wherever it is made
_STORED_SUFFIXES = (".npz",)  # compressed already
_ATTEMPTS = 100
_ABANDONED_S = 24 * 3600  # age of a leftover on a file system that has no locks to ask
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # some network file systems
_NO_FOLDER_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES)


def write_zip(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write a zip archive with the same bytes for the same members; an older file stays whole until the new one is.

    Where `path` is a symbolic link, the file it points to is replaced.

    Args:
        path: where to; its folder is made if missing.
        members: (name, content) in the order they are to have.

    Raises:
        OutputNotWritableError: the folder or disk refuses; the older file is untouched.
    """
    with _replacing(Path(os.path.realpath(path))) as file, zipfile.ZipFile(file, "w") as archive:
        for name, data in members:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.create_system = _UNIX
            stored = name.endswith(_STORED_SUFFIXES)
            entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; raises `OutputNotWritableError` with the older file untouched."""
    with _replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary, file = _create(path)
        with file:
            yield file
            file.flush()
            _keep_mode(path, file)
            os.fsync(file.fileno())
            temporary.replace(path)
            temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise OutputNotWritableError(
            f"{path}: cannot be written ({error.strerror or error}); give another folder or make room there"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _create(path: Path) -> tuple[Path, IO[bytes]]:
    """Return a new file beside `path`, locked for as long as its writer lives, however that ends."""
    for _ in range(_ATTEMPTS):
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        file = temporary.open("xb")
        # Between making and locking it, another run may have taken it for a leftover: then it is locked or gone.
        if _lock(file) is not False and os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()
        with contextlib.suppress(OSError):
            temporary.unlink()
    raise OSError(errno.EBUSY, "other runs keep taking its temporary file")


def _lock(file: IO[bytes]) -> bool | None:
    """Lock a file without waiting; False where another process has it, None where the file system has no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of runs that were killed; those of runs that are at it are locked."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError), leftover.open("rb") as file:
            locked = _lock(file)
            old = time.time() - os.fstat(file.fileno()).st_mtime > _ABANDONED_S
            if locked or (locked is None and old):
                leftover.unlink()


def _keep_mode(path: Path, file: IO[bytes]) -> None:
    """Give the new file the permissions of the one it replaces."""
    if sys.platform != "win32":
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.fchmod(file.fileno(), path.stat().st_mode & 0o777)


def _sync_folder(folder: Path) -> None:
    """Make the renaming last through a power failure, where the file system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def zip_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a zip with fixed times as bytes, for files that are archives themselves (`.npz`)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return arrays as an NPZ file's bytes, the same for the same arrays."""

    def npy(array: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
        return buffer.getvalue()

    return zip_bytes((f"{name}.npy", npy(array)) for name, array in arrays.items())
