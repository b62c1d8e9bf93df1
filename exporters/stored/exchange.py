"""Exports put into an unpacked bundle: a new folder takes the old one's place as a whole, or the old one stays."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from ptycho_runtime.contract import EXPORTS_JSON
from ptycho_runtime.errors import OutputError
from ptycho_runtime.files import beside, changed, lock, sync_folder, write_file
from ptycho_torch.bundle import BundleRecord, is_own_member

_HERE, _EXCHANGE = -100, 2  # of renameat2(2): paths as they are, and both change places
_ABANDONED_S = 24 * 3600


def store_in_folder(record: BundleRecord, files: Mapping[str, bytes]) -> None:
    """Put exports into the unpacked bundle that was read.

    The new folder is built beside the old one, of links to the files that stay, and the two change places at one moment; where the
    system cannot do that, `exports.json` goes first and comes last, so that a folder that was left half done holds no exports.

    Args:
        record: the bundle, of kind `folder`.
        files: what the export adds or replaces, by member name.

    Raises:
        ChangedMeanwhileError: the folder is not what was read any more; it stays, the new one lies beside it.
        OutputError: the folder or disk refuses; the old folder is as it was.
    """
    folder = Path(os.path.realpath(record.path))
    try:
        _remove_leftovers(folder)
        temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.tmp")
        temporary.mkdir()
    except PermissionError as error:
        # Nothing can be made beside the folder, so it cannot be exchanged.
        if not os.access(folder, os.W_OK) or not _same(record, folder):
            raise _refused(folder, error) from error
        return _one_by_one(folder, files)
    except OSError as error:
        raise _refused(folder, error) from error
    handle = os.open(temporary, os.O_RDONLY)
    try:
        lock(handle)
        _build(record, folder, temporary, files)
        if not _same(record, folder):
            raise changed(folder, beside(temporary, folder))
        if not change_places(temporary, folder):
            _one_by_one(folder, files)
        elif not _same(record, temporary):
            # Somebody wrote into the old folder between the look and the exchange: it comes back.
            change_places(temporary, folder)
            raise changed(folder, beside(temporary, folder))
        sync_folder(folder.parent)
    except OSError as error:
        raise _refused(folder, error) from error
    finally:
        os.close(handle)
        shutil.rmtree(temporary, ignore_errors=True)


def _refused(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{folder}: cannot be written ({error.strerror or error}); give another folder with --out, or make room there"
    )


def _build(record: BundleRecord, folder: Path, new: Path, files: Mapping[str, bytes]) -> None:
    """Fill a new folder: everything that is not an export as it is, then the exports."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_dir():
            (new / name).mkdir(parents=True, exist_ok=True)
            shutil.copystat(path, new / name)
        elif not is_own_member(name.as_posix()):
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, new / name)
            except OSError:  # no hard links here
                shutil.copy2(path, new / name)
    for member, data in files.items():
        write_file(new / member, data)
        old = folder / member
        if old.is_file():
            shutil.copymode(old, new / member)
    shutil.copystat(folder, new)
    for path in [new, *(path for path in new.rglob("*") if path.is_dir())]:
        sync_folder(path)


def _same(record: BundleRecord, folder: Path) -> bool:
    """Say whether a folder still holds what was read: the same files, PtychoPINN's own and `exports.json` with the same content."""
    sizes = dict(record.members)
    found = {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if not path.is_dir()
    }
    if found != sizes:
        return False
    for name in sizes:
        digest = record.own_digests.get(name)
        if digest is not None:
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return False
    if record.exports is None:
        return True
    # By what was read of it: once the folders changed places, the record's own path leads to the new one.
    try:
        return bool(json.loads((folder / EXPORTS_JSON).read_bytes()) == record.exports)
    except (ValueError, RecursionError):
        return False


def change_places(first: Path, second: Path) -> bool:
    """Let two folders change places at one moment; False where this system or file system has no such thing."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    rename = getattr(libc, "renameat2", None)
    return rename is not None and not rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE)


def _one_by_one(folder: Path, files: Mapping[str, bytes]) -> None:
    (folder / EXPORTS_JSON).unlink(missing_ok=True)
    sync_folder(folder)
    for name, data in files.items():
        if name != EXPORTS_JSON:
            write_file(folder / name, data)
    write_file(folder / EXPORTS_JSON, files[EXPORTS_JSON])


def _remove_leftovers(folder: Path) -> None:
    """Remove the folders that killed runs left; those of runs that are at it are locked."""
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{16}}\.tmp")
    for path in folder.parent.iterdir():
        if pattern.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                handle = os.open(path, os.O_RDONLY)
                try:
                    free = lock(handle)
                    old = time.time() - os.fstat(handle).st_mtime > _ABANDONED_S
                    if free or (free is None and old):
                        shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(handle)
