"""Digests over the members of an archive, taken as they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from ptycho_runtime.files import printable
from ptycho_torch.bundle.layout import is_own_member
from ptycho_torch.bundle.members import Members
from ptycho_torch.errors import LimitExceededError


def members_digest(contents: Iterable[tuple[str, bytes]]) -> str:
    """Return one digest over names and contents that does not depend on archive or order."""
    return digest_of({name: hashlib.sha256(data).hexdigest() for name, data in contents})


def digest_of(digests: Mapping[str, str]) -> str:
    """Return one digest over names and their digests, in any order."""
    lines = sorted(f"{name}\0{digest}\n" for name, digest in digests.items())
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


class HashedMembers:
    """PtychoPINN's own members: what is wanted of them kept, the rest only hashed."""

    def __init__(self, content: Members) -> None:
        """Take the archive."""
        self.content = content
        self._digests: dict[str, str] = {}

    def take(self, name: str, limit_bytes: int) -> memoryview:
        """Return a member's content, hashed as it is read."""
        hashed, grown = hashlib.sha256(), bytearray()
        for chunk in self.content.chunks(name):
            hashed.update(chunk)
            grown += chunk
            if len(grown) > limit_bytes:
                raise LimitExceededError(
                    f"{self.content.label}: member {printable(ascii(name))} has more than {limit_bytes} bytes; refused"
                )
        self._digests[name] = hashed.hexdigest()
        return memoryview(grown).toreadonly()

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a member that was taken."""
        return self._digests[name]

    def all_digests(self) -> dict[str, str]:
        """Return every own member's digest, after hashing those that nothing was taken from."""
        for name in self.content:
            if name not in self._digests and not is_own_member(name):
                hashed = hashlib.sha256()
                for chunk in self.content.chunks(name):
                    hashed.update(chunk)
                self._digests[name] = hashed.hexdigest()
        return self._digests
