"""What a pickle asks for, written down while it is followed, and what stands for the values that are not made."""

from __future__ import annotations

from typing import Any

from ptycho_runtime.files import printable
from ptycho_torch.bundle.pickle.allowed import Function, Global
from ptycho_torch.errors import BundleError


class Findings:
    """What one pickle asks for, written down while it is followed."""

    def __init__(self) -> None:
        """Start empty."""
        self.globals: list[Global] = []
        self.refused_globals: list[Global] = []
        self.skipped_globals: list[Global] = []  # of training state: neither made nor needed
        self.calls: list[str] = []  # what an ordinary unpickler would have run and this one will not
        self.opcodes: dict[str, int] = {}
        self.refusal: BundleError | None = None
        self.end = 0  # where the pickle stops; 0 while it has not


class Nothing:
    """Stands for a value that is not made: of a refused global while looking, of training state that nobody needs."""

    def __init__(self, name: str, *, skipped: bool = False) -> None:
        """Take what it would have been, and whether nobody minds that it is not."""
        self.name = name
        self.skipped = skipped


def outline(arguments: Any) -> str:
    """Return arguments short enough for a report."""
    parts = arguments if isinstance(arguments, tuple) else (arguments,)
    texts = []
    for part in parts[:4]:
        if isinstance(part, (str, bytes)):
            texts.append(printable(repr(part[:200])))
        elif isinstance(part, (Nothing, Function)):
            texts.append(part.name)
        else:
            texts.append(repr(part) if isinstance(part, (int, float, type(None))) else f"<{type(part).__name__}>")
    return ", ".join(texts) + (", …" if len(parts) > 4 else "")
