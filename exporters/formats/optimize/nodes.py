"""What rewrites of an ONNX graph need: constants, attributes, and putting nodes in another's place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return a value's constant, or None where it has none."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def ints(node: ir.Node, name: str, default: Sequence[int]) -> tuple[int, ...]:
    """Return an attribute of whole numbers."""
    found = node.attributes.get(name)
    return tuple(default) if found is None else tuple(found.as_ints())


def text(node: ir.Node, name: str, default: str) -> str:
    """Return a text attribute."""
    found = node.attributes.get(name)
    return default if found is None else found.as_string()


def is_plain_convolution(node: ir.Node, kernel_px: int, pad_px: int) -> bool:
    """Say whether a node is a convolution with a square kernel and the same padding all round, ungrouped, stride 1, not dilated."""
    if node.op_type != "Conv" or node.domain:
        return False
    return (
        ints(node, "kernel_shape", ()) == (kernel_px, kernel_px)
        and ints(node, "pads", (0, 0, 0, 0)) == (pad_px,) * 4
        and ints(node, "strides", (1, 1)) == (1, 1)
        and ints(node, "dilations", (1, 1)) == (1, 1)
        and text(node, "auto_pad", "NOTSET") == "NOTSET"
        and node.attributes.get_int("group", 1) == 1
    )


def new_node(
    like: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], **attributes: int | str | Sequence[int]
) -> ir.Node:
    """Return a node that stands where `like` stood: its metadata says the same layer, by which parity's bisection goes."""
    made = ir.node(op_type, list(inputs), attributes=dict(attributes))
    made.metadata_props.update(like.metadata_props)
    output = made.outputs[0]
    output.name, output.dtype = f"{like.outputs[0].name}_{op_type.lower()}", ir.DataType.FLOAT
    made.name = output.name
    return made


def add_initializer(graph: ir.Graph, name: str, values: np.ndarray) -> ir.Value:
    """Add a constant to a graph, or return the one of that name and content."""
    held = graph.initializers.get(name)
    if held is not None:
        return held
    made = ir.Value(name=name, const_value=ir.tensor(np.array(values, order="C"), name=name))
    made.shape, made.dtype = ir.Shape(values.shape), ir.DataType.from_numpy(values.dtype)
    graph.register_initializer(made)
    return made


def replace_initializer(graph: ir.Graph, old: ir.Value, values: np.ndarray) -> ir.Value:
    """Return a weight in another form under the name of the old one where nothing else uses that."""
    assert old.name is not None
    if len(old.uses()) > 1:
        return add_initializer(graph, f"{old.name}_rewritten", values)
    old.const_value = ir.tensor(np.array(values, order="C"), name=old.name)
    old.shape = ir.Shape(values.shape)
    return old


def replace_node(graph: ir.Graph, node: ir.Node, chain: Sequence[ir.Node]) -> None:
    """Put a chain of nodes in a node's place; its last output takes over the name, shape and uses of the node's."""
    old, new = node.outputs[0], chain[-1].outputs[0]
    name = old.name
    new.shape, new.type = old.shape, old.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], list(chain), [old], [new])
    new.name = name
