"""The bytes of a pickle, read from the front: what an opcode takes as its operands."""

from __future__ import annotations

from ptycho_torch.errors import DamagedBundleError


class Operands:
    """A pickle's bytes and how far they are read; every reader raises `DamagedBundleError` where they end too early."""

    def __init__(self, data: bytes) -> None:
        """Start at the front."""
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        end = self.at + count
        if count < 0 or end > len(self.data):
            raise DamagedBundleError("bytes that are no pickle (it ends in the middle)")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def number(self, width: int, signed: bool = False) -> int:
        """Return the next bytes as a little-endian number."""
        return int.from_bytes(self.take(width), "little", signed=signed)

    def byte(self) -> int:
        """Return the next byte."""
        value = self.data[self.at]
        self.at += 1
        return value

    def raw_line(self) -> bytes:
        """Return the bytes up to the end of the line."""
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise DamagedBundleError("bytes that are no pickle (a line without an end)")
        line = self.data[self.at : end]
        self.at = end + 1
        return line

    def line(self) -> str:
        """Return the text up to the end of the line."""
        try:
            return self.raw_line().decode("utf-8")
        except UnicodeDecodeError as error:
            raise DamagedBundleError("bytes that are no pickle (text in no encoding)") from error

    def line_number(self) -> int:
        """Return a memo index written as text."""
        line = self.line()
        if not line.isascii() or not line.isdecimal() or len(line) > 12:
            raise DamagedBundleError("bytes that are no pickle (a memo index that is no number)")
        return int(line)
