"""A graph to one TorchScript file with the ONNX file's signature."""

from __future__ import annotations

import io
import warnings
import zipfile

import torch
from torch import nn

from exporters.onnx import example_inputs
from ptycho_runtime import contract as c


def export_torchscript(graph: nn.Module, inputs: list[c.TensorInfo]) -> bytes:
    """Return a traced graph as the bytes of a TorchScript file.

    Args:
        graph: module from `build_graph`, float32 on the CPU.
        inputs: its inputs, in order.

    The debug records that TorchScript adds (source lines with the paths of the machine that traced) are left out.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            graph, tuple(example_inputs(inputs)), check_trace=False
        )
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer)
    return without_debug_records(buffer.getvalue())


def without_debug_records(data: bytes) -> bytes:
    """Return a TorchScript file without its `*.debug_pkl` members; members stay stored and 64-byte aligned."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
        for info in source.infolist():
            if info.filename.endswith(".debug_pkl"):
                continue
            entry = zipfile.ZipInfo(info.filename, (1980, 1, 1, 0, 0, 0))
            header_bytes = 30 + len(info.filename.encode())
            padding = -(out.tell() + header_bytes + 4) % 64
            entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
            target.writestr(entry, source.read(info))
    return out.getvalue()
