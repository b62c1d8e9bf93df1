"""From a path to a `BundleRecord`: what PtychoPINN stored, as plain values and numpy arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ptycho_torch.bundle.archive import Members, open_folder, open_zip
from ptycho_torch.bundle.pickles import load_plain
from ptycho_torch.bundle.tensors import StateDict, check_weights, load_tensors
from ptycho_torch.errors import (
    DamagedBundleError,
    MissingModelsError,
    MissingParamsError,
    NotABundleError,
    TensorFlowBundleError,
)

MANIFEST = "manifest.dill"
METADATA = "torch_scaling_metadata.pt"
ARCHITECTURE = "architecture.json"  # written by this project's save_torch_bundle; PtychoPINN passes over it
ROLES = ("autoencoder", "diffraction_to_obj")
SENTINEL_KEY = "_sentinel"
EXPORTS = "exports.json"
_OWN_NAMES = (EXPORTS, "golden.npz")
_OWN_SUFFIXES = ("/model.onnx", "/model.torchscript.pt")
_CHECKPOINT_PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "loops")


@dataclass(frozen=True)
class Sentinel:
    """What a training run leaves in place of one role's weights: a marker, no numbers."""

    value: str


@dataclass(frozen=True)
class BundleRecord:
    """One bundle or checkpoint as it lies on disk."""

    path: Path
    kind: str  # "zip", "folder" or "ckpt"
    sha256: str  # of the file; of the members for a folder
    members_sha256: str  # of PtychoPINN's own members, whatever archive they sit in
    members: tuple[tuple[str, int], ...]  # (name, size in bytes), in the archive's order
    manifest: dict[str, Any] | None
    params: dict[str, dict[str, Any]]
    weights: dict[str, StateDict | Sentinel]
    metadata: dict[str, Any] | None = None
    checkpoint: dict[str, Any] | None = None
    exports: dict[str, Any] | None = None
    architecture: dict[str, Any] | None = None
    _content: Members | None = field(default=None, repr=False, compare=False)

    def read_member(self, name: str) -> bytes:
        """Return the content of a listed member; raises `DamagedBundleError` if the bundle lacks it or changed."""
        if self._content is None or name not in self._content:
            raise DamagedBundleError(f"{self.path}: has no member {name!r}")
        return self._content[name]


def is_own_member(name: str) -> bool:
    """Say whether an export added this member (so that it is not PtychoPINN's)."""
    return name in _OWN_NAMES or name.endswith(_OWN_SUFFIXES)


def resolve(path: str | Path) -> tuple[Path, str]:
    """Return (actual path, kind) for a zip, checkpoint, unpacked folder, run directory or PtychoPINN base path.

    Raises:
        FileNotFoundError: nothing is there.
        NotABundleError: a directory that holds no bundle, or several candidates.
    """
    given = Path(path)
    zipped = given.with_name(given.name + ".zip")
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
    raise FileNotFoundError(f"{given}: no such bundle (nor {zipped.name})")


def read_bundle(path: str | Path) -> BundleRecord:
    """Return what a bundle or checkpoint holds; nothing in it is executed and nothing is written.

    Args:
        path: a `wts.h5.zip`, PtychoPINN's base path without `.zip`, an unpacked folder, a run directory, a `.ckpt`.

    Raises:
        FileNotFoundError: nothing is there.
        BundleError: one subclass per cause, see `ptycho_torch.errors`.
    """
    actual, kind = resolve(path)
    try:
        if kind == "ckpt":
            return _read_checkpoint(actual)
        content = open_folder(actual) if kind == "folder" else open_zip(actual, actual.name)
        return _read_members(actual, kind, content)
    except PermissionError as error:
        raise DamagedBundleError(f"{actual}: cannot be read ({error.strerror}); check its permissions") from error


def _sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def members_digest(contents: Iterable[tuple[str, bytes]]) -> str:
    """Return one digest over names and contents that does not depend on archive or order."""
    lines = sorted(f"{name}\0{hashlib.sha256(data).hexdigest()}\n" for name, data in contents)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _read_members(path: Path, kind: str, content: Members) -> BundleRecord:
    names = list(content)
    label = path.name
    checkpoints = [name for name in names if name.endswith(".ckpt") and "/" not in name]
    if MANIFEST not in content and len(checkpoints) == 1 and EXPORTS in content:
        # An exported checkpoint: the checkpoint as it was, with its exports beside it.
        record = _checkpoint_record(path, checkpoints[0], content[checkpoints[0]])
        members, exports = tuple(content.sizes_bytes.items()), _json(content, EXPORTS, label)
        return replace(record, sha256=_sha256_file(path), members=members, exports=exports, _content=content)
    if MANIFEST not in content:
        raise NotABundleError(f"{label}: has no {MANIFEST}; expected a PtychoPINN wts.h5.zip")
    contents = {name: content[name] for name in names if not is_own_member(name)}
    manifest = _dictionary(load_plain(contents[MANIFEST], f"{label}: {MANIFEST}"), f"{label}: {MANIFEST}")
    _refuse_tensorflow(label, names, manifest)
    models = manifest.get("models")
    if not isinstance(models, list) or not all(isinstance(m, str) for m in models):
        raise DamagedBundleError(f"{label}: {MANIFEST} lists no models; it has {sorted(map(str, manifest))}")
    missing = [role for role in ROLES if role not in models or f"{role}/model.pth" not in contents]
    if missing:
        raise MissingModelsError(
            f"{label}: lacks the weights of {' and '.join(missing)}; a bundle holds {' and '.join(ROLES)} (found: {', '.join(models) or 'none'})"
        )
    params: dict[str, dict[str, Any]] = {}
    weights: dict[str, StateDict | Sentinel] = {}
    for role in ROLES:
        name = f"{role}/params.dill"
        if name not in contents:
            raise MissingParamsError(
                f"{label}: {name} is missing. Cannot reconstruct model architecture; export the bundle from PtychoPINN again"
            )
        params[role] = _dictionary(load_plain(contents[name], f"{label}: {name}"), f"{label}: {name}")
        weights[role] = _weights(contents[f"{role}/model.pth"], f"{label}: {role}/model.pth")
    metadata = None
    if METADATA in contents:
        metadata = _dictionary(load_tensors(contents[METADATA], f"{label}: {METADATA}"), f"{label}: {METADATA}")
    digest = members_digest(contents.items())
    return BundleRecord(
        path=path,
        kind=kind,
        sha256=digest if kind == "folder" else _sha256_file(path),
        members_sha256=digest,
        members=tuple(content.sizes_bytes.items()),
        manifest=manifest,
        params=params,
        weights=weights,
        metadata=metadata,
        exports=_json(content, EXPORTS, label),
        architecture=_json(content, ARCHITECTURE, label),
        _content=content,
    )


def _read_checkpoint(path: Path) -> BundleRecord:
    return _checkpoint_record(path, path.name, path.read_bytes())


def _checkpoint_record(path: Path, name: str, data: bytes) -> BundleRecord:
    whole = _dictionary(load_tensors(data, name), name)
    if "state_dict" not in whole:
        raise NotABundleError(
            f"{name}: has no state_dict; expected a Lightning checkpoint (found {', '.join(sorted(map(str, whole)))})"
        )
    weights = check_weights(whole["state_dict"], f"{name}: state_dict")
    return BundleRecord(
        path=path,
        kind="ckpt",
        sha256=hashlib.sha256(data).hexdigest(),
        members_sha256=members_digest([(name, data)]),
        members=((name, len(data)),),
        manifest=None,
        params={},
        weights=dict.fromkeys(ROLES, weights),
        checkpoint={k: v for k, v in whole.items() if k not in _CHECKPOINT_PARTS},
        _content=Members(name, {name: len(data)}, lambda _: data),
    )


def _weights(data: bytes, where: str) -> StateDict | Sentinel:
    value = load_tensors(data, where)
    if isinstance(value, dict) and set(value) == {SENTINEL_KEY}:
        return Sentinel(str(value[SENTINEL_KEY]))
    return check_weights(value, where)


def _dictionary(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise DamagedBundleError(f"{where}: holds {type(value).__name__}; expected a dictionary with text keys")
    return value


def _refuse_tensorflow(label: str, names: list[str], manifest: dict[str, Any]) -> None:
    keras = [n for n in names if n.endswith(("/model.keras", "/saved_model.pb", "/custom_objects.dill"))]
    if (
        manifest.get("backend") == "tensorflow"
        or keras
        or (manifest.get("version") == "1.0" and not any(n.endswith(".pth") for n in names))
    ):
        raise TensorFlowBundleError(
            f"{label}: written by PtychoPINN's tensorflow backend (version {manifest.get('version')}); "
            "this project reads bundles of the pytorch backend only"
        )


def _json(content: Members, name: str, label: str) -> dict[str, Any] | None:
    if name not in content:
        return None
    try:
        return _dictionary(json.loads(content[name]), f"{label}: {name}")
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DamagedBundleError(f"{label}: {name} is no JSON ({error})") from error
