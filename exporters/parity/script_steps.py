"""The steps of the physics in a TorchScript file: its values behind positions and probe, made outputs of a copy of its program."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from exporters.formats.torchscript_run import StoredTorchScript
from exporters.parity.inputs import Pool
from exporters.parity.physics_steps import as_layer, recorded_steps, step_errors
from exporters.parity.reference import one_thread
from exporters.parity.rows import LayerError
from exporters.parity.runners import FAILURES, EagerRunner, Outputs
from ptycho_runtime import contract
from ptycho_torch.models.module import PtychoModel

_OF_PHYSICS = (
    contract.POSITIONS,
    contract.PROBE_REAL,
    contract.PROBE_IMAG,
)  # nothing before the physics is computed from them
_SOURCES = tuple(f"aten::{name}" for name in ("matmul", "mul", "add", "sub", "div", "neg"))


def script_steps(model: PtychoModel, graph: str, data: bytes, pool: Pool, groups: int) -> list[LayerError]:
    """Return the steps of the physics in a TorchScript file against the eager model; none where there are none or they cannot be had.

    Args:
        model: the eager float32 model on the CPU.
        graph: which of its graphs the file is.
        data: the file; a stranger's is not looked into.
        pool: inputs of the graph.
        groups: how many of its groups are run.
    """
    if isinstance(data, StoredTorchScript) or model.model.forward_model is None or contract.POSITIONS not in pool.feed:
        return []
    feed = pool.slice(0, groups)
    try:
        values = values_of_physics(data, feed)
        double, single = EagerRunner(model, graph, dtype=torch.float64), EagerRunner(model, graph)
        with recorded_steps(double.model) as steps:
            double.run(feed)
        with recorded_steps(single.model) as steps32:
            single.run(feed)
    except FAILURES:
        return []
    return [as_layer(step, value, worst, 0.0) for step, value, worst in step_errors(steps, steps32, values, values)]


def values_of_physics(data: bytes, feed: Mapping[str, np.ndarray]) -> Outputs:
    """Return what a file computes from positions and probe, by the values' names in its program, in order.

    Args:
        data: a TorchScript file that may be run.
        feed: its inputs by name.
    """
    module = torch.jit.freeze(torch.jit.load(io.BytesIO(data)).eval())  # type: ignore[no-untyped-call]
    program = module.graph
    _, *inputs = program.inputs()
    names = [value.debugName().partition(".")[0] for value in inputs]
    wanted = list(_behind(program))
    for value in wanted:
        program.registerOutput(value)
    program.makeMultiOutputIntoTuple()
    run = torch._C._create_function_from_graph("steps", program)
    with torch.no_grad(), one_thread():
        _, *found = run(module._c, *(torch.from_numpy(feed[name]) for name in names))
    return {value.debugName(): tensor.numpy() for value, tensor in zip(wanted, found, strict=True)}


def _behind(program: torch.Graph) -> Iterator[torch.Value]:
    """Yield the results of arithmetic that positions or the probe have a part in."""
    reached = {value.debugName() for value in program.inputs() if value.debugName().startswith(_OF_PHYSICS)}
    for node in program.nodes():
        if reached.isdisjoint(value.debugName() for value in node.inputs()):
            continue
        for value in node.outputs():
            reached.add(value.debugName())
            if node.kind() in _SOURCES and isinstance(value.type(), torch.TensorType):
                yield value
