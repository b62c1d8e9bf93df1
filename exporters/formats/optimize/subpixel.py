"""Convolutions of a doubled image, computed before it is doubled.

After nearest-neighbour doubling the 3×3 window of a pixel covers only 2×2 different pixels, another combination for each of
the four places in a block. So one 2×2 convolution with four times the outputs computes all of them on the small image:
16 multiply-adds in place of 36, and `DepthToSpace` puts the four beside each other (sub-pixel convolution, Shi et al. 2016).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from exporters.formats.optimize.nodes import (
    add_initializer,
    constant,
    is_plain_convolution,
    new_node,
    replace_initializer,
    replace_node,
    text,
)

# With more outputs than this, putting pixels side by side costs onnxruntime more than the multiply-adds that are saved.
MAX_OUTPUTS = 16
# Weights of a window's three rows that fall on the first and second row of the small image. A block of the output of
# `DepthToSpace` straddles two pixels of the small image: the second half of one, then the first half of the next.
_ROWS = np.array([[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]], np.float64)


def rewrite_upsampling(graph: ir.Graph) -> int:
    """Rewrite every 3×3 convolution of a doubled image that has few outputs; return how many there were."""
    count = 0
    for node in tuple(graph):
        pad_px = next((pad for pad in (0, 1) if is_plain_convolution(node, 3, pad)), None)
        if pad_px is None:
            continue
        weights, bias = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
        if weights is None or len(weights) > MAX_OUTPUTS:
            continue
        found = _before_doubling(graph, node, weights)
        if found is None:
            continue
        _rewrite(graph, node, *found, bias, pad_px)
        count += 1
    return count


def subpixel_weights(weights: np.ndarray) -> np.ndarray:
    """Return the weights (4·out, in, 2, 2) that stand for `weights` (out, in, 3, 3) on the doubled image.

    Channels are in the order that `DepthToSpace` takes: row of the block, column of the block, output. Sums are of float64,
    rounded once to the type of `weights`.
    """
    outputs, inputs = weights.shape[:2]
    summed = np.einsum("apk,bql,oikl->aboipq", _ROWS, _ROWS, weights.astype(np.float64))
    found: np.ndarray = summed.reshape(4 * outputs, inputs, 2, 2).astype(weights.dtype)
    return found


def _rewrite(
    graph: ir.Graph, node: ir.Node, small: ir.Value, weights: np.ndarray, bias: np.ndarray | None, pad_px: int
) -> None:
    weight, offset = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    assert weight is not None
    inputs = [small, replace_initializer(graph, weight, subpixel_weights(weights))]
    if offset is not None and bias is not None:
        inputs.append(replace_initializer(graph, offset, np.tile(bias, 4)))
    chain = [new_node(node, "Conv", inputs, kernel_shape=(2, 2), pads=(pad_px,) * 4)]
    chain.append(new_node(node, "DepthToSpace", chain[0].outputs, blocksize=2, mode="DCR"))
    if pad_px:
        # Padded by a pixel all round, the small image has one window more than pixels: a row and column too many on each side.
        first, last = (
            add_initializer(graph, name, np.array([v, v])) for name, v in (("one_px", 1), ("minus_one_px", -1))
        )
        axes = add_initializer(graph, "image_axes", np.array([2, 3]))
        chain.append(new_node(node, "Slice", [chain[1].outputs[0], first, last, axes]))
    replace_node(graph, node, chain)


def _before_doubling(graph: ir.Graph, node: ir.Node, weights: np.ndarray) -> tuple[ir.Value, np.ndarray] | None:
    """Return (what was doubled to give a convolution's input, the weights over its channels); None where nothing was doubled.

    Where the convolution reads most of its channels, the others get weights of zero: leaving them out costs more.
    """
    given = node.inputs[0]
    producer = None if given is None else given.producer()
    if producer is None:
        return None
    if producer.op_type != "Slice":
        whole = _doubled(producer)
        return None if whole is None else (whole, weights)
    starts, axes = (constant(producer.inputs[i]) if len(producer.inputs) > 3 else None for i in (1, 3))
    inner = None if producer.inputs[0] is None else producer.inputs[0].producer()
    small = None if inner is None else _doubled(inner)
    if small is None or starts is None or axes is None or axes.tolist() != [1]:
        return None
    channels = small.shape[1] if small.shape is not None else None
    read = weights.shape[1]
    if isinstance(channels, int) and 2 * read > channels and 0 <= starts[0] <= channels - read:
        wide = np.zeros((len(weights), channels, *weights.shape[2:]), weights.dtype)
        wide[:, starts[0] : starts[0] + read] = weights
        return small, wide
    # Channels are cut from the small image as well as from the doubled one.
    cut = new_node(producer, "Slice", [small, *producer.inputs[1:]])
    graph.insert_before(producer, cut)
    return cut.outputs[0], weights


def _doubled(node: ir.Node) -> ir.Value | None:
    """Return the input of a nearest-neighbour doubling of rows and columns; None where a node is something else."""
    scales = constant(node.inputs[2]) if node.op_type == "Resize" and len(node.inputs) > 2 else None
    if scales is None or scales.tolist() != [1.0, 1.0, 2.0, 2.0]:
        return None
    ways = {
        "mode": ("nearest", "nearest"),
        "coordinate_transformation_mode": ("half_pixel", "asymmetric"),
        "nearest_mode": ("round_prefer_floor", "floor"),
    }
    if any(text(node, name, default) != wanted for name, (default, wanted) in ways.items()):
        return None
    return node.inputs[0]
