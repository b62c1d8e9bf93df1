"""Where exports go, and whether they can."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ptycho_runtime.contract import EXPORTS_JSON
from ptycho_runtime.errors import OutputError
from ptycho_torch.bundle import BundleRecord
from ptycho_torch.errors import ConfigurationError

PARITY_JSON, PARITY_JUNIT, PARITY_MARKDOWN, REPORT_HTML = "parity.json", "parity.junit.xml", "parity.md", "report.html"
REPORT_FILES = (PARITY_JSON, PARITY_JUNIT, PARITY_MARKDOWN, REPORT_HTML)
DEFAULT_ROOT = Path("artifacts")
_HEAD_BYTES = 4096


def bundle_name(record: BundleRecord) -> str:
    """Return a bundle's name without its archive suffix: `wts.h5` for `wts.h5.zip`."""
    name = record.path.name
    return name if record.kind == "folder" else name.removesuffix(".zip").removesuffix(".ckpt")


def default_folder(record: BundleRecord) -> Path:
    """Return where exports of a bundle go when nothing else is said."""
    return DEFAULT_ROOT / bundle_name(record)


def target_path(record: BundleRecord, folder: Path, *, in_place: bool) -> Path:
    """Return the path of the augmented bundle.

    Raises:
        ConfigurationError: `in_place` for a checkpoint, which is no archive to add members to, or a target that is the source.
    """
    if in_place:
        if record.path.suffix == ".ckpt":
            raise ConfigurationError(f"{record.path}: a checkpoint cannot be augmented in place; leave out --in-place")
        return record.path
    target = folder / f"{bundle_name(record)}.zip"
    if record.exports is None and target.exists() and target.samefile(record.path):
        raise ConfigurationError(
            f"{record.path}: the export would replace its source; give another --out, or --in-place"
        )
    return target


def refuse_foreign_bundle(target: Path, *, force: bool = False) -> None:
    """Raise `OutputError` where an export would replace a file that this project did not write, such as another run's bundle."""
    if not force and (target.exists() or target.is_symlink()) and not _holds_exports(target):
        raise OutputError(
            f"{target}: exists, and is not an earlier export; give another --out, or --force to replace it"
        )


def _holds_exports(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return EXPORTS_JSON in archive.namelist()
    except (OSError, ValueError, LookupError, NotImplementedError, zipfile.BadZipFile):
        return False


def refuse_foreign_reports(folder: Path, names: Sequence[str], schema: str, *, force: bool = False) -> None:
    """Raise `OutputError` where a report would replace files that this project did not write.

    Args:
        folder: that the report goes to.
        names: of the files; the first is JSON that begins with its schema, and is written before the others.
        schema: that it has.
        force: replace them.
    """
    there = [folder / name for name in names if (folder / name).exists() or (folder / name).is_symlink()]
    if there and not force and not _begins_with(folder / names[0], schema):
        raise OutputError(
            f"{there[0]}: exists, and is not of an earlier report; give another folder, or move the file away"
        )


def _begins_with(path: Path, schema: str) -> bool:
    try:
        with path.open("rb") as file:
            return schema.encode() in file.read(_HEAD_BYTES)
    except OSError:
        return False


def check_writable(folder: Path) -> None:
    """Raise `OutputError` at once, before minutes of work, where a folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error}); give another folder with --out"
        ) from error
