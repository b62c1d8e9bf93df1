"""Wide kernels with a single output, computed on blocks of pixels.

CPUs compute 16 outputs of a convolution at a time. A 7×7 kernel with one output (the spatial gate of CBAM) leaves 15 of them
idle; taken in blocks of 4×4 pixels, it is a 3×3 convolution of the blocks with 16 outputs.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from exporters.formats.optimize.nodes import constant, is_plain_convolution, new_node, replace_initializer, replace_node

BLOCK_PX = 4
_KERNELS_PX = (5, 7, 9, 11)  # a 3×3 kernel gains nothing


def rewrite_wide_kernels(graph: ir.Graph) -> int:
    """Rewrite every wide convolution with one output whose image divides into blocks; return how many there were."""
    count = 0
    for node in tuple(graph):
        weights = constant(node.inputs[1]) if any(is_plain_convolution(node, k, k // 2) for k in _KERNELS_PX) else None
        if weights is None or len(weights) > 1 or len(node.inputs) > 2 or not _divides(node.inputs[0]):
            continue
        weight = node.inputs[1]
        assert weight is not None
        blocks = new_node(node, "SpaceToDepth", [node.inputs[0]], blocksize=BLOCK_PX)
        wide = block_weights(weights, BLOCK_PX)
        pad = wide.shape[-1] // 2
        inputs = [blocks.outputs[0], replace_initializer(graph, weight, wide)]
        convolution = new_node(node, "Conv", inputs, kernel_shape=wide.shape[-2:], pads=(pad,) * 4)
        pixels = new_node(node, "DepthToSpace", convolution.outputs, blocksize=BLOCK_PX, mode="DCR")
        replace_node(graph, node, [blocks, convolution, pixels])
        count += 1
    return count


def block_weights(weights: np.ndarray, block: int) -> np.ndarray:
    """Return the weights over blocks of `block` × `block` pixels that stand for `weights` (1, in, k, k), k odd, over pixels.

    Shape (block², block²·in, m, m), m odd; channels in the order of `SpaceToDepth` and `DepthToSpace`: row, column, channel.
    """
    inputs, kernel = weights.shape[1], weights.shape[-1]
    half = kernel // 2
    reach = -(-half // block)
    wide = np.zeros((block, block, block, block, inputs, 2 * reach + 1, 2 * reach + 1), weights.dtype)
    for row in range(block):
        for column in range(block):
            for i in range(kernel):
                for j in range(kernel):
                    (block_row, inside_row), (block_column, inside_column) = (
                        divmod(place, block) for place in (row + i - half, column + j - half)
                    )
                    at = row, column, inside_row, inside_column, slice(None), block_row + reach, block_column + reach
                    wide[at] = weights[0, :, i, j]
    return wide.reshape(block**2, block**2 * inputs, 2 * reach + 1, 2 * reach + 1)


def _divides(value: ir.Value | None) -> bool:
    shape = None if value is None or value.shape is None else value.shape[2:]
    return bool(shape) and all(isinstance(size, int) and size % BLOCK_PX == 0 for size in shape)  # type: ignore[union-attr]
