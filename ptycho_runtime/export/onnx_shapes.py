"""What size each operator's results have, by the ONNX specification (operator sets 18 to 22), from the sizes of what it is given.

The operators are those that this project's graphs are made of, before and after their rewrites and in reduced precision, and
close relatives. None of them branches, loops, draws random numbers, or has a size that the graph computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from ptycho_runtime.export.onnx_nodes import Given, Node, Shape, ShapeError, one_axis

MAX_AXES = 8
_FARTHEST = 1 << 62  # what exporters write for "to the end"


def result_shapes(node: Node, given: Given) -> tuple[Shape, ...]:
    """Return the size of each of a node's results.

    Raises:
        ShapeError: the sizes of its inputs do not fit each other, a size is no constant of the file, or a result is empty.
    """
    shapes = RULES[node.kind](node, given)
    if len(shapes) != len(node.outputs) or not all(node.outputs):
        raise ShapeError(f"has {len(node.outputs)} results")
    for shape in shapes:
        if len(shape) > MAX_AXES or any(side < 1 for side in shape):
            raise ShapeError(f"gives something of the size {list(shape)[:MAX_AXES]}")
    return shapes


def work(node: Node, given: Given, shapes: Sequence[Shape]) -> int:
    """Return how many multiplications, or values looked at, a node is at least."""
    values = sum(map(math.prod, (*(shape for shape in given.shapes if shape is not None), *shapes)))
    first, result = given.shapes[0] if given.shapes else (), shapes[0]
    if node.kind == "Conv":
        return values + math.prod(result) * math.prod(given[1][1:])
    if node.kind == "ConvTranspose":
        return values + math.prod(given[0]) * math.prod(given[1][1:])
    if node.kind == "Gemm":
        return values + math.prod(result) * given[0][0 if node.whole("transA", 0) else 1]
    if node.kind == "MatMul" and first:
        return values + math.prod(result) * first[-1]
    if node.kind in ("MaxPool", "AveragePool"):
        return values + math.prod(result) * math.prod(node.wholes("kernel_shape", given[0][2:]))
    return values


def _fail(why: str) -> NoReturn:
    raise ShapeError(why)


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    rank = max(map(len, shapes))
    result = []
    for sides in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        larger = {side for side in sides if side != 1}
        if len(larger) > 1:
            _fail(f"takes the sizes {', '.join(str(list(shape)) for shape in shapes[:3])}, which do not fit each other")
        result.append(larger.pop() if larger else 1)
    return tuple(result)


def _same(node: Node, given: Given) -> tuple[Shape, ...]:
    return (given[0],)


def _together(node: Node, given: Given) -> tuple[Shape, ...]:
    return (_broadcast(given.all()),)


def _conv(node: Node, given: Given) -> tuple[Shape, ...]:
    data, weights = given[0], given[1]
    groups = node.whole("group", 1)
    if len(data) < 3 or len(weights) != len(data) or groups < 1 or weights[0] % groups:
        _fail(f"takes {list(data)} and weights of {list(weights)}")
    if data[1] != weights[1] * groups:
        _fail(f"takes {data[1]} channels with weights for {weights[1] * groups}")
    if node.wholes("kernel_shape", weights[2:]) != weights[2:]:
        _fail("has another kernel_shape than its weights")
    return (data[0], weights[0], *_windows(node, data[2:], weights[2:])),  # fmt: skip


def _windows(node: Node, sides: Shape, kernel: Shape, *, ceil: bool = False) -> Shape:
    """Return how many places a kernel has."""
    node.only("auto_pad", "NOTSET")
    axes = len(sides)
    pads = node.wholes("pads", (0,) * 2 * axes)
    strides, dilations = node.wholes("strides", (1,) * axes), node.wholes("dilations", (1,) * axes)
    if min(pads) < 0 or min((*kernel, *strides, *dilations)) < 1:
        _fail("has pads, strides or dilations that are no sizes")
    result = []
    for at, side in enumerate(sides):
        room = side + pads[at] + pads[axes + at] - dilations[at] * (kernel[at] - 1) - 1
        if room < 0:
            _fail(f"has a kernel that is larger than its {side} px")
        result.append((-(-room // strides[at]) if ceil else room // strides[at]) + 1)
    return tuple(result)


def _conv_transpose(node: Node, given: Given) -> tuple[Shape, ...]:
    data, weights = given[0], given[1]
    axes, groups = len(data) - 2, node.whole("group", 1)
    node.only("auto_pad", "NOTSET")
    if axes < 1 or len(weights) != len(data) or groups < 1 or data[1] != weights[0] or weights[0] % groups:
        _fail(f"takes {list(data)} and weights of {list(weights)}")
    if "output_shape" in node.attributes or node.wholes("kernel_shape", weights[2:]) != weights[2:]:
        _fail("has another size than its weights give")
    pads, more = node.wholes("pads", (0,) * 2 * axes), node.wholes("output_padding", (0,) * axes)
    strides, dilations = node.wholes("strides", (1,) * axes), node.wholes("dilations", (1,) * axes)
    if min((*pads, *more)) < 0 or min((*strides, *dilations)) < 1:
        _fail("has pads, strides or dilations that are no sizes")
    sides = [
        strides[at] * (side - 1) + more[at] + dilations[at] * (weights[2 + at] - 1) + 1 - pads[at] - pads[axes + at]
        for at, side in enumerate(data[2:])
    ]
    return ((data[0], weights[1] * groups, *sides),)


def _pool(node: Node, given: Given) -> tuple[Shape, ...]:
    data = given[0]
    node.only("ceil_mode", 0, 1)
    if len(data) < 3 or "kernel_shape" not in node.attributes:
        _fail(f"takes {list(data)} or lacks its kernel_shape")
    kernel = node.wholes("kernel_shape", data[2:])
    return ((*data[:2], *_windows(node, data[2:], kernel, ceil=node.whole("ceil_mode", 0) == 1)),)


def _global_pool(node: Node, given: Given) -> tuple[Shape, ...]:
    return ((*given[0][:2], *(1 for _ in given[0][2:])),)


def _concat(node: Node, given: Given) -> tuple[Shape, ...]:
    shapes = given.all()
    axis = one_axis(node.whole("axis", _FARTHEST), len(shapes[0]))
    if len({(*shape[:axis], -1, *shape[axis + 1 :]) for shape in shapes}) != 1 or {*map(len, shapes)} != {
        len(shapes[0])
    }:
        _fail(f"takes the sizes {', '.join(str(list(shape)) for shape in shapes[:3])}, which do not fit each other")
    return ((*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :]),)


def _flatten(node: Node, given: Given) -> tuple[Shape, ...]:
    data = given[0]
    axis = node.whole("axis", 1)
    if not -len(data) <= axis <= len(data):
        _fail(f"has the axis {axis} of {len(data)}")
    axis = axis % len(data) if axis < 0 else axis
    return ((math.prod(data[:axis]), math.prod(data[axis:])),)


def _gather(node: Node, given: Given) -> tuple[Shape, ...]:
    data = given[0]
    axis = one_axis(node.whole("axis", 0), len(data))
    return ((*data[:axis], *given[1], *data[axis + 1 :]),)


def _gather_nd(node: Node, given: Given) -> tuple[Shape, ...]:
    data, indices, same = given[0], given[1], node.whole("batch_dims", 0)
    if not indices or not 0 <= same < min(len(indices), len(data)) or data[:same] != indices[:same]:
        _fail(f"takes {list(data)} and indices of {list(indices)}")
    if same + indices[-1] > len(data):
        _fail(f"has indices of {indices[-1]} axes into {list(data)}")
    return ((*indices[:-1], *data[same + indices[-1] :]),)


def _gemm(node: Node, given: Given) -> tuple[Shape, ...]:
    first, second = given[0], given[1]
    if len(first) != 2 or len(second) != 2:
        _fail(f"takes {list(first)} and {list(second)}")
    first = first[::-1] if node.whole("transA", 0) else first
    second = second[::-1] if node.whole("transB", 0) else second
    result = (first[0], second[1])
    if first[1] != second[0] or (given.has(2) and _broadcast([result, given[2]]) != result):
        _fail(f"takes {list(first)} and {list(second)}, which do not fit each other")
    return (result,)


def _matmul(node: Node, given: Given) -> tuple[Shape, ...]:
    first, second = given[0], given[1]
    if not first or not second:
        _fail("takes a single number")
    rows = first[-2:-1]
    columns = second[-1:] if len(second) > 1 else ()
    inner = second[-2] if len(second) > 1 else second[0]
    if first[-1] != inner:
        _fail(f"takes {list(first)} and {list(second)}, which do not fit each other")
    return ((*_broadcast([first[:-2], second[:-2]]), *rows, *columns),)


def _pad(node: Node, given: Given) -> tuple[Shape, ...]:
    data, pads = given[0], given.wholes(1)
    node.only("mode", "constant", "reflect", "edge", "wrap")
    if given.has(3) or len(pads) != 2 * len(data):
        _fail(f"has {len(pads)} margins for {list(data)}")
    return (tuple(side + pads[at] + pads[len(data) + at] for at, side in enumerate(data)),)


def _reshape(node: Node, given: Given) -> tuple[Shape, ...]:
    data, wanted = given[0], given.wholes(1)
    if not node.whole("allowzero", 0):
        wanted = tuple(data[at] if side == 0 and at < len(data) else side for at, side in enumerate(wanted))
    known = math.prod(side for side in wanted if side != -1)
    if wanted.count(-1) > 1 or known < 1 or math.prod(data) % known:
        _fail(f"takes {list(data)} to {list(wanted)[:MAX_AXES]}")
    result = tuple(math.prod(data) // known if side == -1 else side for side in wanted)
    if math.prod(result) != math.prod(data):
        _fail(f"takes {list(data)} to {list(wanted)[:MAX_AXES]}")
    return (result,)


def _expand(node: Node, given: Given) -> tuple[Shape, ...]:
    return (_broadcast([given[0], given.wholes(1)]),)


def _resize(node: Node, given: Given) -> tuple[Shape, ...]:
    data = given[0]
    node.only("antialias", 0)
    node.only("keep_aspect_ratio_policy", "stretch")
    node.only("coordinate_transformation_mode", "half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    if "axes" in node.attributes or given.has(3) == (given.has(2) and given[2] != (0,)):
        _fail("says its size in none of the ways that exports do")
    if given.has(3):
        result = given.wholes(3)
    else:
        scales = given.numbers(2)
        if not all(0.0 < scale <= _FARTHEST for scale in scales):
            _fail("has a scale that is none")
        result = tuple(math.floor(side * scale) for side, scale in zip(data, scales, strict=False))
        if len(scales) != len(data):
            _fail(f"has {len(scales)} scales for {list(data)}")
    if len(result) != len(data):
        _fail(f"has {len(result)} sizes for {list(data)}")
    return (result,)


def _reduce(node: Node, given: Given) -> tuple[Shape, ...]:
    data = given[0]
    if "axes" in node.attributes:
        _fail("has its axes in an attribute, as operator sets before 18 do")
    axes: Shape = () if node.whole("noop_with_empty_axes", 0) else tuple(range(len(data)))
    if given.has(1) and given[1] != (0,):
        axes = given.axes(1, len(data))
    if node.whole("keepdims", 1):
        return (tuple(1 if at in axes else side for at, side in enumerate(data)),)
    return (tuple(side for at, side in enumerate(data) if at not in axes),)


def _slice(node: Node, given: Given) -> tuple[Shape, ...]:
    result = list(given[0])
    starts, ends = given.wholes(1), given.wholes(2)
    axes = given.axes(3, len(result)) if given.has(3) else tuple(range(len(starts)))
    steps = given.wholes(4) if given.has(4) else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) <= len(result) or 0 in steps:
        _fail(f"cuts {len(starts)} axes of {list(result)}")
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        result[axis] = len(range(*slice(start, end, step).indices(result[axis])))
    return (tuple(result),)


def _split(node: Node, given: Given) -> tuple[Shape, ...]:
    data, count = given[0], len(node.outputs)
    axis = one_axis(node.whole("axis", 0), len(data))
    if given.has(1):
        sides = given.wholes(1)
    else:
        node.only("num_outputs", count)
        side = -(-data[axis] // count)
        sides = (*(side,) * (count - 1), data[axis] - side * (count - 1))
    if sum(sides) != data[axis]:
        _fail(f"splits {data[axis]} into {list(sides)[:MAX_AXES]}")
    return tuple((*data[:axis], side, *data[axis + 1 :]) for side in sides)


def _squeeze(node: Node, given: Given) -> tuple[Shape, ...]:
    axes = given.axes(1, len(given[0]))
    if any(given[0][axis] != 1 for axis in axes):
        _fail(f"drops axes {list(axes)} of {list(given[0])}")
    return (tuple(side for at, side in enumerate(given[0]) if at not in axes),)


def _unsqueeze(node: Node, given: Given) -> tuple[Shape, ...]:
    rank = len(given[0]) + math.prod(given[1])
    if rank > MAX_AXES:
        _fail(f"gives {rank} axes")
    axes, sides = given.axes(1, rank), iter(given[0])
    return (tuple(1 if at in axes else next(sides) for at in range(rank)),)


def _transpose(node: Node, given: Given) -> tuple[Shape, ...]:
    data = given[0]
    order = node.wholes("perm", range(len(data))[::-1])
    if sorted(order) != list(range(len(data))):
        _fail(f"has the order {list(order)[:MAX_AXES]}")
    return (tuple(data[axis] for axis in order),)


def _blocks(node: Node, given: Given) -> tuple[Shape, ...]:
    data, block = given[0], node.whole("blocksize", 0)
    node.only("mode", "DCR", "CRD")
    if len(data) != 4 or block < 1:
        _fail(f"takes {list(data)} in blocks of {block}")
    batch, channels, rows, columns = data
    if node.kind == "DepthToSpace":
        if channels % block**2:
            _fail(f"takes {channels} channels in blocks of {block}")
        return ((batch, channels // block**2, rows * block, columns * block),)
    if rows % block or columns % block:
        _fail(f"takes {rows} x {columns} px in blocks of {block}")
    return ((batch, channels * block**2, rows // block, columns // block),)


Rule = Callable[[Node, Given], tuple[Shape, ...]]
RULES: Mapping[str, Rule] = {
    **dict.fromkeys((
        "Abs", "Atan", "BatchNormalization", "Cast", "CastLike", "Ceil", "Clip", "Cos", "DequantizeLinear", "Erf", "Exp", "Floor", "Gelu",
        "HardSigmoid", "Identity", "InstanceNormalization", "LayerNormalization", "LeakyRelu", "Log", "Neg", "Not", "QuantizeLinear",
        "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Sqrt", "Tan", "Tanh",
    ), _same),
    **dict.fromkeys((
        "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow",
        "Sub", "Sum", "Where",
    ), _together),
    **dict.fromkeys((
        "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
    ), _reduce),
    **dict.fromkeys(("AveragePool", "MaxPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _blocks),
    "Concat": _concat, "Conv": _conv, "ConvTranspose": _conv_transpose, "Expand": _expand, "Flatten": _flatten, "Gather": _gather,
    "GatherND": _gather_nd, "Gemm": _gemm, "MatMul": _matmul, "Pad": _pad, "Reshape": _reshape, "Resize": _resize, "Slice": _slice,
    "Split": _split, "Squeeze": _squeeze, "Transpose": _transpose, "Unsqueeze": _unsqueeze,
}  # fmt: skip
