"""Zip and NPZ files that have the same bytes for the same content."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ptycho_runtime.files import replacing

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say; a real time would make two equal exports differ
_UNIX = 3  # the system a zip says it was made on, the same wherever it is made
_STORED_SUFFIXES = (".npz",)  # compressed already


def write_zip(path: Path, members: Iterable[tuple[str, bytes]], expected_sha256: str | None = None) -> None:
    """Write a zip archive with the same bytes for the same members; an older file stays whole until the new one is.

    Where `path` is a symbolic link, the file it points to is replaced.

    Args:
        path: where to; its folder is made if missing.
        members: (name, content) in the order they are to have.
        expected_sha256: of the file that is replaced, as it was read.

    Raises:
        ChangedMeanwhileError: the file to replace is another one by now; it stays, and the new one lies beside it.
        OutputError: the folder or disk refuses; the older file is untouched.
    """
    target = Path(os.path.realpath(path))
    with replacing(target, expected_sha256=expected_sha256) as file, zipfile.ZipFile(file, "w") as archive:
        for name, data in members:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.create_system = _UNIX
            stored = name.endswith(_STORED_SUFFIXES)
            entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)


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
