"""The folder of a batch's results: who writes to it, which scans are done, and what their files are called."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ptycho_runtime.errors import OutputError, ReconstructionError
from ptycho_runtime.files import check_is_file, lock
from ptycho_runtime.image.products.target import refuse_unwritable
from ptycho_runtime.many.one_scan import Task, Work
from ptycho_runtime.many.records import Fingerprint, ScanRecord, read_record

LOCK = ".ptycho-runtime.lock"
# Of 255 that file systems take: a few letters, a suffix and what a temporary name has more come on top.
_MOST_NAME_BYTES = 200
SUMMARIES = ("summary.csv", "summary.json", "summary.html")


class Results:
    """What lies in the folder of a batch, as far as it is ours."""

    def __init__(self, folder: Path) -> None:
        """Look through the folder, which need not be there yet.

        Raises:
            OutputError: it cannot be written, or holds a summary and no record of ours beside it.
        """
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: is no folder; results of a batch go to one")
        refuse_unwritable(folder / LOCK)
        files = sorted(folder.glob("*.json")) if folder.exists() else []
        read = (read_record(path) for path in files)
        self.records = {record.scan: record for record in read if record is not None}
        """By the scan's path."""
        foreign = [name for name in SUMMARIES if (folder / name).exists()]
        if foreign and not self.records:
            raise OutputError(
                f"{folder / foreign[0]}: is there, and no record of a batch is; give another folder with -o"
            )
        self._taken = {path.stem for path in files} | {Path(name).stem for name in SUMMARIES}

    def task(self, scan: Path) -> Task:
        """Return a scan with the name of its files: the one that it had before, its own, or its own and a few letters more."""
        path = scan.absolute()
        earlier = self.records.get(str(path))
        if earlier is not None:
            return Task(path, earlier.name)
        name = path.stem
        if name in self._taken or len(os.fsencode(name)) > _MOST_NAME_BYTES:
            letters = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
            while len(os.fsencode(name)) > _MOST_NAME_BYTES:
                name = name[:-1]
            name = f"{name}-{letters}"
        self._taken.add(name)
        return Task(path, name)

    def ended(self, work: Work, scan: Path) -> ScanRecord | None:
        """Return the record of a scan of this very file, bundle and options, whether it has an image or failed; None for any other."""
        record = self.records.get(str(scan.absolute()))
        if record is None or (record.bundle_sha256, record.options_sha256) != (work.bundle_sha256, work.options_sha256):
            return None
        with contextlib.suppress(OSError):
            if record.fingerprint == Fingerprint.of(scan) and all(
                (self.folder / name).is_file() for name in record.files
            ):
                return record
        return None

    def done(self, work: Work, scan: Path) -> ScanRecord | None:
        """Return the record of a scan that has its image already, of this very file, bundle and options; None for any other."""
        record = self.ended(work, scan)
        return None if record is None or record.failed else record

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the folder to this process.

        Raises:
            OutputError: another process has it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK).open("a+b") as file:
            if lock(file) is False:
                raise OutputError(
                    f"{self.folder}: another batch or watch writes there; wait for it, or give another folder"
                )
            yield


def listed(arguments: Iterable[str]) -> list[Path]:
    """Return the scans that arguments name, each once.

    Args:
        arguments: a path; a pattern, which stands for what it matches, in sorted order; or `@LIST`, a text file with one of these a
            line, relative to its own folder. Empty lines and those that begin with # are passed over.

    Raises:
        FileNotFoundError: a list is not there.
        ReconstructionError: a pattern matches nothing, a list cannot be read, or a path is a folder.
    """
    found: list[Path] = []
    for argument in arguments:
        found += _from_list(Path(argument[1:])) if argument.startswith("@") else _matches(Path(argument))
    for path in found:
        if path.is_dir():
            raise ReconstructionError(f"{path}: is a folder; give scans, or a pattern such as '{path}/*.h5'")
    return list({str(path.absolute()): path for path in found}.values())


def _from_list(path: Path) -> list[Path]:
    check_is_file(path, "list of scans")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ReconstructionError(
            f"{path}: is no list of scans ({error.reason}); expected a path a line, in UTF-8"
        ) from error
    names = [line.strip() for line in lines]
    named = [name for name in names if name and not name.startswith("#")]
    if not named or any("\0" in name for name in named):
        raise ReconstructionError(f"{path}: is no list of scans; expected a path a line, in UTF-8, and found none")
    return [found for name in named for found in _matches(path.parent / name)]


def _matches(path: Path) -> list[Path]:
    import glob

    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    found = sorted(map(Path, glob.glob(str(path))))  # noqa: PTH207  # absolute patterns too
    if not found:
        raise ReconstructionError(f"{path}: no scan has such a name")
    return found
