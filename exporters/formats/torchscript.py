"""A graph to one TorchScript file with the ONNX file's signature."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from exporters.errors import ExportError
from exporters.formats.onnx import example_inputs
from ptycho_runtime import contract

_NUMBERED = re.compile(rb"___torch_mangle_(\d+)")
# Type names stand in the code and, as newline-terminated globals, in the pickle; nothing there depends on their length.
_TEXT = (".py", "/data.pkl")
_IDENTITY = (
    "/.data/serialization_id"  # 40 digits that TorchScript makes from the content; made anew from what is stored
)


def export_torchscript(graph: nn.Module, inputs: list[contract.TensorInfo]) -> bytes:
    """Return a traced graph as the bytes of a TorchScript file.

    Args:
        graph: module from `build_graph`, float32 on the CPU.
        inputs: its inputs, in order.

    The same graph gives the same bytes. TorchScript numbers the types of a process one after the other, and the first of a
    name has no number; so a graph's types are made once without tracing it, and the numbers are made to start at 0. The debug
    records (source lines with the paths of the machine that traced) are left out.
    """
    with warnings.catch_warnings(), torch.no_grad(), _float32_convolutions():
        warnings.simplefilter("ignore")
        torch.jit.trace_module(graph, {})  # type: ignore[no-untyped-call]
        traced = torch.jit.trace(graph, tuple(example_inputs(inputs)), check_trace=False)  # type: ignore[no-untyped-call]
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer)
    with zipfile.ZipFile(buffer) as archive:
        code = [name for name in archive.namelist() if name.endswith(".py")]
    if not all(_NUMBERED.search(name.encode()) for name in code):
        raise ExportError("TorchScript gave types without numbers; the file would not be reproducible")
    return reproducible(buffer.getvalue())


@contextmanager
def _float32_convolutions() -> Iterator[None]:
    """Forbid TF32 meanwhile: a trace writes into each convolution what was allowed then, and the file keeps to it on every GPU.

    PyTorch allows it by default, and a file traced so errs a thousand times as much on CUDA, whatever its user asks for there.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def reproducible(data: bytes) -> bytes:
    """Return a TorchScript file without debug records and with its types numbered from 0; members stay stored and 64-byte aligned."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        members = [(i.filename, source.read(i)) for i in source.infolist() if not i.filename.endswith(".debug_pkl")]
    found = {int(n) for name, content in members for text in (name.encode(), content) for n in _numbers(name, text)}
    rank = {b"%d" % number: b"%d" % index for index, number in enumerate(sorted(found))}
    renamed = [
        (_renumber(name.encode(), rank).decode(), _renumber(content, rank) if name.endswith(_TEXT) else content)
        for name, content in members
        if not name.endswith(_IDENTITY)
    ]
    digest = hashlib.sha256(b"".join(name.encode() + content for name, content in renamed)).digest()
    identity = next(name for name, _ in members if name.endswith(_IDENTITY))
    renamed.append((identity, b"%040d" % (int.from_bytes(digest) % 10**40)))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
        for new_name, new in renamed:
            entry = zipfile.ZipInfo(new_name, (1980, 1, 1, 0, 0, 0))
            header_bytes = 30 + len(new_name.encode())
            padding = -(out.tell() + header_bytes + 4) % 64
            entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
            target.writestr(entry, new)
    return out.getvalue()


def _numbers(name: str, text: bytes) -> list[bytes]:
    return _NUMBERED.findall(text) if name.endswith(_TEXT) else []


def _renumber(text: bytes, rank: dict[bytes, bytes]) -> bytes:
    return _NUMBERED.sub(lambda match: b"___torch_mangle_" + rank[match.group(1)], text)
