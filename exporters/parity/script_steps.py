"""The steps of the physics in a TorchScript file: its values behind positions and probe."""

from __future__ import annotations

import torch

from exporters.formats.torchscript_run import StoredTorchScript
from exporters.parity.inputs import Pool
from exporters.parity.physics_steps import as_layer, recorded_steps, step_errors
from exporters.parity.rows import LayerError
from exporters.parity.runners import FAILURES, EagerRunner
from exporters.parity.script_values import values_of_physics
from ptycho_runtime import contract
from ptycho_torch.models.module import PtychoModel


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
