"""Rewrites of the ONNX graph change what is computed how, never what comes out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from sample_bundles import each, members

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters import ExportResult  # noqa: E402
from exporters.formats.optimize import optimize  # noqa: E402
from exporters.formats.optimize.pixel_blocks import BLOCK_PX, block_weights  # noqa: E402
from exporters.formats.optimize.subpixel import MAX_OUTPUTS, subpixel_weights  # noqa: E402
from ptycho_runtime import contract  # noqa: E402

DOUBLED = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def random_weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def whole_numbers(*shape: int, seed: int) -> np.ndarray:
    """Return float64 values whose products add up exactly in any order."""
    return np.random.default_rng(seed).integers(-1000, 1000, shape, endpoint=True).astype(np.float64)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_subpixel_weights_stand_for_doubling_and_convolving(outputs: int, inputs: int, size_px: int, seed: int) -> None:
    weights = torch.from_numpy(whole_numbers(outputs, inputs, 3, 3, seed=seed))
    image = torch.from_numpy(whole_numbers(2, inputs, size_px, size_px, seed=seed + 1))
    doubled = torch.nn.functional.interpolate(image, scale_factor=2.0, mode="nearest")
    wanted = torch.nn.functional.conv2d(doubled, weights, padding=1)
    small = torch.nn.functional.conv2d(image, torch.from_numpy(subpixel_weights(weights.numpy())), padding=1)
    # DepthToSpace in DCR order: row and column of the block are the slowest parts of the channel.
    blocks = small.reshape(2, 2, 2, outputs, size_px + 1, size_px + 1).permute(0, 3, 4, 1, 5, 2)
    found = blocks.reshape(2, outputs, 2 * size_px + 2, 2 * size_px + 2)[..., 1:-1, 1:-1]
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-13)


@given(st.integers(1, 3), st.sampled_from((5, 7, 9, 11)), st.integers(1, 4), st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_block_weights_stand_for_a_wide_kernel(inputs: int, kernel: int, blocks: int, seed: int) -> None:
    size_px = BLOCK_PX * blocks
    weights = torch.from_numpy(whole_numbers(1, inputs, kernel, kernel, seed=seed))
    image = torch.from_numpy(whole_numbers(2, inputs, size_px, size_px, seed=seed + 1))
    wanted = torch.nn.functional.conv2d(image, weights, padding=kernel // 2)
    wide = torch.from_numpy(block_weights(weights.numpy(), BLOCK_PX))
    deep = image.reshape(2, inputs, blocks, BLOCK_PX, blocks, BLOCK_PX).permute(0, 3, 5, 1, 2, 4)
    deep = deep.reshape(2, BLOCK_PX**2 * inputs, blocks, blocks)
    found = torch.nn.functional.conv2d(deep, wide, padding=wide.shape[-1] // 2)
    found = found.reshape(2, BLOCK_PX, BLOCK_PX, blocks, blocks).permute(0, 3, 1, 4, 2).reshape(wanted.shape)
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-13)


def model_of(*nodes: onnx.NodeProto, size_px: int = 8, **weights: np.ndarray) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 4, size_px, size_px])]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
    graph = helper.make_graph(list(nodes), "test", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def rewritten(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = ir.from_proto(model)
    optimize(changed)
    found = ir.to_proto(changed)
    onnx.checker.check_model(found, full_check=True)
    return found


def run(model: onnx.ModelProto, size_px: int = 8) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = random_weights(3, 4, size_px, size_px).astype(np.float32)
    return np.asarray(session.run(None, {"x": image})[0])


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def convolution_of_doubled(outputs: int, channels: int = 3, **ways: str) -> onnx.ModelProto:
    return model_of(
        helper.make_node("Resize", ["x", "", "scales"], ["doubled"], **{**DOUBLED, **ways}),
        helper.make_node("Slice", ["doubled", "start", "stop", "axes"], ["some"]),
        helper.make_node("Conv", ["some", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["c"], ["y"]),
        scales=np.array([1, 1, 2, 2], np.float32), start=np.array([1]), stop=np.array([1 + channels]), axes=np.array([1]),
        w=random_weights(outputs, channels, 3, 3).astype(np.float32), b=random_weights(outputs).astype(np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("outputs", [1, 4, MAX_OUTPUTS])
def test_few_outputs_of_a_doubled_image_are_computed_before_doubling(outputs: int) -> None:
    model = convolution_of_doubled(outputs)
    found = rewritten(model)
    assert operators(found) == ["Conv", "DepthToSpace", "Slice", "Tanh"]
    np.testing.assert_allclose(run(found), run(model), rtol=0, atol=1e-5)


def test_few_channels_of_a_doubled_image_are_cut_before_doubling() -> None:
    model = convolution_of_doubled(1, channels=2)
    found = rewritten(model)
    assert operators(found) == ["Slice", "Conv", "DepthToSpace", "Slice", "Tanh"]
    np.testing.assert_allclose(run(found), run(model), rtol=0, atol=1e-5)


def test_many_outputs_of_a_doubled_image_are_left_alone() -> None:
    model = convolution_of_doubled(MAX_OUTPUTS + 1)
    assert operators(rewritten(model)) == operators(model)


@pytest.mark.parametrize(
    "ways", [{"coordinate_transformation_mode": "half_pixel"}, {"nearest_mode": "ceil"}, {"mode": "linear"}]
)
def test_another_kind_of_resizing_is_left_alone(ways: dict[str, str]) -> None:
    model = convolution_of_doubled(1, **ways)
    assert operators(rewritten(model)) == operators(model)


def test_a_doubled_image_that_others_read_too_stays() -> None:
    model = model_of(
        helper.make_node("Resize", ["x", "", "scales"], ["doubled"], **DOUBLED),
        helper.make_node("Conv", ["doubled", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "doubled"], ["y"]),
        scales=np.array([1, 1, 2, 2], np.float32), w=random_weights(4, 4, 3, 3).astype(np.float32),
    )  # fmt: skip
    found = rewritten(model)
    assert operators(found) == ["Resize", "Conv", "DepthToSpace", "Slice", "Add"]
    np.testing.assert_allclose(run(found), run(model), rtol=0, atol=1e-5)


def wide_kernel(outputs: int, size_px: int) -> onnx.ModelProto:
    return model_of(
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[7, 7], pads=[3, 3, 3, 3]),
        helper.make_node("Tanh", ["c"], ["y"]),
        size_px=size_px, w=random_weights(outputs, 4, 7, 7).astype(np.float32) * 0.05,
    )  # fmt: skip


def test_wide_kernel_with_one_output_is_computed_on_blocks() -> None:
    model = wide_kernel(1, 8)
    found = rewritten(model)
    assert operators(found) == ["SpaceToDepth", "Conv", "DepthToSpace", "Tanh"]
    np.testing.assert_allclose(run(found), run(model), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("outputs", "size_px"), [(2, 8), (1, 10)])
def test_wide_kernel_that_does_not_fit_blocks_is_left_alone(outputs: int, size_px: int) -> None:
    model = wide_kernel(outputs, size_px)
    assert operators(rewritten(model)) == operators(model)


def test_sigmoids_are_as_accurate_as_float32_allows() -> None:
    model = model_of(
        helper.make_node("Mul", ["x", "wide"], ["z"]), helper.make_node("Sigmoid", ["z"], ["y"]), wide=np.float32(10.0)
    )
    found = rewritten(model)
    assert operators(found) == ["Mul", "Neg", "Exp", "Add", "Reciprocal"]
    given = np.float32(10.0) * random_weights(3, 4, 8, 8).astype(np.float32)
    exact = 1.0 / (1.0 + np.exp(-given.astype(np.float64)))
    worst = [float(np.abs(run(one) / exact - 1.0).max()) for one in (model, found)]
    assert worst[1] < 2.0**-22 < worst[0]


def test_sigmoid_of_what_overflows_is_zero_or_one() -> None:
    model = model_of(
        helper.make_node("Mul", ["x", "wide"], ["z"]), helper.make_node("Sigmoid", ["z"], ["y"]), wide=np.float32(1e30)
    )
    assert set(np.unique(run(rewritten(model)))) == {0.0, 1.0}


def test_export_rounds_no_worse_than_eager(exported: Callable[[str], ExportResult]) -> None:
    result = exported("cnn-2026-07-n64-g1-demo")
    eager, onnx_ = (
        next(
            row.outputs[contract.OBJECT_IMAG]["rel_l2"]
            for row in result.report.rows
            if row.graph == "diffraction_to_obj" and row.runtime == runtime and row.batch == 5
        )
        for runtime in ("eager", "onnx")
    )
    assert onnx_ < 2.0 * eager


@pytest.mark.parametrize("name", each(["cnn-2025-11-n64-g2", "cnn-2026-07-n64-g1-demo"]))
def test_exported_heads_work_on_the_small_image_and_the_encoder_runs_once(
    name: str, exported: Callable[[str], ExportResult]
) -> None:
    graph = onnx.load_from_string(members(exported(name).bundle)[contract.onnx_member("diffraction_to_obj")]).graph
    sources = {output: node for node in graph.node for output in node.output}
    doubled = [sources[n.input[0]].op_type for n in graph.node if n.op_type == "Conv" and n.input[0] in sources]
    # One in each decoder has too many outputs.
    assert doubled.count("Resize") == 2
    weights = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    assert len(weights) == len(set(weights))
    assert sum(weight.startswith("network.encoder.blocks.") and "attention" not in weight for weight in weights) == 6
