"""From what a user names to the file or folder that is read."""

from __future__ import annotations

from pathlib import Path

from ptycho_torch.bundle.layout import MANIFEST
from ptycho_torch.errors import NotABundleError


def resolve(path: str | Path) -> tuple[Path, str]:
    """Return (actual path, kind) for a zip, checkpoint, unpacked folder, run directory or PtychoPINN base path.

    Raises:
        FileNotFoundError: nothing is there.
        NotABundleError: a directory that holds no bundle, or several candidates.
    """
    given = Path(path)
    # A path without a name of its own (`.`, `/`) has no archive beside it.
    zipped = given.with_name(given.name + ".zip") if given.name else given
    if given.is_file():
        return given, "ckpt" if given.suffix == ".ckpt" else "zip"
    if given.is_dir():
        if (given / MANIFEST).is_file():
            return given, "folder"
        candidates = sorted(given.glob("*.h5.zip")) or sorted(
            {*given.glob("*.ckpt"), *given.glob("**/checkpoints/*.ckpt")}
        )
        if len(candidates) == 1:
            return resolve(candidates[0])
        if not candidates and not zipped.is_file():
            raise NotABundleError(
                f"{given}: holds neither manifest.dill, wts.h5.zip nor a checkpoint; give a bundle, checkpoint or run directory"
            )
        if candidates:
            raise NotABundleError(
                f"{given}: holds several candidates: {', '.join(p.name for p in candidates)}; name one of them"
            )
    if zipped.is_file():
        return zipped, "zip"
    if given.exists() and not given.is_dir():
        raise NotABundleError(f"{given}: is neither a file nor a folder; give a bundle, checkpoint or run directory")
    raise FileNotFoundError(f"{given}: no such bundle (nor {zipped.name})")
