"""HDF5 with large arrays in it, written without HDF5 ever touching the disk: a full one is an error like any other, and memory stays flat.

HDF5 lays the file out in memory, where pages that nothing was written to take none; the arrays' room is known then, and is filled
by plain writes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ptycho_runtime.contract import CREATOR
from ptycho_runtime.errors import OutputError, ReconstructionError
from ptycho_runtime.image.products.target import refuse_foreign, refuse_input, refuse_long_name, refuse_unwritable

_PAGE_BYTES = 4096
_SEAL = b"sha256: "
_SEAL_BYTES = len(_SEAL) + 32
_AT_ONCE_BYTES = 1 << 20


class _Pages(io.RawIOBase):
    """A file in memory that has only the pages that were written to."""

    def __init__(self) -> None:
        """Begin empty."""
        self.pages: dict[int, bytearray] = {}
        self.end = 0
        self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self.end)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def truncate(self, size: int | None = None) -> int:
        self.end = self._at if size is None else size
        return self.end

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for page, within, part in _cut(self._at, len(view)):
            held = self.pages.setdefault(page, bytearray(_PAGE_BYTES))
            held[within : within + part.stop - part.start] = view[part]
        self._at += len(view)
        self.end = max(self.end, self._at)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(min(len(view), self.end - self._at), 0)
        empty = bytes(_PAGE_BYTES)
        for page, within, part in _cut(self._at, count):
            view[part] = self.pages.get(page, empty)[within : within + part.stop - part.start]
        self._at += count
        return count


def _cut(start: int, count: int) -> Iterator[tuple[int, int, slice]]:
    """Yield (page, place in it, part of the data) for data of a length at a place."""
    done = 0
    while done < count:
        page, within = divmod(start + done, _PAGE_BYTES)
        size = min(_PAGE_BYTES - within, count - done)
        yield page, within, slice(done, done + size)
        done += size


@dataclass(frozen=True)
class Room:
    """A large array that has its place in a file."""

    file: IO[bytes]
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def write(self, first: int, values: np.ndarray) -> None:
        """Write rows (k, …) from row `first` on; raises `OSError`."""
        row_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        self.file.seek(self.start + first * row_bytes)
        self.file.write(np.ascontiguousarray(values, self.dtype).data.cast("B"))


def write_hdf5(
    file: IO[bytes],
    kind: str,
    attributes: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    rooms: Mapping[str, tuple[tuple[int, ...], Any]],
) -> dict[str, Room]:
    """Write an HDF5 file but for its large arrays; returns the rooms of these, by name.

    Args:
        file: empty, open for writing.
        kind: what the file is, as `kind` says in it.
        attributes: of the whole.
        arrays: small ones, by name.
        rooms: shape and dtype of the large ones; rows that are never written are zeros.

    Raises:
        OSError: the disk refuses.
    """
    import h5py
    from h5py import h5d, h5p, h5s, h5t

    pages = _Pages()
    starts: dict[str, int] = {}
    with h5py.File(pages, "w") as made:
        made.attrs.update({"creator": CREATOR, "kind": kind, **attributes})
        for name, values in arrays.items():
            made[name] = values
        for name, (shape, dtype) in rooms.items():
            if 0 in shape:
                made.create_dataset(name, shape, dtype)
                continue
            early = h5p.create(h5p.DATASET_CREATE)
            early.set_alloc_time(h5d.ALLOC_TIME_EARLY)
            early.set_fill_time(h5d.FILL_TIME_NEVER)
            stored = h5t.py_create(np.dtype(dtype), logical=True)
            starts[name] = h5d.create(made.id, name.encode(), stored, h5s.create_simple(shape), early).get_offset()
    for page, data in sorted(pages.pages.items()):
        file.seek(page * _PAGE_BYTES)
        file.write(data[: max(pages.end - page * _PAGE_BYTES, 0)])
    file.truncate(pages.end)
    return {name: Room(file, start, rooms[name][0], np.dtype(rooms[name][1])) for name, start in starts.items()}


def seal(file: IO[bytes]) -> None:
    """Put the digest of all that was written behind it, where HDF5 does not look."""
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]  # open for reading too
    file.seek(0, io.SEEK_END)
    file.write(_SEAL + digest)


def sealed_sha256(path: Path) -> str:
    """Return the digest of a sealed file.

    Raises:
        ValueError: it has none, or another content than when it was sealed.
    """
    rest = path.stat().st_size - _SEAL_BYTES
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while rest > 0:
            part = file.read(min(rest, _AT_ONCE_BYTES))
            if not part:
                break
            digest.update(part)
            rest -= len(part)
        if file.read() != _SEAL + digest.digest():
            raise ValueError("its content is not what was written")
    return digest.hexdigest()


@contextmanager
def opened(path: Path, kind: str) -> Iterator[Any]:
    """Open a file that `write_hdf5` wrote, an `h5py.File`.

    Raises:
        FileNotFoundError: nothing is there.
        ReconstructionError: it is another kind of file, or damaged; what goes wrong inside the block for that reason too.
    """
    import h5py

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such {kind}")
    try:
        with h5py.File(path, "r", locking=False) as file:
            said = file.attrs.get("creator"), file.attrs.get("kind")
            if said != (CREATOR, kind):
                raise ReconstructionError(f"{path}: is no {kind} of ptycho-runtime; give a file that it wrote")
            yield file
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, ReconstructionError):
            raise
        raise ReconstructionError(
            f"{path}: is a damaged {kind} ({type(error).__name__}: {error}); make it again"
        ) from error


def check_place(path: Path, kind: str, inputs: Mapping[str, Path | None], *, force: bool = False) -> None:
    """Look at the place of a file that `write_hdf5` is to write, before any work is done.

    Args:
        path: its name.
        kind: what it will be; an earlier one of this kind is replaced.
        inputs: files that are read, by what they are.
        force: replace whatever file is there.

    Raises:
        OutputError: it is an input, another kind of file is there, or the folder cannot be written.
    """
    refuse_long_name(path)
    refuse_input(path, inputs)
    refuse_foreign([path], force=force)
    refuse_unwritable(path)
    if path.exists() and not force:
        try:
            with opened(path, kind):
                pass
        except ReconstructionError as error:
            raise OutputError(
                f"{path}: exists, and is no {kind}; give another name, or --force to overwrite it"
            ) from error
