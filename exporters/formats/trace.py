"""A graph in both formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exporters.formats.onnx import export_onnx
from exporters.formats.torchscript import export_torchscript
from exporters.graph.graphs import Graph

# Takes a graph and the metadata of its ONNX file, returns file contents by format: `trace_graph`, or what remembers its results.
Tracer = Callable[[Graph, Mapping[str, str]], Mapping[str, bytes]]


def trace_graph(graph: Graph, metadata: Mapping[str, str]) -> Mapping[str, bytes]:
    """Return a graph's files by format, `torchscript` and `onnx`; equal for equal weights, metadata and versions.

    Args:
        graph: what is traced.
        metadata: of the ONNX file, by key of `contract.META_KEYS`.
    """
    return {
        "torchscript": export_torchscript(graph.module, list(graph.inputs)),
        "onnx": export_onnx(graph.module, list(graph.inputs), list(graph.outputs), metadata),
    }
