"""TF32's budget: what rounding operands to ten bits costs, and that it hides no wrong layer."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from sample_bundles import bundle_path

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters.graph.graphs import build_graph, graph_io  # noqa: E402
from exporters.parity.inputs import Pool, make_pool  # noqa: E402
from exporters.parity.precision import RoundedOperands, rounded, tf32_eager  # noqa: E402
from exporters.parity.rows import ParityRow  # noqa: E402
from exporters.parity.runners import EagerRunner, Outputs  # noqa: E402
from exporters.parity.trials import in_chunks, judge  # noqa: E402
from ptycho_torch import load_torch_bundle  # noqa: E402

GRAPH = "diffraction_to_obj"


@pytest.mark.parametrize(
    ("value", "kept"),
    [(1.0, 1.0), (1 + 2**-10, 1 + 2**-10), (1 + 2**-11, 1.0), (1 + 2**-13, 1.0), (-3.0 - 2**-12, -3.0), (0.0, 0.0)],
)
def test_eleven_significant_bits_are_kept(value: float, kept: float) -> None:
    assert float(rounded(torch.tensor(value, dtype=torch.float64), 11)) == kept


def test_only_products_are_rounded() -> None:
    x = torch.tensor([1.0 + 2.0**-20], dtype=torch.float64)
    with RoundedOperands():
        assert float((x + 0.0)[0]) == float(x[0])
        assert float((x[None] @ x[:, None])[0, 0]) == 1.0


@pytest.fixture(scope="module")
def trial():  # type: ignore[no-untyped-def]
    models, _ = load_torch_bundle(bundle_path("cnn-2026-07-n64-g1-demo"))
    model = models[GRAPH]
    pool = make_pool(model.spec, 8)
    names = {info["name"] for info in graph_io(model.spec, GRAPH)[0]}
    pool = Pool({k: v for k, v in pool.feed.items() if k in names}, pool.kinds)
    reference = in_chunks(EagerRunner(model, GRAPH, dtype=torch.float64), pool)
    return model, pool, reference, tf32_eager(model, GRAPH, pool, reference)


class TestBudget:
    def judged(self, trial, change: float) -> ParityRow:  # type: ignore[no-untyped-def]
        """Judge eager float32 under emulated TF32, with one layer's weights scaled."""
        model, pool, reference, limit = trial
        module = build_graph(copy.deepcopy(model), GRAPH)
        with torch.no_grad():
            module.network.decoder_phase.blocks[0].conv2.weight.mul_(change)
            with RoundedOperands():
                values = module(*(torch.from_numpy(np.ascontiguousarray(v)) for v in pool.feed.values()))
        outputs = graph_io(model.spec, GRAPH)[1]
        found: Outputs = {info["name"]: v.numpy() for info, v in zip(outputs, values, strict=True)}
        row = ParityRow(GRAPH, "onnx", "cuda", "tf32", 8, "", "passed")
        judge(row, found, reference, limit, {info["name"]: (list(info["shape"]), info["dtype"]) for info in outputs})
        return row

    def test_rounding_alone_passes_with_a_share_near_a_quarter(self, trial) -> None:  # type: ignore[no-untyped-def]
        row = self.judged(trial, 1.0)
        assert row.verdict == "passed"
        assert 0.1 < row.worst()[1] < 0.5

    def test_a_layer_that_is_five_percent_off_fails(self, trial) -> None:  # type: ignore[no-untyped-def]
        row = self.judged(trial, 1.05)
        assert row.verdict == "failed"
        assert row.worst()[1] > 1.5
