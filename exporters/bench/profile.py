"""Where the time goes: onnxruntime's own profile of the ONNX file, node by node, under the names of the model's layers.

Started as `python -m exporters.bench.profile CASE FEED BATCH THREADS`, in a process of its own because a profile costs time.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.bench.case import WHOLE, CannotRun, Case
from exporters.bench.contenders import thread_environment
from exporters.bench.race import Arena

RUNS = 6  # the first is left out
_SUFFIXES = ("_kernel_time", "_nchwc")


@dataclass(frozen=True)
class LayerTime:
    """One node of the graph as onnxruntime ran it."""

    layer: str  # module path in the model
    operator: str
    share: float  # of the time in all nodes
    multiply_adds_share: float  # of the graph's; more time than this means slower than the rest
    product: str = ""  # a convolution's kernel and channels


def profile(arena: Arena, batch: int) -> list[LayerTime]:
    """Return the nodes by time, longest first; raises `CannotRun` where the process fails."""
    command = [sys.executable, "-m", "exporters.bench.profile", str(arena.case), str(arena.feed)]
    done = subprocess.run(
        [*command, str(batch), str(arena.threads)],
        capture_output=True, text=True, env=thread_environment(arena.threads), check=False,
    )  # fmt: skip
    if done.returncode:
        raise CannotRun(f"the profile ended with code {done.returncode}: {done.stderr.strip().rpartition(chr(10))[2]}")
    from exporters.graph.cost import multiply_adds_by_node

    model = Path(Case.read(arena.case).files[WHOLE]).read_bytes()
    return layer_times(model, json.loads(done.stdout), multiply_adds_by_node(model))


def layer_times(model: bytes, durations: Mapping[str, tuple[str, float]], counts: Mapping[str, int]) -> list[LayerTime]:
    """Return the nodes of a profile under their layers' names, longest first.

    Args:
        model: the ONNX file's content, whose nodes say which layer they came from.
        durations: time of each node that ran, with its operator, in any unit.
        counts: multiply-adds by node name.
    """
    import onnx

    loaded = onnx.load_from_string(model).graph
    nodes = list(loaded.node)
    by_name = {node.name: node for node in nodes}
    by_output = {name: node for node in nodes for name in node.output}
    dims = {tensor.name: list(tensor.dims) for tensor in loaded.initializer}
    total, all_counts = sum(time for _, time in durations.values()), sum(counts.values())
    found = []
    for name, (operator, time) in durations.items():
        bare = name
        for suffix in _SUFFIXES:
            bare = bare.removesuffix(suffix)
        node = by_name.get(bare) or by_output.get(bare)
        # A fused node is called after the last of its parts; the weights are the first's.
        while node is not None and "Conv" in operator and node.op_type not in ("Conv", "ConvTranspose"):
            node = by_output.get(node.input[0])
        count = counts.get(node.name, 0) if node is not None and operator in ("FusedConv", node.op_type) else 0
        layer = "layout" if operator.startswith("Reorder") else bare if node is None else _layer(node) or bare
        product = _product(dims.get(node.input[1], [])) if node is not None and node.op_type == "Conv" and count else ""
        found.append(LayerTime(layer, operator, time / total, count / all_counts if all_counts else 0.0, product))
    return sorted(found, key=lambda item: -item.share)


def _product(weights: list[int]) -> str:
    if len(weights) < 3:
        return ""
    return f"{'×'.join(map(str, weights[2:]))}, {weights[1]} → {weights[0]} channels"


def _layer(node: Any) -> str:
    scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "[]")
    return str(["", *ast.literal_eval(scopes)[:-1]][-1])


def main() -> None:
    """Print the time of each node, microseconds, with its operator."""
    import numpy as np

    from ptycho_runtime.engine.opening import open_session
    from ptycho_runtime.engine.options import RunOptions

    case, feed, batch, threads = Case.read(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with np.load(feed, allow_pickle=False) as data:
        inputs = {name: np.ascontiguousarray(data[f"timed.{name}"][:batch]) for name in case.inputs}
    seen: dict[str, list[float]] = {}
    operators: dict[str, str] = {}
    with open_session(case.stored(WHOLE), RunOptions("cpu", batch, threads), profile=True) as session:
        for _ in range(RUNS):
            session.run(inputs)
        for node in session.node_runs():
            operators[node.name] = node.operator
            seen.setdefault(node.name, []).append(node.microseconds)
    print(json.dumps({name: (operators[name], sum(times[1:])) for name, times in seen.items()}))


if __name__ == "__main__":
    main()
