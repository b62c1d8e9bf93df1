"""The middle of the patches alone is the middle of the whole patches, and less work."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from sample_bundles import members
from shared_exports import PROVEN_BY

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters import ExportResult  # noqa: E402
from exporters.graph.cost import multiply_adds  # noqa: E402
from exporters.graph.eager import eager_outputs  # noqa: E402
from exporters.graph.graphs import build_graph, has_centre  # noqa: E402
from exporters.parity.inputs import make_pool  # noqa: E402
from ptycho_runtime import contract  # noqa: E402
from ptycho_torch.models.module import PtychoModel  # noqa: E402
from ptycho_torch.spec import ModelSpec  # noqa: E402

CNN = {"gridsize": 1, "n_filters_scale": 1, "c_outer": 4}
CASES = {
    "outer path reaches the middle": ModelSpec(era="A", generator="cnn", N=64, **CNN),
    "outer path masked": ModelSpec(era="J", generator="cnn", N=64, border_mask=True, **CNN),
    "outer path off": ModelSpec(era="B", generator="cnn", N=64, probe_big=False, **CNN),
    "normalised": ModelSpec(era="A", generator="cnn", N=64, batch_norm=True, **CNN),
    "N 128": ModelSpec(era="B", generator="cnn", N=128, encoder_attention="cbam", **CNN),
    "N 256": ModelSpec(era="A", generator="cnn", N=256, **CNN),
    "unet": ModelSpec(era="U", generator="unet", N=64, output_mode="real_imag", **CNN),
    "shared decoder": ModelSpec(era="J0", generator="cnn", N=64, shared_decoder=True, **CNN),
}


@pytest.mark.parametrize("name", CASES)
def test_centre_is_the_middle_of_the_eager_patches(name: str) -> None:
    spec = CASES[name]
    torch.manual_seed(1)
    model = PtychoModel(spec).eval().requires_grad_(False).double()
    pool = make_pool(spec, 8)
    feed = {
        key: torch.from_numpy(value[:2]).double() for key, value in pool.feed.items() if not key.startswith("probe")
    }
    with torch.no_grad():
        whole = eager_outputs(model, "diffraction_to_obj", feed)
        found = build_graph(model, contract.CENTRE)(feed[contract.DIFFRACTION], feed[contract.INPUT_SCALE])
    middle = contract.centre(spec.N)
    for values, name_ in zip(found, (contract.OBJECT_REAL, contract.OBJECT_IMAG), strict=True):
        wanted = whole[name_][..., middle, middle]
        torch.testing.assert_close(values, wanted, rtol=0.0, atol=1e-12 * float(wanted.abs().max()))


def test_generators_have_no_centre() -> None:
    assert not has_centre(ModelSpec(era="J", generator="ffno", N=64, gridsize=1, output_mode="real_imag"))


def test_convolutions_that_never_reach_the_middle_are_gone(exported: Callable[[str], ExportResult]) -> None:
    stored = members(exported("cnn-2026-07-n64-g1-demo").bundle)
    whole, middle = (stored[contract.onnx_member(graph)] for graph in ("diffraction_to_obj", contract.CENTRE))
    assert any("conv_up_block" in tensor.name for tensor in onnx.load_from_string(whole).graph.initializer)
    assert not any("conv_up_block" in tensor.name for tensor in onnx.load_from_string(middle).graph.initializer)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("cnn-2026-07-n64-g1-demo", 0.90),
        pytest.param("cnn-2026-02-n64-g1", 0.93, marks=pytest.mark.long),
        pytest.param("cnn-2025-11-n64-g2", 0.93, marks=pytest.mark.long),
    ],
)
def test_centre_needs_fewer_multiply_adds(name: str, share: float, exported: Callable[[str], ExportResult]) -> None:
    stored = members(exported(name).bundle)
    whole, middle = (
        multiply_adds(stored[contract.onnx_member(graph)]) for graph in ("diffraction_to_obj", contract.CENTRE)
    )
    assert middle < share * whole


def test_centre_is_proven_like_the_other_graphs(exported: Callable[[str], ExportResult]) -> None:
    rows = [row for row in exported("cnn-2026-07-n64-g1-demo").report.rows if row.graph == contract.CENTRE]
    passed = {row.runtime for row in rows if row.verdict == "passed"}
    assert passed == PROVEN_BY
    assert all(np.isfinite(row.worst()[1]) for row in rows)
