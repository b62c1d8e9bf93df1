"""Text from a file shown in a message: short, on one line, and without what a terminal would obey."""

from __future__ import annotations


def shown(value: object, limit: int = 80) -> str:
    """Return a value's text with unprintable characters escaped and its middle left out beyond `limit` characters."""
    text = value if isinstance(value, str) else str(value)
    if len(text) > limit:
        text = f"{text[: limit // 2]}…{text[-limit // 2 :]}"
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" if ord(c) > 0xFF else f"\\x{ord(c):02x}" for c in text)
