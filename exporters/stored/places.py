"""Where exports go, and whether they can."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ptycho_runtime.errors import OutputError
from ptycho_torch.bundle import BundleRecord
from ptycho_torch.errors import ConfigurationError

DEFAULT_ROOT = Path("artifacts")


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
