"""Seeded changes to a file's bytes: flip, cut, swap and splice, anywhere; and archives whose members were changed and sealed again."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable

Change = Callable[[random.Random, bytearray], None]


def _flip_bit(rng: random.Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set_byte(rng: random.Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _cut(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 2, 4, 16, 256, len(data)))]


def _insert(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    data[start:start] = rng.randbytes(rng.choice((1, 2, 4, 16, 256)))


def _swap(rng: random.Random, data: bytearray) -> None:
    size = rng.choice((1, 2, 4, 16, 64))
    a, b = sorted(rng.randrange(max(1, len(data) - size)) for _ in range(2))
    if a + size <= b:
        data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def _splice(rng: random.Random, data: bytearray) -> None:
    size = rng.choice((1, 4, 16, 64, 512))
    source, target = (rng.randrange(max(1, len(data) - size)) for _ in range(2))
    data[target : target + size] = data[source : source + size]


def _number(rng: random.Random, data: bytearray) -> None:
    """Put a length that files lie with where a length may be."""
    width = rng.choice((2, 4, 8))
    at = rng.randrange(max(1, len(data) - width))
    value = rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1))
    data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")


_CHANGES: tuple[Change, ...] = (_flip_bit, _set_byte, _cut, _insert, _swap, _splice, _number)


def _focused(rng: random.Random, data: bytearray) -> bytearray:
    """Return one to four changes made to bytes, often near the end, where a zip keeps its directory."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        change = rng.choice(_CHANGES)
        if rng.random() < 0.4 and len(data) > 2048:
            tail = data[-2048:]
            change(rng, tail)
            data[-2048:] = tail
        else:
            change(rng, data)
    return data


def mutated(data: bytes, seed: int) -> bytes:
    """Return a file's bytes changed as a seed says."""
    return bytes(_focused(random.Random(seed), bytearray(data)))


def resealed(data: bytes, seed: int) -> bytes:
    """Return an archive in which a member, or a member of a member, was changed as a seed says.

    The archive is sealed again, which gets past its checksums to what lies behind them.
    """
    rng = random.Random(seed)
    return _resealed(rng, data, rng.choice((1, 2, 2)))


def _resealed(rng: random.Random, data: bytes, depth: int) -> bytes:
    members = _members(data) if depth else None
    if not members:
        return bytes(_focused(rng, bytearray(data)))
    small = [i for i, (_, content, _) in enumerate(members) if len(content) < 100_000]
    chosen = rng.choice(small) if small and rng.random() < 0.5 else rng.randrange(len(members))
    name, content, compression = members[chosen]
    members[chosen] = (name, _resealed(rng, content, depth - 1), compression)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content, compression in members:
            info = zipfile.ZipInfo(name)
            archive.writestr(info, content, compression, 1)
    return buffer.getvalue()


def _members(data: bytes) -> list[tuple[str, bytes, int]] | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [(info.filename, archive.read(info), info.compress_type) for info in archive.infolist()]
    except (zipfile.BadZipFile, OSError, EOFError):
        return None
