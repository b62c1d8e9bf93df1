"""What is known of each scan of a batch: one value, which stands as JSON beside its result and decides whether it is done."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ptycho_runtime.contract import CREATOR
from ptycho_runtime.errors import EXIT_NOT_TRUSTED
from ptycho_runtime.files import write_file

EXIT_BUG, EXIT_INPUT, EXIT_PARITY, EXIT_DEVICE = 1, 2, 3, 4
# From well to the gravest: what a batch exits with is the last of these that any scan has.
GRAVITY = (0, EXIT_NOT_TRUSTED, EXIT_INPUT, EXIT_DEVICE, EXIT_PARITY, EXIT_BUG)
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Fingerprint:
    """By which a file is taken for the same as before, without reading it."""

    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> Fingerprint:
        """Return that of a file; raises `OSError` where it cannot be looked at."""
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)

    @classmethod
    def if_any(cls, path: Path) -> Fingerprint | None:
        """Return that of a file; None where it cannot be looked at."""
        try:
            return cls.of(path)
        except OSError:
            return None


@dataclass(frozen=True, kw_only=True)
class ScanRecord:
    """How one scan ended."""

    scan: str
    """Absolute path of its file."""
    name: str
    """Of its files in the folder of results, without suffix."""
    fingerprint: Fingerprint | None
    """Of the scan's file; None where it could not be looked at."""
    bundle_sha256: str
    options_sha256: str
    """Of all that was asked for and decides what comes out."""
    exit_code: int
    message: str = ""
    """What went wrong, or why the image is not to be believed; empty where nothing is to be said."""
    verdict: str = ""
    """Empty where there is no image."""
    files: tuple[str, ...] = ()
    """Names of what was written, the product first."""
    patterns: int = 0
    flagged: int = 0
    input_scale_factor: float = 0.0
    disagreement: float | None = None
    """Median over the patterns; None where no two overlap."""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Say whether there is no image."""
        return not self.files

    def write(self, folder: Path) -> None:
        """Write the record beside the result; raises `OutputError`."""
        document = {"creator": CREATOR, **asdict(self)}
        write_file(folder / f"{self.name}.json", (json.dumps(document, indent=1) + "\n").encode())


def read_record(path: Path) -> ScanRecord | None:
    """Return a record as `write` left it; None for any other file."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MOST_BYTES))
        if document.pop("creator", None) != CREATOR:
            return None
        document["fingerprint"] = None if document["fingerprint"] is None else Fingerprint(**document["fingerprint"])
        document["files"] = tuple(map(str, document["files"]))
        if set(document) != {field.name for field in fields(ScanRecord)}:
            return None
        return _typed(document)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _typed(document: dict[str, Any]) -> ScanRecord | None:
    """Return the record of a document whose values are of the kinds that `write` gives them."""
    texts = ("scan", "name", "bundle_sha256", "options_sha256", "message", "verdict")
    whole = ("exit_code", "patterns", "flagged")
    plain = all(isinstance(document[name], str) for name in texts) and all(
        type(document[name]) is int for name in whole
    )
    # A name leads nowhere: it is joined to the folder of results.
    inside = all(Path(name).name == name for name in (document["name"], *document["files"]))
    return ScanRecord(**document) if plain and inside and document["exit_code"] in GRAVITY else None


def gravest(exit_codes: Iterable[int]) -> int:
    """Return the gravest of some exit codes, 0 of none."""
    return max(exit_codes, key=GRAVITY.index, default=0)
