"""The end of a zip archive: that its directory lies where it says and is as long as it says.

Readers of zips differ in what they make of an archive that contradicts itself. What is refused here cannot be read in two ways.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from ptycho_torch.errors import DamagedBundleError

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_MAX_COMMENT_BYTES = 0xFFFF


def check_directory(file: BinaryIO, entries: int, label: str) -> None:
    """Refuse an archive whose directory is not the `entries` that were read, directly before its end and from its start.

    Raises:
        DamagedBundleError: the archive contradicts itself.
    """
    size_bytes = file.seek(0, os.SEEK_END)
    tail_at = max(0, size_bytes - _END.size - _MAX_COMMENT_BYTES)
    file.seek(tail_at)
    tail = file.read(size_bytes - tail_at)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise _contradiction(label, "it has no end")
    _, disk, start_disk, here, total, length, offset, comment_length = _END.unpack_from(tail, at)
    end = tail_at + at
    if at + _END.size + comment_length != len(tail):
        raise _contradiction(label, "something follows its end")
    locator_at = at - _LOCATOR_64.size
    if locator_at >= 0 and tail[locator_at : locator_at + 4] == b"PK\x06\x07":
        _, disk, end, _ = _LOCATOR_64.unpack_from(tail, locator_at)
        file.seek(min(end, size_bytes))
        record = file.read(_END_64.size)
        if len(record) < _END_64.size or record[:4] != b"PK\x06\x06" or end + _END_64.size != tail_at + locator_at:
            raise _contradiction(label, "its second end is missing")
        *_, disk, start_disk, here, total, length, offset = _END_64.unpack(record)
    if disk or start_disk or here != total or total != entries:
        raise _contradiction(label, f"its end says {total} members, its directory has {entries}")
    if offset + length != end:
        raise _contradiction(label, "its directory is not where its end says")


def _contradiction(label: str, what: str) -> DamagedBundleError:
    return DamagedBundleError(f"{label}: the zip archive is cut short or corrupt ({what}); copy it again")
