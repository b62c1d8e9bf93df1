"""What a file is that is no bundle, or not one that can be read: said so that its owner knows what to do."""

from __future__ import annotations

from typing import Any, BinaryIO

from ptycho_runtime.files import printable
from ptycho_torch.bundle.layout import BUNDLE_VERSION, MANIFEST, ROLES, weights_member
from ptycho_torch.bundle.members import Members
from ptycho_torch.errors import (
    BundleError,
    DamagedBundleError,
    MissingModelsError,
    NotABundleError,
    TensorFlowBundleError,
)

# Arrays of PtychoPINN's scan files, any of which says that an archive is a scan.
_SCAN_ARRAYS = frozenset(
    f"{name}.npy"
    for name in ("diff3d", "diffraction", "probeGuess", "objectGuess", "xcoords", "ycoords", "xcoords_start")
)
_LOOKED_AT_BYTES = 1 << 16
_MANIFEST_VERSIONS = (BUNDLE_VERSION,)


def no_bundle(content: Members) -> BundleError:
    """Return the refusal of an archive without a manifest."""
    names, label = list(content), content.label
    if any(name.endswith("/data.pkl") and name.count("/") == 1 for name in names):
        return NotABundleError(
            f"{label}: is a PyTorch file, not a bundle; give the whole wts.h5.zip, and name a Lightning checkpoint *.ckpt"
        )
    folders = sorted(name.removesuffix(MANIFEST) for name in names if name.endswith(f"/{MANIFEST}"))
    if folders:
        where = ", ".join(printable(folder) for folder in folders[:3])
        return NotABundleError(
            f"{label}: its {MANIFEST} lies inside the folder {where}; pack the content of that folder, not the folder itself, "
            "or unpack it and give the folder"
        )
    inner = [name for name in names if name.endswith((".zip", ".ckpt"))]
    if inner:
        return NotABundleError(
            f"{label}: holds another archive, {printable(', '.join(inner[:3]))}, and no {MANIFEST}; unpack it and give the file inside"
        )
    if _SCAN_ARRAYS & set(names):
        return NotABundleError(
            f"{label}: is a scan (it holds {printable(', '.join(sorted(_SCAN_ARRAYS & set(names))))}), not a bundle; "
            "give the bundle first and the scan after it"
        )
    if any(name.endswith(".npy") for name in names):
        return NotABundleError(f"{label}: is an NPZ file of arrays, not a bundle; expected a PtychoPINN wts.h5.zip")
    if "model.onnx" in names or any(name.endswith("/model.onnx") for name in names):
        return NotABundleError(
            f"{label}: has exports but no {MANIFEST}; expected the whole bundle that ptycho-export wrote"
        )
    return NotABundleError(f"{label}: has no {MANIFEST}; expected a PtychoPINN wts.h5.zip")


_OTHER_FORMATS = (
    (
        b"\x89HDF\r\n\x1a\n",
        "is an HDF5 file, such as a scan or TensorFlow weights, not a bundle; give PtychoPINN's wts.h5.zip",
    ),
    (b"\x1f\x8b", "is compressed by gzip, not a zip archive; unpack it first"),
    (b"BZh", "is compressed by bzip2, not a zip archive; unpack it first"),
    (b"\xfd7zXZ\0", "is compressed by xz, not a zip archive; unpack it first"),
    (b"(\xb5/\xfd", "is compressed by zstd, not a zip archive; unpack it first"),
    (b"7z\xbc\xaf", "is a 7z archive, not a zip archive; unpack it and give the folder"),
    (b"Rar!", "is a RAR archive, not a zip archive; unpack it and give the folder"),
    (b"\x93NUMPY", "is a NumPy array, not a zip archive; expected a PtychoPINN wts.h5.zip"),
    (b"\x80", "is a plain pickle, not a zip archive; expected a PtychoPINN wts.h5.zip or a Lightning .ckpt"),
)


def check_head(file: BinaryIO, label: str) -> None:
    """Refuse a file that is known to be something else, or a zip archive with something before it.

    What is not known either way is left to the reader of zips.

    Raises `NotABundleError` for another format, `DamagedBundleError` for a zip archive that does not begin the file.
    """
    file.seek(0)
    head = file.read(_LOOKED_AT_BYTES)
    if head[:2] == b"PK":
        return
    for start, what in _OTHER_FORMATS:
        if head.startswith(start):
            raise NotABundleError(f"{label}: {what}")
    before = head.find(b"PK\x03\x04")
    if before > 0:
        raise DamagedBundleError(
            f"{label}: {before} bytes stand before the zip archive in it, as after a faulty transfer or in a self-extracting "
            "file; copy it again, or unpack it and give the folder"
        )


def check_manifest(manifest: dict[str, Any], names: list[str], label: str) -> None:
    """Refuse a manifest that is not a PyTorch bundle's, or that lists other models than a bundle has.

    Raises:
        DamagedBundleError: it lists no models, or is of another version.
        MissingModelsError: a role is not listed, or its weights are not there.
    """
    models = manifest.get("models")
    if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
        raise DamagedBundleError(f"{label}: {MANIFEST} lists no models; it has {printable(sorted(manifest))}")
    version = manifest.get("version")
    if version not in _MANIFEST_VERSIONS:
        raise NotABundleError(
            f"{label}: {MANIFEST} says version {printable(version)}; this project reads {', '.join(_MANIFEST_VERSIONS)}"
        )
    listed = printable(", ".join(models)) or "none"
    unlisted = [role for role in ROLES if role not in models]
    absent = [role for role in ROLES if weights_member(role) not in names]
    if absent:
        there = ", ".join(name for name in names if name.endswith("/model.pth"))
        raise MissingModelsError(
            f"{label}: lacks the weights of {' and '.join(absent)}; a bundle holds {' and '.join(ROLES)} "
            f"(its manifest lists: {listed}; weights found: {printable(there) or 'none'})"
        )
    if unlisted:
        raise MissingModelsError(
            f"{label}: its manifest does not list {' and '.join(unlisted)}, whose weights are there; a manifest lists "
            f"{' and '.join(ROLES)} (it lists: {listed})"
        )
    others = [model for model in models if model not in ROLES]
    if others or len(set(models)) != len(models):
        raise MissingModelsError(
            f"{label}: its manifest lists {listed}; a bundle holds {' and '.join(ROLES)} and nothing else"
        )


def refuse_tensorflow(label: str, names: list[str], manifest: dict[str, Any]) -> None:
    """Raise `TensorFlowBundleError` for a bundle of the other backend."""
    keras = [n for n in names if n.endswith(("/model.keras", "/saved_model.pb", "/custom_objects.dill"))]
    if (
        manifest.get("backend") == "tensorflow"
        or keras
        or (manifest.get("version") == "1.0" and not any(n.endswith(".pth") for n in names))
    ):
        raise TensorFlowBundleError(
            f"{label}: written by PtychoPINN's tensorflow backend (version {printable(manifest.get('version'))}); "
            "this project reads bundles of the pytorch backend only"
        )
