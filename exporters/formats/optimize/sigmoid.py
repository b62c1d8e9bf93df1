"""Sigmoids written out, because onnxruntime's own is an approximation.

Its kernel on the CPU errs several units in the last place, which a gate passes on to every pixel: half of all rounding errors of
a CNN's exports came from there. 1 / (1 + exp(−x)) is as accurate as float32 allows, and gates are small.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from exporters.formats.optimize.nodes import add_initializer, new_node, replace_node


def write_out_sigmoids(graph: ir.Graph) -> int:
    """Replace every sigmoid by 1 / (1 + exp(−x)); return how many there were."""
    count = 0
    for node in tuple(graph):
        if node.op_type != "Sigmoid" or node.domain:
            continue
        one = add_initializer(graph, "one", np.array(1.0, np.float32))
        chain = [new_node(node, "Neg", node.inputs)]
        for operator in ("Exp", "Add", "Reciprocal"):
            inputs = [*chain[-1].outputs, *([one] if operator == "Add" else [])]
            chain.append(new_node(node, operator, inputs))
        replace_node(graph, node, chain)
        count += 1
    return count
