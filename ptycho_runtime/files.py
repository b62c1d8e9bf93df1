"""The one way in which this project writes files, whole or not at all, and in which it shows text that comes out of files."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import secrets
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ptycho_runtime.errors import ChangedMeanwhileError, OutputError

if sys.platform != "win32":
    import fcntl

_ATTEMPTS = 100
_ABANDONED_S = 24 * 3600  # age of a leftover on a file system that has no locks to ask
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # some network file systems
_NO_FOLDER_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES)


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; raises `OutputError` with the older file untouched."""
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path, *, expected_sha256: str | None = None) -> Iterator[IO[bytes]]:
    """Give a file to write to, which takes the name `path` when the block ends well.

    The file has a name that nobody can foresee, and a lock for as long as its writer lives; what killed writers of `path` left
    is removed. Folders are made if missing, the mode of a file that is replaced is kept, and a link at `path` is replaced itself.

    Args:
        path: the name that it gets.
        expected_sha256: of the file that is replaced, as it was read; where another one lies there by then, that one stays.

    Raises:
        ChangedMeanwhileError: the file to replace is another one by now; the new file lies beside it.
        OutputError: the folder or disk refuses; an older file at `path` is as it was.

    Examples:
        >>> with replacing(Path("result.json")) as file:  # doctest: +SKIP
        ...     file.write(b"{}")
    """
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
            with _locked_if_same(path, expected_sha256) as same:
                if not same:
                    raise changed(path, beside(temporary, path))
                temporary.replace(path)
                temporary = None
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); give another folder or make room there"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


@contextlib.contextmanager
def _locked_if_same(path: Path, sha256: str | None) -> Iterator[bool]:
    """Say whether a file is still the one of this digest, and hold its lock meanwhile, so that of two writers one sees the other."""
    if sha256 is None:
        yield True
        return
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield False
        return
    with file:
        if sys.platform != "win32":
            with contextlib.suppress(OSError):  # no locks here: the digest alone must do
                fcntl.flock(file, fcntl.LOCK_EX)
        content = hashlib.file_digest(file, "sha256").hexdigest()
        yield content == sha256 and path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))


def beside(temporary: Path, path: Path) -> Path:
    """Give a finished temporary file or folder a visible name beside `path` that nothing has yet, and return it."""
    stem, dot, suffix = path.name.rpartition(".")
    stem, suffix = (stem, dot + suffix) if stem else (path.name, "")
    for number in range(_ATTEMPTS):
        name = path.with_name(f"{stem}.new{f'-{number}' if number else ''}{suffix}")
        with contextlib.suppress(FileExistsError):
            if temporary.is_dir():
                name.mkdir()
                temporary.replace(name)
            else:
                os.link(temporary, name)
            return name
    raise OSError(errno.EEXIST, "there are too many results beside it")


def changed(path: Path, new: Path) -> ChangedMeanwhileError:
    """Return the error of a file or folder that is not what was read any more."""
    return ChangedMeanwhileError(
        f"{path}: was changed or replaced since it was read, and stays as it is now; the new result lies in {new}; look which of "
        "the two you want, or run the command again"
    )


def _create(path: Path) -> tuple[Path, IO[bytes]]:
    """Return a new file beside `path`, locked for as long as its writer lives, however that ends."""
    for _ in range(_ATTEMPTS):
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        file = temporary.open("x+b")
        # Between making and locking it, another run may have taken it for a leftover: then it is locked or gone.
        if lock(file) is not False and os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()
        with contextlib.suppress(OSError):
            temporary.unlink()
    raise OSError(errno.EBUSY, "other runs keep taking its temporary file")


def lock(file: IO[bytes] | int) -> bool | None:
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
            locked = lock(file)
            old = time.time() - os.fstat(file.fileno()).st_mtime > _ABANDONED_S
            if locked or (locked is None and old):
                leftover.unlink()


def _keep_mode(path: Path, file: IO[bytes]) -> None:
    """Give the new file the permissions of the one it replaces."""
    if sys.platform != "win32":
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.fchmod(file.fileno(), path.stat().st_mode & 0o777)


def sync_folder(folder: Path) -> None:
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


def cache_folder() -> Path:
    """Return where a host keeps what it found out or built: `$XDG_CACHE_HOME` or `~/.cache`, in `ptycho-runtime`.

    Raises `OutputError` where the user has no home, as one that the system knows by a number alone.
    """
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(root) if root else Path.home() / ".cache") / "ptycho-runtime"
    except RuntimeError as error:
        raise OutputError("this user has no home; set XDG_CACHE_HOME to a folder that can be written") from error


def check_is_file(path: Path, what: str) -> None:
    """Raise `OSError` that says what is there where a path is no file.

    Args:
        path: as the user gave it.
        what: is expected there ("scan").

    Raises:
        FileNotFoundError: nothing is there.
        IsADirectoryError: a folder is there.
        OSError: a pipe or a device is there.
    """
    if path.is_file():
        return
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; expected one file, the {what}")
    if path.exists():
        raise OSError(f"{path}: is a pipe or a device; expected a file, the {what}: copy it to one")
    raise FileNotFoundError(f"{path}: no such {what}")


def printable(value: object, limit: int = 80) -> str:
    """Return a value's text with unprintable characters escaped and its middle left out beyond `limit` characters."""
    text = value if isinstance(value, str) else str(value)
    if len(text) > limit:
        text = f"{text[: limit // 2]}…{text[-limit // 2 :]}"
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def shown(text: str) -> str:
    """Return whole lines as they go to a terminal: no character in them does anything but stand there, or end a line."""
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text)


def encodable(text: str) -> str:
    """Return text as files keep it: of a name that is no UTF-8, what cannot be encoded is escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


MAX_LINE = 1800


def one_line(text: str) -> str:
    """Return a message as one line that a person can read, whatever a file put into it."""
    line = " ".join(text.split())
    if len(line) > MAX_LINE:
        line = f"{line[: MAX_LINE // 2]} … {line[-MAX_LINE // 2 :]}"
    return line


def _escaped(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) > 0xFF else f"\\x{ord(character):02x}"


_UNICODE_PATH = 0x7075  # an extra field with a second name, which some readers of zips take and some do not
_UTF_8 = 0x800  # the flag of an entry whose name is UTF-8


def other_name(entry: zipfile.ZipInfo) -> str:
    """Return in words why a zip entry has another name for other readers or other versions of Python; empty where it has one name."""
    extra, at = entry.extra, 0
    while at + 4 <= len(extra):
        if int.from_bytes(extra[at : at + 2], "little") == _UNICODE_PATH:
            return "has a second name in an extra field (Unicode path)"
        at += 4 + int.from_bytes(extra[at + 2 : at + 4], "little")
    if entry.filename != entry.orig_filename:
        return f"is read as {printable(ascii(entry.filename))}, another name"
    if not entry.orig_filename.isascii() and not entry.flag_bits & _UTF_8:
        return "has a name that is neither ASCII nor said to be UTF-8"
    return ""
