"""Whatever is changed in what an export brings along, it is read or refused by name; nothing else is raised."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from ptycho_runtime.errors import ReconstructionError  # noqa: E402
from ptycho_runtime.export.npz import read_npz  # noqa: E402
from ptycho_runtime.export.onnx_file import CheckedModel  # noqa: E402
from ptycho_runtime.export.parse import parse  # noqa: E402

SEEDS = range(400)
h = onnx.helper


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{f"g.reference.{name}": np.arange(40.0) for name in "abc"})
    return buffer.getvalue()


def model() -> bytes:
    values = [h.make_tensor_value_info(name, 1, ["batch", 4]) for name in "xy"]
    weights = [onnx.numpy_helper.from_array(np.arange(3, dtype=np.int64), "w")]
    nodes = [h.make_node("Reshape", ["x", "w"], ["z"]), h.make_node("Resize", ["z", "", "w"], ["y"], mode="linear")]
    graph = h.make_graph(nodes, "g", values[:1], values[1:], initializer=weights)
    return bytes(h.make_model(graph, opset_imports=[h.make_opsetid("", 20)]).SerializeToString())


def exports() -> bytes:
    return json.dumps(
        {"schema": "ptycho-export/exports", "schema_version": 2, "graphs": {"a": [1, 2.5, None]}}
    ).encode()


def changed(data: bytes, random: np.random.Generator) -> bytes:
    """Return data with bytes changed, taken out, doubled or put in."""
    found = bytearray(data)
    for _ in range(random.integers(1, 6)):
        at = int(random.integers(0, len(found)))
        how = random.integers(0, 5)
        if how == 0:
            found[at] = random.integers(0, 256)
        elif how == 1:
            found[at] ^= 1 << int(random.integers(0, 8))
        elif how == 2:
            del found[at : at + int(random.integers(1, 20))]
        elif how == 3:
            found[at:at] = found[at : at + int(random.integers(1, 40))]
        else:
            found[at : at + 4] = b"\xff\xff\xff\x7f"
        if not found:
            return b""
    return bytes(found)


READERS: dict[str, tuple[Callable[[], bytes], Callable[[bytes], Any]]] = {
    "golden.npz": (npz, lambda data: read_npz(data, "golden.npz", 1 << 24)),
    "model.onnx": (model, lambda data: CheckedModel(data, "model.onnx")),
    "exports.json": (exports, lambda data: parse(data, "wts.h5.zip")),
}


@pytest.mark.parametrize("name", READERS)
def test_changed_at_random(name: str) -> None:
    make, read = READERS[name]
    data = make()
    for seed in SEEDS:
        try:
            read(changed(data, np.random.default_rng(seed)))
        except ReconstructionError as error:
            assert str(error).isprintable(), seed


@pytest.mark.parametrize(
    "data",
    [b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000, b'{"schema": ' + b"9" * 5000 + b"}", b"NaN", b'{"graphs": NaN}', b"\xff", b"null"],
)  # fmt: skip
def test_json_that_is_deep_long_or_none(data: bytes) -> None:
    with pytest.raises(ReconstructionError):
        parse(data, "wts.h5.zip")
