"""What the bench's contenders are opened from, and what an opened one can do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

Feed = Mapping[str, "np.ndarray"]
REWRITE_NAMES = (
    "sub-pixel",
    "pixel blocks",
    "sigmoids",
)  # of exporters.formats.optimize, which is not to be imported in every process
WITHOUT = "without "  # an exact rewrite, or all of them
WHOLE, CENTRE, VARIANT, VARIANT_CENTRE = "onnx", "centre", "variant", "variant centre"
VARIANT_GPU = "variant for cuda"


class CannotRun(RuntimeError):
    """A contender cannot run on this host; the message is the reason that the report gives."""


@dataclass(frozen=True)
class Case:
    """What the contenders are opened from."""

    bundle: str  # the exported bundle
    params: dict[str, Any] | None  # for a checkpoint, which has none of its own
    architecture: dict[str, Any]
    files: dict[str, str]  # stored ONNX files, looked through and written out, by the names above
    precisions: dict[str, str]  # of the variants, by the same names
    torchscript: str
    inputs: list[str]
    outputs: list[str]

    def write(self, path: Path) -> None:
        """Write the case for the contenders' processes."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    def stored(self, which: str) -> bytes:
        """Return a stored ONNX file; raises `CannotRun` where the bundle has none of that name."""
        if which not in self.files:
            reasons = {CENTRE: "the model has no such graph"}
            raise CannotRun(
                reasons.get(which, "not asked for" if which.startswith(WITHOUT) else "the bundle holds no such variant")
            )
        return Path(self.files[which]).read_bytes()

    @classmethod
    def read(cls, path: Path) -> Case:
        """Return the case that `write` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


class Engine(Protocol):
    """An opened contender."""

    def prepare(self, feed: Feed) -> Callable[[], Any]:
        """Put a feed where the engine wants it and return the call that runs it to the end."""

    def arrays(self, found: Any) -> dict[str, np.ndarray]:
        """Return what the call gave, by output name."""
