"""Rows that hold the reference itself against the independent evaluation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporters.graph.family import families
from exporters.parity.independent.evaluate import independent_outputs
from exporters.parity.inputs import Pool
from exporters.parity.metrics import Budget, Signal, figures
from exporters.parity.rows import ParityRow
from ptycho_torch.models.module import PtychoModel

RUNTIME = "numpy"
MOST = 1e-6  # of the signal: both are float64, constants such as a probe mask are float32
_GROUPS = 1  # it is slow


def independent_rows(
    models: Mapping[str, PtychoModel], pool: Pool, references: Mapping[str, Mapping[str, np.ndarray]]
) -> list[ParityRow]:
    """Return a row for each graph: eager float64 against numpy on the first of the pool's groups.

    Args:
        models: eager models by graph, on the CPU.
        pool: inputs of all graphs.
        references: eager float64's outputs for the whole pool, by graph and name.
    """
    feed = pool.slice(0, _GROUPS)
    rows = []
    for family in families(models, references):
        model = models[family[0]]
        mask = None
        if model.spec.probe_mask == "tensor" and model.model.forward_model is not None:
            mask = model.model.forward_model.probe_mask.detach().double().numpy()
        found = independent_outputs(model.spec, _state(model), feed, family, mask)
        for graph in family:
            row = ParityRow(graph, RUNTIME, "cpu", "float64", _GROUPS, pool.kind(0, _GROUPS), "passed")
            row.facts = {"numpy": np.__version__}
            reference = {name: value[:_GROUPS] for name, value in references[graph].items()}
            for name, value in found[graph].items():
                if value.shape != reference[name].shape:
                    row.verdict = "failed"
                    row.reason = f"{name} is of shape {value.shape}; eager's is {reference[name].shape}"
                    break
                if not np.isfinite(value).all():
                    row.verdict = "failed"
                    row.reason = f"{name} holds {(~np.isfinite(value)).sum()} values that are not finite"
                    break
                allowed = Budget(MOST * Signal.of(name, reference).peak, np.full(_GROUPS, MOST))
                row.outputs[name] = figures(name, value, reference, allowed)
                if not row.outputs[name]["share"] <= 1.0:
                    row.verdict = "failed"
            rows.append(row)
    return rows


def _state(model: PtychoModel) -> dict[str, np.ndarray]:
    """Return the weights in double precision."""
    values = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    return {name: v.astype(np.complex128 if np.iscomplexobj(v) else np.float64) for name, v in values.items()}
