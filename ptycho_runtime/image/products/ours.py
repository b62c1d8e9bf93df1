"""Know this project's own results again, by the mark that each of them carries."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from ptycho_runtime.contract import CREATOR
from ptycho_runtime.image.products.png import SOFTWARE_KEY
from ptycho_runtime.image.products.tiff import SOFTWARE_TAG

_MARK_BYTES = 4096  # more than the mark of an NPZ takes
_SVG_BYTES = 1 << 17  # of an SVG, in which its description and mark stand
_PDF_BYTES = 1 << 26  # more than a figure takes


def is_ours(path: Path) -> bool:
    """Say whether a file carries the mark: its content decides, whatever its suffix says.

    The mark is `ptycho-runtime` as root attribute `creator` (HDF5, CXI), as member `creator` (NPZ), as tag Software (TIFF), as
    text Software (PNG), or as creator of a figure (SVG, PDF). What cannot be read is not ours.
    """
    try:
        with path.open("rb") as file:
            head = file.read(8)
        reader = next((reader for start, reader in _READERS.items() if head.startswith(start)), None)
        return reader is not None and reader(path) == CREATOR
    except Exception:  # readers of five formats raise what they like of a stranger's file
        return False


def kind_of(path: Path) -> str:
    """Return what a file of ours is that is no result, `plan` or `part`; nothing for results and for files of others."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            return str(file.attrs.get("kind", "")) if file.attrs.get("creator") == CREATOR else ""
    except OSError:
        return ""


def _npz(path: Path) -> object:
    import numpy as np

    with zipfile.ZipFile(path) as archive:
        if archive.getinfo("creator.npy").file_size > _MARK_BYTES:
            return None
    with np.load(path, allow_pickle=False) as data:
        return str(data["creator"])


def _hdf5(path: Path) -> object:
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        return file.attrs.get("creator")


def _tiff(path: Path) -> object:
    from PIL import Image

    with Image.open(path, formats=["TIFF"]) as image:
        return image.getexif().get(SOFTWARE_TAG)


def _png(path: Path) -> object:
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        return image.info.get(SOFTWARE_KEY)


def _svg(path: Path) -> object:
    with path.open("rb") as file:
        return CREATOR if f"<dc:title>{CREATOR}</dc:title>".encode() in file.read(_SVG_BYTES) else None


def _pdf(path: Path) -> object:
    if path.stat().st_size > _PDF_BYTES:
        return None
    return CREATOR if f"/Creator ({CREATOR})".encode() in path.read_bytes() else None


_READERS: dict[bytes, Callable[[Path], object]] = {
    b"PK\x03\x04": _npz,
    b"\x89HDF\r\n\x1a\n": _hdf5,
    b"II*\x00": _tiff,
    b"MM\x00*": _tiff,
    b"\x89PNG\r\n\x1a\n": _png,
    b"<?xml": _svg,
    b"%PDF-": _pdf,
}
