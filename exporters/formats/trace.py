"""The graphs of one network in both formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exporters.formats.garbage import without_collections
from exporters.formats.onnx import OnnxFamily
from exporters.formats.torchscript import export_torchscript
from exporters.graph.family import Family

Files = Mapping[str, Mapping[str, bytes]]  # by graph and format
# Takes a family and the metadata of its ONNX files by graph, returns their contents: `trace_family`, or what remembers its results.
Tracer = Callable[[Family, Mapping[str, Mapping[str, str]]], Files]


def trace_family(family: Family, metadata: Mapping[str, Mapping[str, str]]) -> Files:
    """Return graphs' files by graph and format, `torchscript` and `onnx`; equal for equal weights, metadata and versions.

    Args:
        family: what is traced.
        metadata: of the ONNX files, by graph and key of `contract.META_KEYS`.
    """
    with without_collections():
        together = OnnxFamily(family)
        return {
            graph.name: {
                "torchscript": export_torchscript(graph.module, list(graph.inputs)),
                "onnx": together.file(graph, metadata[graph.name]),
            }
            for graph in family.graphs
        }
