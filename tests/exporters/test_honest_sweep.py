"""No honest export fails: bundles and families, seeds, optimisation levels and threads, none beyond 0.7 of what is allowed."""

from __future__ import annotations

from typing import Any

import onnxruntime
import pytest
from sample_bundles import NAMES, bundle_path

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters.formats.onnx import export_onnx  # noqa: E402
from exporters.graph.graphs import build_graph, graph_io  # noqa: E402
from exporters.parity.inputs import make_pool  # noqa: E402
from exporters.parity.metrics import budget, figures  # noqa: E402
from exporters.parity.reference import eager_results  # noqa: E402
from ptycho_runtime import contract as c  # noqa: E402
from ptycho_torch import load_torch_bundle  # noqa: E402
from ptycho_torch.models.module import PtychoModel  # noqa: E402
from ptycho_torch.spec import ModelSpec  # noqa: E402

SEEDS = range(1000, 1020)
GROUPS = 6
MOST = 0.7
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL")
RECTANGULAR = {"physics": "rectangular", "output_mode": "real_imag"}
CNN = {"generator": "cnn", "N": 64, "gridsize": 2, "n_filters_scale": 1, "amp_channels": 4, "c_outer": 4}
SPECTRAL = {"N": 64, "gridsize": 1, "fno_width": 8, "fno_modes": 6, "fno_blocks": 2, "output_mode": "real_imag"}
FAMILIES: dict[str, dict[str, Any]] = {
    "cnn-real-imag": {"era": "J", **CNN, "border_mask": True, "output_mode": "real_imag"},
    "cnn-rectangular": {"era": "J", **CNN, "border_mask": True, **RECTANGULAR, "patch_weighting": "probe"},
    "cnn-shared": {"era": "J", **CNN, "c_outer": 8, "border_mask": True, "shared_decoder": True},
    "unet": {"era": "U2", **CNN, **RECTANGULAR, "generator": "unet", "amp_channels": 1, "patch_weighting": "probe"},
    "ffno": {"era": "J", "generator": "ffno", **SPECTRAL},
    "fno": {"era": "J", "generator": "fno", **SPECTRAL},
    "fno_vanilla": {"era": "J", "generator": "fno_vanilla", **SPECTRAL},
    "neuralop_uno": {"era": "J", "generator": "neuralop_uno", "N": 128, "gridsize": 1, "output_mode": "real_imag"},
}


def family(name: str) -> PtychoModel:
    """Return a network with random weights, its trained constants moved off 1."""
    torch.manual_seed(3)
    model = PtychoModel(ModelSpec(**FAMILIES[name])).eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.rsplit(".", 1)[-1] in ("s1", "s2", "alpha", "beta"):
                value.copy_(torch.empty_like(value).uniform_(0.6, 1.6))
    return model


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [*NAMES, *FAMILIES])
def test_an_honest_export_never_comes_near_its_limits(name: str) -> None:
    model = family(name) if name in FAMILIES else load_torch_bundle(bundle_path(name))[0]["autoencoder"]
    graphs = ["diffraction_to_obj", "autoencoder"]
    sessions = {}
    for graph in graphs:
        inputs, outputs = graph_io(model.spec, graph)
        metadata = dict.fromkeys(c.META_KEYS, "x") | {"graph": graph}
        data = export_onnx(build_graph(model, graph), inputs, outputs, metadata)
        for level in LEVELS:
            for threads in (1, 2):
                options = onnxruntime.SessionOptions()
                options.log_severity_level = 4
                options.intra_op_num_threads = threads
                options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
                sessions[graph, level, threads] = onnxruntime.InferenceSession(data, options)
    shares: dict[tuple[Any, ...], float] = {}
    for seed in SEEDS:
        pool = make_pool(model.spec, GROUPS, seed=seed)
        models = dict.fromkeys(graphs, model)
        reference, eager32 = (eager_results(models, graphs, pool, kind) for kind in (torch.float64, torch.float32))
        for (graph, level, threads), session in sessions.items():
            found = session.run(None, {value.name: pool.feed[value.name] for value in session.get_inputs()})
            for value, got in zip(session.get_outputs(), found, strict=True):
                allowed = budget(value.name, eager32[graph], reference[graph])
                assert not allowed.objection
                share = figures(value.name, got, reference[graph], allowed)["share"]
                shares[graph, level, threads, seed, value.name] = share
    worst = max(shares, key=lambda key: shares[key])
    print(f"{name}: worst {shares[worst]:.2f} of what is allowed, {worst}")
    assert shares[worst] <= MOST, worst
