"""The stored files against what PtychoPINN's own eager model computed."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from sample_bundles import NAMES, each, golden, members, relative_l2

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters import ExportResult  # noqa: E402
from ptycho_runtime import contract  # noqa: E402

Exported = Callable[[str], ExportResult]


def feed(name: str) -> dict[str, np.ndarray]:
    """Return a golden's inputs under the contract's names."""
    data = golden(name)
    probe = data["probe"].reshape(-1, *data["probe"].shape[-2:])
    return {
        contract.DIFFRACTION: data["x"],
        contract.INPUT_SCALE: data["input_scale_factor"].reshape(-1, 1, 1, 1),
        contract.POSITIONS: data["positions"],
        contract.PROBE_REAL: np.ascontiguousarray(probe.real),
        contract.PROBE_IMAG: np.ascontiguousarray(probe.imag),
        contract.OUTPUT_SCALE: data["output_scale_factor"].reshape(-1, 1, 1, 1),
    }


def run_onnx(data: bytes, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a model's outputs on the CPU."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, {i.name: inputs[i.name] for i in session.get_inputs()}), strict=True))


def run_torchscript(data: bytes, inputs: dict[str, np.ndarray], model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return a script's outputs; names are the ONNX file's, which has the same signature."""
    module = torch.jit.load(io.BytesIO(data))
    with torch.no_grad():
        found = module(*(torch.from_numpy(inputs[i.name]) for i in model.graph.input))
    return {o.name: t.numpy() for o, t in zip(model.graph.output, found, strict=True)}


# From the end, while another process exports from the beginning for test_cost: neither waits for the other.
@pytest.mark.parametrize("runtime", ["onnx", "torchscript"])
@pytest.mark.parametrize("name", each(NAMES[::-1]))
def test_stored_files_equal_ptychopinn(name: str, runtime: str, exported: Exported) -> None:
    stored, wanted = members(exported(name).bundle), golden(name)
    found: dict[str, np.ndarray] = {}
    for graph in contract.GRAPHS:
        data = stored[contract.onnx_member(graph)]
        if runtime == "torchscript":
            found |= run_torchscript(
                stored[contract.torchscript_member(graph)], feed(name), onnx.load_from_string(data)
            )
        else:
            found |= run_onnx(data, feed(name))
    pairs = {
        "object_patches": found[contract.OBJECT_REAL] + 1j * found[contract.OBJECT_IMAG],
        "pred_diffraction": found[contract.PREDICTED],
        "amp": found[contract.AMPLITUDE],
        "phase": found[contract.PHASE],
    }
    for key, value in pairs.items():
        assert value.shape == wanted[key].shape, key
        assert value.dtype.itemsize == wanted[key].dtype.itemsize, key
        assert relative_l2(value, wanted[key]) <= 1e-5, key


@pytest.mark.parametrize("name", each(["cnn-2026-02-n64-g2", "cnn-2026-07-n64-g2"]))
def test_result_of_a_pattern_does_not_depend_on_its_batch(name: str, exported: Exported) -> None:
    stored, inputs = members(exported(name).bundle), feed(name)
    alone = {k: v if k.startswith("probe") else v[:1] for k, v in inputs.items()}
    for graph in contract.GRAPHS:
        together, single = (run_onnx(stored[contract.onnx_member(graph)], each) for each in (inputs, alone))
        for key, value in single.items():
            assert relative_l2(value, together[key][:1]) <= 1e-6, key


@pytest.mark.parametrize("graph", contract.GRAPHS)
def test_onnx_file_describes_itself(graph: str, exported: Exported) -> None:
    result = exported("cnn-2026-07-n64-g2")
    model = onnx.load_from_string(members(result.bundle)[contract.onnx_member(graph)])
    told = {p.key.removeprefix(contract.META_PREFIX): p.value for p in model.metadata_props}
    assert set(told) == set(contract.META_KEYS)
    assert (told["graph"], told["N"], told["gridsize"], told["generator"]) == (graph, "64", "2", "cnn")
    assert told["data_domain"] == "amplitude"
    assert told["input_scale_formula"].startswith("half_n_over_rms: sqrt((N/2)^2")
    assert len(told["bundle_sha256"]) == 64
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]


@pytest.mark.long
def test_oldest_era_uses_its_own_scale_formula(exported: Exported) -> None:
    model = onnx.load_from_string(
        members(exported("cnn-2025-11-n64-g2").bundle)[contract.onnx_member("diffraction_to_obj")]
    )
    told = {p.key: p.value for p in model.metadata_props}
    assert told["ptycho_export.input_scale_formula"].startswith("n_over_rms: sqrt(N^2")
