"""What every archive comes down to: members by name, read when asked for."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping

from ptycho_runtime.files import printable
from ptycho_torch.bundle import limits
from ptycho_torch.errors import LimitExceededError, UnsafeContentError

CHUNK_BYTES = 1 << 18
_DRIVE = re.compile(r"^[A-Za-z]:")


class Members(Mapping[str, bytes]):
    """The members of one archive: names and sizes at once, contents when asked for."""

    def __init__(
        self,
        label: str,
        sizes_bytes: dict[str, int],
        chunks: Callable[[str], Iterator[bytes]],
        view: Callable[[str], memoryview] | None = None,
    ) -> None:
        """Take the archive's name for messages, its members in order, and how to read one.

        Args:
            label: the archive's name.
            sizes_bytes: what the directory says each member has.
            chunks: reads a member piece by piece, checking what it reads against the limits.
            view: for an archive in memory, gives a member without copying it.
        """
        self.label = label
        self.sizes_bytes = sizes_bytes
        self._chunks = chunks
        self._view = view

    def chunks(self, name: str) -> Iterator[bytes]:
        """Return a member's content piece by piece; raises `DamagedBundleError` or `LimitExceededError` underway."""
        if name not in self.sizes_bytes:
            raise KeyError(name)
        return self._chunks(name)

    def buffer(self, name: str) -> memoryview:
        """Return a member's content, read-only, in memory once: a view of an archive in memory, else its own copy."""
        if self._view is not None:
            return self._view(name)
        grown = bytearray()
        for chunk in self.chunks(name):
            grown += chunk
        return memoryview(grown).toreadonly()

    def __getitem__(self, name: str) -> bytes:
        """Return a member's content; raises `DamagedBundleError` or `LimitExceededError` where it cannot be had."""
        return b"".join(self.chunks(name))

    def __contains__(self, name: object) -> bool:
        """Say whether a member is there, without reading it."""
        return name in self.sizes_bytes

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the archive's order."""
        return iter(self.sizes_bytes)

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self.sizes_bytes)


def check_names(names: list[str], label: str) -> None:
    """Refuse names that point outside the archive or that two file systems would take for one another."""
    if len(names) > limits.MAX_MEMBERS:
        raise LimitExceededError(f"{label}: holds {len(names)} members; a bundle has at most {limits.MAX_MEMBERS}")
    seen: dict[str, str] = {}
    for name in names:
        parts = name.removesuffix("/").split("/")
        if "\\" in name and not _points_outside(name.replace("\\", "/")):
            raise UnsafeContentError(
                f"{label}: member name {printable(ascii(name))} has backslashes, which zip archives do not use between "
                "folders; pack the files again with another program, or unpack it and give the folder"
            )
        if _points_outside(name):
            raise UnsafeContentError(
                f"{label}: member name {printable(ascii(name))} points outside the archive; refused"
            )
        if len(parts) > limits.MAX_FOLDER_DEPTH:
            raise LimitExceededError(f"{label}: member name {printable(ascii(name))} is nested too deep; refused")
        folded = unicodedata.normalize("NFC", name.removesuffix("/")).casefold()
        if folded in seen:
            how = (
                "occurs twice"
                if seen[folded] == name
                else f"differs from {printable(ascii(seen[folded]))} only in case"
            )
            raise UnsafeContentError(f"{label}: member name {printable(ascii(name))} {how}; refused")
        seen[folded] = name


def _points_outside(name: str) -> bool:
    parts = set(name.removesuffix("/").split("/"))
    return "\0" in name or "\\" in name or name.startswith("/") or bool(_DRIVE.match(name) or {"", ".", ".."} & parts)
