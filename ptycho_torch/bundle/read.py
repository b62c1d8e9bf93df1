"""From a path to a `BundleRecord`: what PtychoPINN stored, as plain values and numpy arrays."""

from __future__ import annotations

import hashlib
import io
import json
import os
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptycho_runtime.contract import EXPORTS_JSON
from ptycho_runtime.files import printable
from ptycho_torch.bundle import limits
from ptycho_torch.bundle.checkpoint import checkpoint_record
from ptycho_torch.bundle.digests import HashedMembers, digest_of
from ptycho_torch.bundle.folder import open_folder, open_regular, single_file
from ptycho_torch.bundle.layout import (
    ARCHITECTURE,
    MANIFEST,
    METADATA,
    REQUIRED_PARAMS,
    ROLES,
    SENTINEL_KEY,
    params_member,
    weights_member,
)
from ptycho_torch.bundle.members import Members
from ptycho_torch.bundle.paths import resolve
from ptycho_torch.bundle.pickle.load import load_plain
from ptycho_torch.bundle.ranges import check_numbers
from ptycho_torch.bundle.recognise import check_head, check_manifest, no_bundle, refuse_tensorflow
from ptycho_torch.bundle.record import BundleRecord, Sentinel, without_foreign
from ptycho_torch.bundle.state_dict import usable_weights
from ptycho_torch.bundle.tensors import StateDict, TensorFile, load_tensors
from ptycho_torch.bundle.zip_archive import open_zip
from ptycho_torch.errors import DamagedBundleError, LimitExceededError, MissingParamsError


def read_bundle(path: str | Path, *, ignore_extra: bool = False) -> BundleRecord:
    """Return what a bundle or checkpoint holds; nothing in it is executed and nothing is written.

    Args:
        path: a `wts.h5.zip`, PtychoPINN's base path without `.zip`, an unpacked folder, a run directory, a `.ckpt`.
        ignore_extra: leave out what a state_dict holds beside the model, such as averaged weights or metrics.

    Raises:
        FileNotFoundError: nothing is there.
        BundleError: one subclass per cause, see `ptycho_torch.errors`.

    Examples:
        >>> from ptycho_torch import read_bundle
        >>> record = read_bundle("wts.h5.zip")
        >>> record.kind, sorted(record.weights)
        ('zip', ['autoencoder', 'diffraction_to_obj'])
    """
    record = _read(path)
    # Whoever exported it has decided that already.
    return without_foreign(record) if ignore_extra or record.exports is not None else record


def _read(path: str | Path) -> BundleRecord:
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
        record = checkpoint_record(path, path.name, file, sha256)
        record = replace(record, members=tuple(content.sizes_bytes.items()), _content=content)
    else:
        check_head(file, path.name)
        content = open_zip(file, path.name)
        record = _read_members(path, kind, content, sha256)
    weakref.finalize(content, file.close)
    after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DamagedBundleError(f"{path}: changed while it was being read; wait until it is written and try again")
    return record


def _read_members(path: Path, kind: str, content: Members, sha256: str | None) -> BundleRecord:
    names = list(content)
    label = path.name
    checkpoints = [name for name in names if name.endswith(".ckpt") and "/" not in name]
    members = tuple(content.sizes_bytes.items())
    if MANIFEST not in content and len(checkpoints) == 1 and EXPORTS_JSON in content:
        # An exported checkpoint: the checkpoint as it was, with its exports beside it.
        data = content.buffer(checkpoints[0])
        record = checkpoint_record(path, checkpoints[0], data, hashlib.sha256(data).hexdigest())
        exports = _json(content, EXPORTS_JSON, label)
        return replace(record, sha256=sha256 or record.sha256, members=members, exports=exports, _content=content)
    if MANIFEST not in content:
        raise no_bundle(content)
    own = HashedMembers(content)
    manifest = _read_plain(own, MANIFEST, label)
    refuse_tensorflow(label, names, manifest)
    for role in ROLES:
        # PtychoPINN, too, looks at parameters before weights, and before whether both models are there.
        if params_member(role) in content:
            _require(_params(own, params_member(role), content), f"{label}: {params_member(role)}")
    check_manifest(manifest, names, label)
    params = {role: _params(own, params_member(role), content) for role in ROLES}
    metadata = None
    if METADATA in content:
        where = f"{label}: {METADATA}"
        metadata = _dictionary(load_tensors(own.take(METADATA, limits.MAX_MEMBER_BYTES), where), where)
        check_numbers(metadata, where)
    weights, notices = {}, []
    loaded: dict[str, tuple[TensorFile, Any]] = {}
    for role in ROLES:
        weights[role], said = _weights(own, weights_member(role), label, loaded)
        notices += said
    digests = own.all_digests()
    digest = digest_of(digests)
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
        exports=_json(content, EXPORTS_JSON, label),
        architecture=_json(content, ARCHITECTURE, label),
        notices=tuple(dict.fromkeys(notices)),
        _content=content,
        _digests=digests,
    )


def _read_plain(own: HashedMembers, name: str, label: str) -> dict[str, Any]:
    where = f"{label}: {name}"
    return _dictionary(load_plain(bytes(own.take(name, limits.MAX_PICKLE_BYTES)), where), where)


def _params(own: HashedMembers, name: str, content: Members) -> dict[str, Any]:
    label = content.label if "/" not in content.label else Path(content.label).name
    if name not in content:
        raise MissingParamsError(
            f"{label}: {name} is missing. Cannot reconstruct model architecture; export the bundle from PtychoPINN again"
        )
    params = _read_plain(own, name, label)
    check_numbers(params, f"{label}: {name}")
    return params


def _require(params: dict[str, Any], where: str) -> None:
    missing = [name for name in REQUIRED_PARAMS if params.get(name) is None]
    if missing:
        raise MissingParamsError(
            f"{where}: missing required fields: {', '.join(missing)}. Cannot reconstruct model architecture; save the bundle "
            "again from PtychoPINN with its configuration applied"
        )


def _weights(
    own: HashedMembers, name: str, label: str, loaded: dict[str, tuple[TensorFile, Any]]
) -> tuple[StateDict | Sentinel, list[str]]:
    """Return what a member holds as weights, and what is to be said of it; `loaded` keeps files by their content's digest."""
    where = f"{label}: {name}"
    content = own.take(name, limits.MAX_MEMBER_BYTES)
    digest = own.digest(name)
    # Both models usually hold the same weights: the same bytes are followed once, and their arrays are in memory once.
    if digest not in loaded:
        file = TensorFile(content, where)
        loaded[digest] = file, file.load()
    file, value = loaded[digest]
    if isinstance(value, dict) and set(value) == {SENTINEL_KEY}:
        return Sentinel(printable(value[SENTINEL_KEY])), []
    return usable_weights(value, where, file)


def _dictionary(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise DamagedBundleError(f"{where}: holds {type(value).__name__}; expected a dictionary with text keys")
    return value


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
