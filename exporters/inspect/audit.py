"""What a bundle or checkpoint would have executed, and whether the loader takes it. Needs no PyTorch and runs nothing.

The verdict is the loader's own: the file is read exactly as every other command reads it. The list of globals and calls
comes from following each pickle to its end with the machine the loader uses, past what the loader refuses.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptycho_runtime.files import printable
from ptycho_torch.bundle import is_own_member, limits, read_bundle, resolve
from ptycho_torch.bundle.folder import open_folder, open_regular, single_file
from ptycho_torch.bundle.members import Members
from ptycho_torch.bundle.pickle.findings import Findings
from ptycho_torch.bundle.pickle.load import load_plain, look_through
from ptycho_torch.bundle.tensors import TensorFile, load_tensors
from ptycho_torch.bundle.zip_archive import open_zip
from ptycho_torch.errors import BundleError, LimitExceededError, NotABundleError, UnsafeContentError

SCHEMA_VERSION = 1
_MAX_PICKLES = 16  # in one member: PyTorch's format from before 1.6 has five in a row
_MAX_LINES = 12  # of globals and calls shown for one member on the screen
_BARE: dict[str, Callable[[bytes, str], Any]] = {
    ".pt": load_tensors,
    ".pth": load_tensors,
    ".dill": load_plain,
    ".pkl": load_plain,
}


@dataclass(frozen=True)
class PickleReport:
    """What one pickle asks for."""

    member: str
    globals: tuple[str, ...]  # `module.name`, each once, in the order they occur
    refused_globals: tuple[str, ...]
    calls: tuple[str, ...]  # calls of refused globals, which an ordinary unpickler would have made
    opcodes: dict[str, int]
    refusal: str | None


@dataclass(frozen=True)
class ScanResult:
    """What one file holds and what the loader says of it."""

    path: str
    verdict: str  # "accepted", "unsafe" (something no model needs) or "unreadable" (broken, or no bundle)
    error_class: str | None
    message: str | None
    pickles: tuple[PickleReport, ...] = ()
    not_read: tuple[str, ...] = field(default=())  # members that loading never opens, such as TorchScript programs

    @property
    def exit_code(self) -> int:
        """0 for a file that the loader takes, 2 for every other."""
        return 0 if self.verdict == "accepted" else 2

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "path": self.path,
            "verdict": self.verdict,
            "error_class": self.error_class,
            "message": self.message,
            "pickles": [
                {
                    "member": pickle.member,
                    "globals": list(pickle.globals),
                    "refused_globals": list(pickle.refused_globals),
                    "calls": list(pickle.calls),
                    "opcodes": dict(sorted(pickle.opcodes.items())),
                    "refusal": pickle.refusal,
                }
                for pickle in self.pickles
            ],
            "not_read": list(self.not_read),
        }

    def to_json(self) -> str:
        """Return the result as JSON text."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n"

    def text(self) -> str:
        """Return the result for a screen: the verdict first, then what each pickle asks for."""
        lines = [f"{printable(self.path, 200)}: {self.verdict}"]
        if self.message is not None:
            lines.append(f"  {self.error_class}: {printable(self.message, 400)}")
        for pickle in self.pickles:
            count = sum(pickle.opcodes.values())
            lines.append(f"  {printable(pickle.member)}: {count} opcodes, {len(pickle.globals)} globals")
            lines += _listed("would have called", pickle.calls)
            lines += _listed("refused global", pickle.refused_globals)
            lines += _listed("global", [name for name in pickle.globals if name not in pickle.refused_globals])
        lines += _listed("not read when loading", self.not_read)
        return "\n".join(lines) + "\n"


def _listed(title: str, items: tuple[str, ...] | list[str]) -> list[str]:
    more = len(items) - _MAX_LINES
    return [f"    {title}: {item}" for item in items[:_MAX_LINES]] + ([f"    … and {more} more"] if more > 0 else [])


def scan_file(path: str | Path) -> ScanResult:
    """Return what a bundle, folder, checkpoint, or one of their pickles would have executed, and the loader's verdict.

    Args:
        path: anything `read_bundle` takes, or a single `.pt`, `.pth`, `.dill` or `.pkl` file.

    Returns:
        The result; what cannot be read is a verdict, not an exception.
    """
    pickles: list[PickleReport] = []
    not_read: list[str] = []
    with contextlib.suppress(BundleError, OSError):  # what stops the look is told by the verdict
        for member, findings in _findings(path, not_read):
            pickles.append(_report(member, findings))
    error = _refusal(path)
    unsafe = isinstance(error, (UnsafeContentError, LimitExceededError))
    verdict = "accepted" if error is None else "unsafe" if unsafe else "unreadable"
    return ScanResult(
        path=str(path),
        verdict=verdict,
        error_class=None if error is None else type(error).__name__,
        message=None if error is None else str(error),
        pickles=tuple(pickles),
        not_read=tuple(not_read),
    )


def _refusal(path: str | Path) -> BundleError | FileNotFoundError | None:
    """Return what the loader raises for a path, or None."""
    given = Path(path)
    try:
        bare = _BARE.get(given.suffix)
        if bare is not None and given.is_file():
            with open_regular(given) as file:
                if given.stat().st_size > limits.MAX_MEMBER_BYTES:
                    raise LimitExceededError(f"{given.name}: is larger than any bundle's member; refused")
                bare(file.read(), given.name)
        else:
            read_bundle(path)
    except FileNotFoundError as error:
        return error
    except BundleError as error:
        return error
    except OSError as error:
        return NotABundleError(
            f"{path}: cannot be read ({error.strerror or error}); check the path and its permissions"
        )
    return None


def _findings(path: str | Path, not_read: list[str]) -> Iterator[tuple[str, Findings]]:
    given = Path(path)
    if given.suffix in _BARE and given.is_file():
        with open_regular(given) as file:
            yield from _look(single_file(file, given.name), given.name)
        return
    actual, kind = resolve(path)
    if kind == "folder":
        yield from _look_at_all(open_folder(actual), not_read)
        return
    with open_regular(actual) as file:
        if kind == "ckpt":
            yield from _look(single_file(file, actual.name), actual.name)
        else:
            yield from _look_at_all(open_zip(file, actual.name), not_read)


def _look_at_all(content: Members, not_read: list[str]) -> Iterator[tuple[str, Findings]]:
    for name in content:
        if is_own_member(name):
            not_read.append(name)
        else:
            with contextlib.suppress(BundleError):  # one unreadable member leaves the others to be looked at
                yield from _look(content, name)


def _look(content: Members, name: str) -> Iterator[tuple[str, Findings]]:
    data = content.buffer(name)
    head = bytes(data[:2])
    if head == b"PK":
        yield name, TensorFile(data, name, training_state=name.endswith(".ckpt")).look_through()
    elif head[:1] == b"\x80" or Path(name).suffix in (".dill", ".pkl"):
        rest = bytes(data[: limits.MAX_PICKLE_BYTES])
        for index in range(_MAX_PICKLES):
            found = look_through(rest)
            yield (name if index == 0 else f"{name} (pickle {index + 1})"), found
            if not found.end or found.end >= len(rest):
                return
            rest = rest[found.end :]


def _report(member: str, findings: Findings) -> PickleReport:
    return PickleReport(
        member=member,
        globals=_names(findings.globals),
        refused_globals=_names(findings.refused_globals),
        calls=tuple(findings.calls),
        opcodes=dict(findings.opcodes),
        refusal=None if findings.refusal is None else str(findings.refusal),
    )


def _names(wanted: list[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(f"{printable(module)}.{printable(name)}" for module, name in dict.fromkeys(wanted))
