"""A graph to one self-describing ONNX file: standard operators, dynamic batch, checked before it leaves here."""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.onnx import ONNXProgram

from exporters.errors import ExportError
from exporters.formats.garbage import without_collections
from exporters.formats.optimize import REWRITES, optimize
from exporters.graph.centre import as_alone
from exporters.graph.family import Family
from exporters.graph.graphs import Graph
from ptycho_runtime import contract

OPSET = 20  # the newest for which onnxruntime's CUDA provider has every operator used here (MaxPool ends at 21)
MAX_IR_VERSION = 10  # read by onnxruntime 1.18 and later
SCOPES = "pkg.torch.onnx.name_scopes"  # which layer a node belongs to: parity's bisection matches by it
_TRACE_BATCH = 2  # one would be baked in


def example_inputs(inputs: Sequence[contract.TensorInfo], batch: int = _TRACE_BATCH, modes: int = 2) -> list[Tensor]:
    """Return harmless inputs of a graph for tracing, in order, float32."""
    sizes = {contract.BATCH_AXIS: batch, contract.MODES_AXIS: modes}
    tensors = []
    for info in inputs:
        shape = [sizes[d] if isinstance(d, str) else d for d in info["shape"]]
        if info["dtype"] == "int64":
            tensors.append(torch.zeros(shape, dtype=torch.int64))
        elif info["name"] in (contract.INPUT_SCALE, contract.OUTPUT_SCALE):
            tensors.append(torch.full(shape, 0.5))
        else:
            ramp = torch.arange(float(torch.Size(shape).numel())) % 17
            tensors.append((ramp / 17 + 0.1).reshape(shape))
    return tensors


def export_onnx(graph: Graph, metadata: Mapping[str, str], rewrites: Iterable[str] = REWRITES) -> bytes:
    """Return a graph as the bytes of one ONNX file; arguments and errors are those of `OnnxFamily`."""
    return OnnxFamily(Family((graph,), graph.module)).file(graph, metadata, rewrites)


class OnnxFamily:
    """Graphs of one network, traced as one; each graph's file is cut out of that."""

    def __init__(self, family: Family) -> None:
        """Trace the graphs.

        Args:
            family: its module is float32 on the CPU.

        Raises:
            ExportError: PyTorch's exporter returned nothing.
        """
        self._whole = _traced(family.module, family.inputs)
        outputs = iter(self._whole.graph.outputs)
        self._outputs = {graph.name: [next(outputs) for _ in graph.outputs] for graph in family.graphs}

    def file(self, graph: Graph, metadata: Mapping[str, str], rewrites: Iterable[str] = REWRITES) -> bytes:
        """Return the bytes of one graph's ONNX file.

        Args:
            graph: one of the family.
            metadata: written to `metadata_props`, one entry per key of `contract.META_KEYS`.
            rewrites: exact rewrites to apply, names of `optimize.REWRITES`.

        Raises:
            ExportError: the exporter wrote something other than the contract: another opset, other names or shapes,
                custom operators, external data.
        """
        inputs, outputs = list(graph.inputs), list(graph.outputs)
        program = ONNXProgram(self._cut(graph), None)
        program.optimize()
        for value, info in zip(program.model.graph.outputs, outputs, strict=True):
            value.name = info["name"]
        optimize(program.model, rewrites)
        model = program.model_proto
        settle(model, inputs, outputs, metadata)
        check(model, inputs, outputs)
        return bytes(model.SerializeToString(deterministic=True))

    def _cut(self, graph: Graph) -> ir.Model:
        """Return a graph with nothing but what its outputs need, under the names that it has where it is traced alone."""
        whole = self._whole.graph
        inputs = {value.name: value for value in whole.inputs}
        cut = ir.convenience.extract(whole, [inputs[info["name"]] for info in graph.inputs], self._outputs[graph.name])
        # They come in no order, and the same graph gives the same bytes.
        weights = [cut.initializers.pop(name) for name in whole.initializers if name in cut.initializers]
        for weight in weights:
            weight.name = as_alone(weight.name or "")
            cut.register_initializer(weight)
        for node in cut:
            if scopes := node.metadata_props.get(SCOPES):
                *modules, own = ast.literal_eval(scopes)
                node.metadata_props[SCOPES] = repr([*dict.fromkeys(map(as_alone, modules)), own])
        functions = [function.clone() for function in self._whole.functions.values()]
        return ir.Model(cut, ir_version=self._whole.ir_version, functions=functions)


def _traced(module: nn.Module, inputs: Sequence[contract.TensorInfo]) -> ir.Model:
    """Return what PyTorch's exporter makes of a module, before anything is made better."""
    axes = {name: torch.export.Dim(name, min=1, max=65536) for name in (contract.BATCH_AXIS, contract.MODES_AXIS)}
    dynamic = tuple({i: axes[d] for i, d in enumerate(info["shape"]) if isinstance(d, str)} for info in inputs)
    with warnings.catch_warnings(), torch.no_grad(), without_collections():
        warnings.simplefilter("ignore")
        loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                module,
                tuple(example_inputs(inputs)),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=dynamic,
                input_names=[info["name"] for info in inputs],
                optimize=False,
                verbose=False,
            )
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
    if program is None:
        raise ExportError("the ONNX exporter returned nothing; this is a bug, please report it")
    return program.model


def settle(
    model: onnx.ModelProto,
    inputs: list[contract.TensorInfo],
    outputs: list[contract.TensorInfo],
    metadata: Mapping[str, str],
) -> None:
    """Give a model the contract's metadata and axis names, and take out what names the machine that wrote it."""
    del model.metadata_props[:]
    for key in contract.META_KEYS:
        model.metadata_props.add(key=contract.META_PREFIX + key, value=metadata[key])
    model.producer_name, model.producer_version, model.doc_string = "ptycho-export", metadata["exporter_version"], ""
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    model.graph.name = metadata["graph"]
    model.graph.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        kept = [(p.key, p.value) for p in node.metadata_props if p.key == SCOPES]
        del node.metadata_props[:]
        for key, value in kept:
            node.metadata_props.add(key=key, value=value)
    for value in (*model.graph.value_info, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        value.doc_string = ""
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    for info, value in zip((*inputs, *outputs), (*model.graph.input, *model.graph.output), strict=True):
        for wanted, axis in zip(info["shape"], value.type.tensor_type.shape.dim, strict=True):
            if isinstance(wanted, str):
                axis.dim_param = wanted


def check(model: onnx.ModelProto, inputs: list[contract.TensorInfo], outputs: list[contract.TensorInfo]) -> None:
    """Raise `ExportError` unless a model is what the contract promises; runs `onnx.checker` and strict shape inference."""
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": OPSET}:
        raise ExportError(f"the ONNX file asks for opsets {opsets}; expected the standard domain at {OPSET} alone")
    if model.functions or any(node.domain for node in model.graph.node):
        raise ExportError("the ONNX file holds functions or custom operators; expected standard operators only")
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer):
        raise ExportError("the ONNX file keeps weights outside itself; expected a single file")
    shape_arithmetic = sorted(
        {n.op_type for n in model.graph.node if n.op_type in ("Shape", "Size", "NonZero", "Loop", "If")}
    )
    if shape_arithmetic:
        raise ExportError(f"the ONNX file holds {', '.join(shape_arithmetic)}, which onnxruntime puts on the CPU")
    for wanted, found in ((inputs, model.graph.input), (outputs, model.graph.output)):
        names = [info["name"] for info in wanted]
        if [value.name for value in found] != names:
            raise ExportError(f"the ONNX file has {[value.name for value in found]}; expected {names}")
        for info, value in zip(wanted, found, strict=True):
            shape = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            if shape != info["shape"]:
                raise ExportError(f"{info['name']} came out as {shape}; expected {info['shape']}")
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
