"""Arrays of an NPZ that came with an export: numbers only, and what they claim is held against what is there before memory is taken."""

from __future__ import annotations

import io
import math
import os
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from ptycho_runtime.errors import DamagedExportError
from ptycho_runtime.files import other_name, printable

MAX_BYTES = 1 << 30  # of all arrays together, unpacked
MAX_ARRAYS = 4096
_KINDS = "fiub"
_MAX_DIMENSIONS = 8
_UNREADABLE = (
    ValueError, OSError, EOFError, LookupError, TypeError, SyntaxError, RecursionError, MemoryError, NotImplementedError, RuntimeError,
    OverflowError, zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip


def read_npz(data: bytes, label: str, limit_bytes: int = MAX_BYTES, kinds: str = _KINDS) -> dict[str, np.ndarray]:
    """Return the arrays of an NPZ by name.

    Args:
        data: the file.
        label: its name, for messages.
        limit_bytes: that all arrays together may have, unpacked.
        kinds: numpy's letters of what arrays may hold.

    Raises:
        DamagedExportError: it is no NPZ, an array is of no numbers or of another size than it says, or all are more than `limit_bytes`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_ARRAYS or len({entry.filename for entry in entries}) != len(entries):
                raise DamagedExportError(f"{label}: holds {len(entries)} arrays, or two of one name; refused")
            total = sum(entry.file_size for entry in entries)
            if total > limit_bytes:
                raise DamagedExportError(
                    f"{label}: its arrays have {total} bytes unpacked; expected at most {limit_bytes}"
                )
            return {entry.filename.removesuffix(".npy"): _array(archive, entry, label, kinds) for entry in entries}
    except DamagedExportError:
        raise
    except _UNREADABLE as error:
        raise DamagedExportError(
            f"{label}: cannot be read ({printable(error, 200)}); export the bundle again"
        ) from error


def read_npy(path: Path, label: str) -> np.ndarray:
    """Return the array of an `.npy` file.

    Args:
        path: of the file.
        label: its name, for messages.

    Raises:
        DamagedExportError: it is no `.npy`, holds no numbers, or another size than it says.
    """
    try:
        with path.open("rb") as file:
            return _checked(file, os.fstat(file.fileno()).st_size, label, _KINDS)
    except (DamagedExportError, FileNotFoundError, PermissionError):
        raise
    except _UNREADABLE as error:
        raise DamagedExportError(f"{label}: cannot be read as .npy ({printable(error, 200)})") from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, label: str, kinds: str) -> np.ndarray:
    where = f"{label}: {printable(ascii(entry.orig_filename))}"
    if problem := other_name(entry):
        raise DamagedExportError(f"{where} {problem}; refused")
    with archive.open(entry) as member:
        content = member.read(entry.file_size + 1)
    return _checked(io.BytesIO(content), len(content), where, kinds)


def _checked(stream: IO[bytes], length_bytes: int, where: str, kinds: str) -> np.ndarray:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise DamagedExportError(f"{where} is an array of format {version}; expected 1.0 or 2.0")
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(stream)
    if dtype.kind not in kinds or len(shape) > _MAX_DIMENSIONS or any(int(side) < 0 for side in shape):
        raise DamagedExportError(f"{where} holds {printable(dtype)} of {len(shape)} axes; expected numbers")
    size_bytes = math.prod(int(side) for side in shape) * dtype.itemsize
    if stream.tell() + size_bytes != length_bytes:
        raise DamagedExportError(
            f"{where} claims {size_bytes} bytes of numbers, and has {length_bytes - stream.tell()}; the file is damaged"
        )
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)
