"""From a path to a `BundleRecord`: what PtychoPINN stored, as plain values and numpy arrays."""

from __future__ import annotations

import hashlib
import io
import json
import os
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from ptycho_runtime.files import printable
from ptycho_torch.bundle import limits
from ptycho_torch.bundle.folder import open_folder, open_regular, single_file
from ptycho_torch.bundle.members import Members
from ptycho_torch.bundle.pickle.load import load_plain
from ptycho_torch.bundle.ranges import check_numbers
from ptycho_torch.bundle.tensors import StateDict, check_weights, load_tensors
from ptycho_torch.bundle.zip_archive import open_zip
from ptycho_torch.errors import (
    BundleError,
    DamagedBundleError,
    LimitExceededError,
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
_OWN_NAMES = (EXPORTS, "golden.npz", "variant_patterns.npz")
_OWN_SUFFIXES = ("/model.onnx", "/model.torchscript.pt", "/model.int8.onnx", "/model.float16.onnx")
_CHECKPOINT_PARTS = ("optimizer_states", "lr_schedulers", "callbacks", "loops")


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
    _digests: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)  # of PtychoPINN's own members

    def read_member(self, name: str) -> bytes:
        """Return the content of a listed member; raises `DamagedBundleError` if the bundle lacks it or it changed."""
        if self._content is None or name not in self._content:
            raise DamagedBundleError(f"{self.path}: has no member {printable(ascii(name))}")
        data = self._content[name]
        if name in self._digests and hashlib.sha256(data).hexdigest() != self._digests[name]:
            raise DamagedBundleError(f"{self.path}: member {name!r} changed since the bundle was read; start again")
        return data


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


def read_bundle(path: str | Path) -> BundleRecord:
    """Return what a bundle or checkpoint holds; nothing in it is executed and nothing is written.

    Args:
        path: a `wts.h5.zip`, PtychoPINN's base path without `.zip`, an unpacked folder, a run directory, a `.ckpt`.

    Raises:
        FileNotFoundError: nothing is there.
        BundleError: one subclass per cause, see `ptycho_torch.errors`.
    """
    try:
        actual, kind = resolve(path)
        if kind == "folder":
            return _read_members(actual, kind, open_folder(actual), None)
        file = open_regular(actual)
        try:
            return _read_file(actual, kind, file)
        except BaseException:
            file.close()
            raise
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedBundleError(
            f"{path}: cannot be read ({error.strerror or error}); check the path and its permissions"
        ) from error


def _read_file(path: Path, kind: str, file: io.BufferedReader) -> BundleRecord:
    """Read an open file; it stays open with the record, so that a file renamed over it changes nothing."""
    before = os.fstat(file.fileno())
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if kind == "ckpt":
        content = single_file(file, path.name)
        record = _checkpoint_record(path, path.name, file, sha256)
        record = replace(record, members=tuple(content.sizes_bytes.items()), _content=content)
    else:
        content = open_zip(file, path.name)
        record = _read_members(path, kind, content, sha256)
    weakref.finalize(content, file.close)
    after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DamagedBundleError(f"{path}: changed while it was being read; wait until it is written and try again")
    return record


def members_digest(contents: Iterable[tuple[str, bytes]]) -> str:
    """Return one digest over names and contents that does not depend on archive or order."""
    return _digest_of({name: hashlib.sha256(data).hexdigest() for name, data in contents})


def _digest_of(digests: Mapping[str, str]) -> str:
    lines = sorted(f"{name}\0{digest}\n" for name, digest in digests.items())
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


class _Hashed:
    """PtychoPINN's own members: what is wanted of them kept, the rest only hashed."""

    def __init__(self, content: Members) -> None:
        self._content = content
        self._digests: dict[str, str] = {}

    def take(self, name: str, limit_bytes: int) -> memoryview:
        """Return a member's content, hashed as it is read."""
        hashed, grown = hashlib.sha256(), bytearray()
        for chunk in self._content.chunks(name):
            hashed.update(chunk)
            grown += chunk
            if len(grown) > limit_bytes:
                raise LimitExceededError(
                    f"{self._content.label}: member {printable(ascii(name))} has more than {limit_bytes} bytes; refused"
                )
        self._digests[name] = hashed.hexdigest()
        return memoryview(grown).toreadonly()

    def all_digests(self) -> dict[str, str]:
        """Return every own member's digest, after hashing those that nothing was taken from."""
        for name in self._content:
            if name not in self._digests and not is_own_member(name):
                hashed = hashlib.sha256()
                for chunk in self._content.chunks(name):
                    hashed.update(chunk)
                self._digests[name] = hashed.hexdigest()
        return self._digests


def _read_members(path: Path, kind: str, content: Members, sha256: str | None) -> BundleRecord:
    names = list(content)
    label = path.name
    checkpoints = [name for name in names if name.endswith(".ckpt") and "/" not in name]
    members = tuple(content.sizes_bytes.items())
    if MANIFEST not in content and len(checkpoints) == 1 and EXPORTS in content:
        # An exported checkpoint: the checkpoint as it was, with its exports beside it.
        data = content.buffer(checkpoints[0])
        record = _checkpoint_record(path, checkpoints[0], data, hashlib.sha256(data).hexdigest())
        exports = _json(content, EXPORTS, label)
        return replace(record, sha256=sha256 or record.sha256, members=members, exports=exports, _content=content)
    if MANIFEST not in content:
        raise _no_manifest(names, label)
    own = _Hashed(content)
    manifest = _read_plain(own, MANIFEST, label)
    _refuse_tensorflow(label, names, manifest)
    models = manifest.get("models")
    if not isinstance(models, list) or not all(isinstance(m, str) for m in models):
        raise DamagedBundleError(f"{label}: {MANIFEST} lists no models; it has {printable(sorted(manifest))}")
    missing = [role for role in ROLES if role not in models or f"{role}/model.pth" not in content]
    if missing:
        raise MissingModelsError(
            f"{label}: lacks the weights of {' and '.join(missing)}; a bundle holds {' and '.join(ROLES)} "
            f"(found: {printable(', '.join(models)) or 'none'})"
        )
    params = {role: _params(own, f"{role}/params.dill", content) for role in ROLES}
    metadata = None
    if METADATA in content:
        where = f"{label}: {METADATA}"
        metadata = _dictionary(load_tensors(own.take(METADATA, limits.MAX_MEMBER_BYTES), where), where)
        check_numbers(metadata, where)
    weights = {role: _weights(own, f"{role}/model.pth", label) for role in ROLES}
    digests = own.all_digests()
    digest = _digest_of(digests)
    return BundleRecord(
        path=path,
        kind=kind,
        sha256=sha256 or digest,
        members_sha256=digest,
        members=members,
        manifest=manifest,
        params=params,
        weights=weights,
        metadata=metadata,
        exports=_json(content, EXPORTS, label),
        architecture=_json(content, ARCHITECTURE, label),
        _content=content,
        _digests=digests,
    )


def _no_manifest(names: list[str], label: str) -> BundleError:
    if any(name.endswith("/data.pkl") and name.count("/") == 1 for name in names):
        return NotABundleError(
            f"{label}: is a PyTorch file, not a bundle; give the whole wts.h5.zip, and name a Lightning checkpoint *.ckpt"
        )
    return NotABundleError(f"{label}: has no {MANIFEST}; expected a PtychoPINN wts.h5.zip")


def _read_plain(own: _Hashed, name: str, label: str) -> dict[str, Any]:
    where = f"{label}: {name}"
    return _dictionary(load_plain(bytes(own.take(name, limits.MAX_PICKLE_BYTES)), where), where)


def _params(own: _Hashed, name: str, content: Members) -> dict[str, Any]:
    label = content.label if "/" not in content.label else Path(content.label).name
    if name not in content:
        raise MissingParamsError(
            f"{label}: {name} is missing. Cannot reconstruct model architecture; export the bundle from PtychoPINN again"
        )
    params = _read_plain(own, name, label)
    check_numbers(params, f"{label}: {name}")
    return params


def _checkpoint_record(path: Path, name: str, source: BinaryIO | memoryview, sha256: str) -> BundleRecord:
    # Optimiser states are twice the weights: what they ask for is checked, their tensors are not read.
    whole = _dictionary(load_tensors(source, name, without=_CHECKPOINT_PARTS), name)
    if "state_dict" not in whole:
        raise NotABundleError(
            f"{name}: has no state_dict; expected a Lightning checkpoint (found {printable(', '.join(sorted(whole)))})"
        )
    weights = check_weights(whole.pop("state_dict"), f"{name}: state_dict")
    check_numbers(whole, name)
    digests = {name: sha256}
    return BundleRecord(
        path=path,
        kind="ckpt",
        sha256=sha256,
        members_sha256=_digest_of(digests),
        members=(),
        manifest=None,
        params={},
        weights=dict.fromkeys(ROLES, weights),
        checkpoint=whole,
        _digests=digests,
    )


def _weights(own: _Hashed, name: str, label: str) -> StateDict | Sentinel:
    where = f"{label}: {name}"
    value = load_tensors(own.take(name, limits.MAX_MEMBER_BYTES), where)
    if isinstance(value, dict) and set(value) == {SENTINEL_KEY}:
        return Sentinel(printable(value[SENTINEL_KEY]))
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
            f"{label}: written by PtychoPINN's tensorflow backend (version {printable(manifest.get('version'))}); "
            "this project reads bundles of the pytorch backend only"
        )


def _json(content: Members, name: str, label: str) -> dict[str, Any] | None:
    if name not in content:
        return None
    where = f"{label}: {name}"
    if content.sizes_bytes[name] > limits.MAX_JSON_BYTES:
        raise LimitExceededError(f"{where} has more than {limits.MAX_JSON_BYTES} bytes; refused")
    data = content[name]
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedBundleError(f"{where} is no JSON ({printable(error)}); export the bundle again") from error
    return _dictionary(value, where)
