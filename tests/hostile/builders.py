"""Pickles, PyTorch files and archives assembled byte by byte, so that they can hold what no library would write."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

ROLES = ("diffraction_to_obj", "autoencoder")

# Expressions: each is a run of opcodes that leaves one value on the stack.


def text(content: str) -> bytes:
    """Return the opcodes of a text."""
    data = content.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(n: int) -> bytes:
    """Return the opcodes of a whole number of any size."""
    if n < 0 or n >= 1 << 31:
        data = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data if len(data) < 256 else b"\x8b" + struct.pack("<i", len(data)) + data
    return b"J" + struct.pack("<i", n)


def glob(module: str, name: str) -> bytes:
    """Return the opcodes of a global."""
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def stack_glob(module: str, name: str) -> bytes:
    """Return the opcodes of a global whose names lie on the stack."""
    return text(module) + text(name) + b"\x93"


def tup(*items: bytes) -> bytes:
    """Return the opcodes of a tuple."""
    return b"(" + b"".join(items) + b"t"


def lst(*items: bytes) -> bytes:
    """Return the opcodes of a list."""
    return b"](" + b"".join(items) + b"e"


def dic(items: Mapping[str, bytes]) -> bytes:
    """Return the opcodes of a dictionary."""
    return b"}(" + b"".join(text(key) + item for key, item in items.items()) + b"u"


def call(function: bytes, *arguments: bytes) -> bytes:
    """Return the opcodes of a call."""
    return function + tup(*arguments) + b"R"


def done(expression: bytes, protocol: int = 2) -> bytes:
    """Return a whole pickle."""
    return (b"\x80" + bytes([protocol]) if protocol >= 2 else b"") + expression + b"."


# PyTorch files


def storage(key: str, size: int, kind: str = "FloatStorage") -> bytes:
    """Return the opcodes of a storage, named by a persistent id."""
    return tup(text("storage"), glob("torch", kind), text(key), text("cpu"), number(size)) + b"Q"


def tensor(
    key: str = "0",
    shape: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
    offset: int = 0,
    size: int = 4,
    kind: str = "FloatStorage",
    hooks: bytes | None = None,
) -> bytes:
    """Return the opcodes of a tensor over a storage."""
    return call(
        glob("torch._utils", "_rebuild_tensor_v2"),
        storage(key, size, kind),
        number(offset),
        tup(*map(number, shape)),
        tup(*map(number, stride)),
        b"\x89",
        call(glob("collections", "OrderedDict")) if hooks is None else hooks,
    )


FOUR = struct.pack("<4f", 1.0, 2.0, 3.0, 4.0)


def torch_file(
    expression: bytes,
    storages: Mapping[str, bytes] | None = None,
    *,
    name: str = "archive",
    byteorder: bytes = b"little",
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """Return a file as torch.save lays it out, around any pickle expression."""
    members = [(f"{name}/data.pkl", done(expression)), (f"{name}/byteorder", byteorder), (f"{name}/version", b"3\n")]
    members += [(f"{name}/data/{key}", data) for key, data in ({"0": FOUR} if storages is None else storages).items()]
    return zip_of(members, compression)


def weights_file() -> bytes:
    """Return a small, sound model.pth."""
    return torch_file(dic({"layer.weight": tensor(shape=(2, 2), stride=(2, 1))}))


# archives


def zip_of(members: Iterable[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


PARAMS = {"N": 64, "gridsize": 1, "n_filters_scale": 1, "model_type": "pinn", "_version": "2.0-pytorch"}
MANIFEST = {"models": list(ROLES), "version": "2.0-pytorch"}


def bundle_members(changes: Mapping[str, bytes | None] | None = None) -> list[tuple[str, bytes]]:
    """Return the members of a small, sound bundle with some of them replaced, added or (None) left out."""
    members: dict[str, bytes | None] = {"manifest.dill": pickle.dumps(MANIFEST, 4)}
    for role in ROLES:
        members[f"{role}/model.pth"] = weights_file()
        members[f"{role}/params.dill"] = pickle.dumps(PARAMS, 4)
    members.update(changes or {})
    return [(name, data) for name, data in members.items() if data is not None]


def bundle(changes: Mapping[str, bytes | None] | None = None) -> bytes:
    """Return a small, sound bundle with some members replaced, added or (None) left out."""
    return zip_of(bundle_members(changes))


def with_params(expression: bytes, protocol: int = 2) -> bytes:
    """Return a bundle whose first params.dill holds one key, `x`, with any pickle expression."""
    return bundle({"diffraction_to_obj/params.dill": done(dic({"x": expression}), protocol)})


def with_weights(data: bytes) -> bytes:
    """Return a bundle with another first model.pth."""
    return bundle({"diffraction_to_obj/model.pth": data})


def checkpoint(expression: bytes = b"}", **parts: bytes) -> bytes:
    """Return a Lightning checkpoint with any hyper-parameters and further parts."""
    state = dic({"layer.weight": tensor()})
    return torch_file(dic({"state_dict": state, "hyper_parameters": expression, "epoch": number(1), **parts}))


def folder_of(folder: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Write members as files below a folder."""
    for name, data in members:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def patched(data: bytes, old: bytes, new: bytes, count: int = -1) -> bytes:
    """Return bytes with one run of them replaced; it must be there and keep its length."""
    assert old in data and len(old) == len(new), (old, new)
    return data.replace(old, new, count)
