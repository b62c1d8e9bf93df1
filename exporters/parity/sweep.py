"""What follows the network in an ONNX file, on objects that no pattern need ever give.

A network reaches but some objects, so the arctangent, the cosines and the physics behind it would be proven on those alone.
The file is cut where its network ends and fed real and imaginary parts, or amplitudes and phases, of all quadrants, on the
axes, at zero, faint and bright.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # its stubs are a package of their own

from exporters.graph.eager import outputs_of_heads
from exporters.parity.alone import middle
from exporters.parity.inputs import Pool
from exporters.parity.layers import NETWORK, leaving_values, with_outputs
from exporters.parity.metrics import MOST, budget, figures
from exporters.parity.reference import Outputs, one_thread
from exporters.parity.rows import ParityRow
from exporters.parity.runners import FAILURES, OnnxRunner
from ptycho_runtime import contract
from ptycho_torch.models.module import PtychoModel

RUNTIME = "onnx behind its network"
INPUTS = "all quadrants, axes, zeros, faint, bright"
_SIZES = (1.0, 1.0, 1e-4, 1e3)  # of the object, a group each
_FACTORS = (1.0, 1e-3, 1.0, 1e3)  # of the predicted pattern, over the pool's
_DISTANCES = (2.5, 1.0, 1.0, 1.0)  # of the positions, over the pool's
_MODES = 5  # of the probe, where the model takes several: more than the pool has
_THROUGH = "__as_it_is"
_ENDS = (*FAILURES, DecodeError)


def sweep_rows(
    models: Mapping[str, PtychoModel], artifacts: Mapping[str, Mapping[str, bytes]], pool: Pool
) -> list[ParityRow]:
    """Return a row for each graph: the ONNX file from the end of its network on, against eager in float64.

    Args:
        models: eager models by graph, on the CPU.
        artifacts: the exported files by graph and format.
        pool: whose positions, probe and factors are taken.
    """
    return [_row(models[graph], graph, files["onnx"], pool) for graph, files in artifacts.items()]


def _row(model: PtychoModel, graph: str, data: bytes, pool: Pool) -> ParityRow:
    groups = len(_SIZES)
    row = ParityRow(graph, RUNTIME, "cpu", "float32", groups, INPUTS, "passed")
    feed = widened(pool.slice(0, groups))
    try:
        heads = network_outputs(model, feed)
        swept = _swept(model.spec.output_mode == "real_imag", [value.shape for value in heads])
        model_file = onnx.load_from_string(data)
        shapes = head_shapes(model_file, heads, feed)
        names = list(shapes)
        behind = cut_behind_network(model_file, shapes)
        with OnnxRunner(behind, whole=True) as runner:
            fed = {**feed, **{name: middle(v, shapes[name]) for name, v in zip(names, swept, strict=True)}}
            found = {name.removesuffix(_THROUGH): value for name, value in runner.run(fed).items()}
    except _ENDS as error:
        row.verdict, row.reason = (
            "failed",
            f"it cannot be cut where its network ends ({' '.join(str(error).split())[:160]})",
        )
        return row
    reference = _eager(model, graph, swept, feed, torch.float64)
    eager32 = _eager(model, graph, swept, feed, torch.float32)
    for name, wanted in reference.items():
        if name not in found or found[name].shape != wanted.shape or not np.isfinite(found[name]).all():
            row.verdict, row.reason = "failed", f"{name} is missing, of another shape or not finite"
            return row
        allowed = budget(name, eager32, reference, MOST)
        if allowed.objection:
            row.verdict, row.reason = "failed", f"{name}: {allowed.objection}"
            return row
        row.outputs[name] = figures(name, found[name], reference, allowed)
        if not row.outputs[name]["share"] <= 1.0:
            row.verdict = "failed"
    return row


def widened(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a feed that goes farther than a pool does.

    The probe has more modes and is as bright at the edge as in the middle, so that every entry of a Fourier matrix tells; factors
    span six orders of magnitude, and positions reach farther.
    """
    random = np.random.default_rng(6)
    found = dict(feed)
    for name in (contract.PROBE_REAL, contract.PROBE_IMAG):
        if name in feed:
            found[name] = _white(random, feed[name])
    for name, times in ((contract.OUTPUT_SCALE, _FACTORS), (contract.POSITIONS, _DISTANCES)):
        if name in feed:
            found[name] = feed[name] * np.array(times, np.float32).reshape(-1, 1, 1, 1)
    return found


def _white(random: np.random.Generator, like: np.ndarray) -> np.ndarray:
    size = float(np.sqrt(np.mean(like.astype(np.float64) ** 2)))
    modes = _MODES if len(like) > 1 else 1
    return (size * random.normal(size=(modes, *like.shape[1:]))).astype(np.float32)


def network_outputs(model: PtychoModel, feed: Mapping[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the network's two outputs for a feed, float32."""
    tensors = [torch.from_numpy(feed[name]) for name in ("diffraction", "input_scale_factor")]
    with torch.no_grad(), one_thread():
        return model.network_output(*tensors)


def _swept(real_imag: bool, shapes: Sequence[torch.Size]) -> list[np.ndarray]:
    """Return values for the two outputs of a network, (groups, channels, N, N) float32 each."""
    random = np.random.default_rng(5)
    groups, channels, rows, columns = max(shapes, key=lambda shape: shape[1])
    size = random.uniform(0.2, 1.0, (groups, channels, rows, columns))
    angle = random.uniform(-np.pi, np.pi, size.shape)
    # On the axes, on the lines where the arctangent changes its branch, and at nothing.
    special = np.concatenate([np.arange(-8, 9) * np.pi / 8, np.nextafter(np.array([np.pi, -np.pi]), 0.0)])
    angle[1] = special[random.integers(0, len(special), size.shape[1:])]
    size[1] *= random.random(size.shape[1:]) > 0.2
    size *= np.array(_SIZES)[:, None, None, None]
    if real_imag:
        real, imag = size * np.cos(angle), size * np.sin(angle)
        axes = np.abs(np.stack([real[1], imag[1]])) < 1e-12 * size.max()
        real[1][axes[0]], imag[1][axes[1]] = 0.0, 0.0
        pair = [real, imag]
    else:
        # Amplitudes may be negative; the phase's outer path is not bounded by π.
        pair = [
            size * np.where(random.random(size.shape) < 0.2, -1.0, 1.0),
            angle * np.array([1.0, 1.0, 3.0, 1.0])[:, None, None, None],
        ]
    return [value[:, : shape[1]].astype(np.float32) for value, shape in zip(pair, shapes, strict=True)]


def _eager(
    model: PtychoModel, graph: str, swept: Sequence[np.ndarray], feed: Mapping[str, np.ndarray], dtype: torch.dtype
) -> Outputs:
    model = copy.deepcopy(model).to(dtype)
    tensors = {name: torch.from_numpy(value) for name, value in feed.items()}
    tensors = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
    first, second = (torch.from_numpy(value).to(dtype) for value in swept)
    with torch.no_grad(), one_thread():
        outputs = outputs_of_heads(model, (first, second), [graph], tensors)[graph]
    return {name: value.numpy() for name, value in outputs.items()}


def head_shapes(
    model: onnx.ModelProto, heads: Sequence[torch.Tensor], feed: Mapping[str, np.ndarray]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the values that are the network's two outputs, by name in the eager network's order.

    Raises `ValueError` where the nodes do not say what the network hands out, or it hands out another number of values.
    """
    names = leaving_values(model, NETWORK)
    if len(names) != len(heads):
        raise ValueError(f"its network hands out {len(names)} values; expected {len(heads)}")
    with OnnxRunner(with_outputs(model, names), whole=True) as runner:
        values = runner.run(feed)

    def distance(order: Sequence[str]) -> float:
        pairs = [
            (values[name], middle(head.numpy(), values[name].shape)) for name, head in zip(order, heads, strict=True)
        ]
        if any(value.shape != part.shape for value, part in pairs):
            return float("inf")
        return sum(
            float(np.linalg.norm(value - part)) / max(float(np.linalg.norm(part)), 1e-30) for value, part in pairs
        )

    return {name: values[name].shape for name in min((names, names[::-1]), key=distance)}


def cut_behind_network(model: onnx.ModelProto, heads: Mapping[str, Sequence[int]]) -> bytes:
    """Return the file without its network, with the network's outputs among its inputs.

    Args:
        model: the file.
        heads: shape of each of the network's outputs in a run, (groups, channels, rows, columns), by name.
    """
    producers = {value: node for node in model.graph.node for value in node.output}
    wanted = [output.name for output in model.graph.output if output.name not in heads]
    needed: set[str] = set()
    kept: set[int] = set()
    queue = list(wanted)
    while queue:
        value = queue.pop()
        needed.add(value)
        node = producers.get(value)
        if node is None or value in heads or id(node) in kept:
            continue
        kept.add(id(node))
        queue += node.input
    nodes = [node for node in model.graph.node if id(node) in kept]
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    del cut.graph.node[:], cut.graph.input[:], cut.graph.initializer[:], cut.graph.value_info[:], cut.graph.output[:]
    cut.graph.node.extend(nodes)
    cut.graph.initializer.extend(t for t in model.graph.initializer if t.name in needed)
    cut.graph.input.extend(value for value in model.graph.input if value.name in needed)
    axes: dict[str, list[str | int | None]] = {name: ["batch", *shape[1:]] for name, shape in heads.items()}
    for name in heads:
        cut.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, axes[name]))
    for output in model.graph.output:
        if output.name in wanted:
            cut.graph.output.append(output)
            continue
        # A head that is an output as it is goes through.
        through = f"{output.name}{_THROUGH}"
        cut.graph.node.append(onnx.helper.make_node("Identity", [output.name], [through]))
        cut.graph.output.append(onnx.helper.make_tensor_value_info(through, onnx.TensorProto.FLOAT, axes[output.name]))
    return bytes(cut.SerializeToString())
