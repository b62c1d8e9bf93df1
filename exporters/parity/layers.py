"""Where an ONNX file diverges: its intermediate tensors beside the eager model's layers, in the order they are computed.

Every node of an exported file says which module it came from, and modules keep the eager network's names. What leaves a
module's nodes is therefore what the eager layer of that name returns.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # its stubs are a package of their own
from torch import Tensor, nn

from exporters.parity.inputs import Pool
from exporters.parity.metrics import budget, figures
from exporters.parity.physics_steps import as_layer, candidates, recorded_steps, step_errors
from exporters.parity.rows import OUTPUT, Divergence, LayerError
from exporters.parity.runners import FAILURES, EagerRunner, NotRunnable, OnnxRunner, Outputs
from ptycho_torch.models.module import PtychoModel

SCOPES = "pkg.torch.onnx.name_scopes"  # node metadata: the modules around a node, outermost first
LAYER = "layer"
NETWORK = "network"  # what the graphs call the eager model's autoencoder
ENTRY = f"{NETWORK} input"
_ENDS: tuple[type[Exception], ...] = (NotRunnable, DecodeError, *FAILURES)


def bisect_graph(
    model: PtychoModel, graph: str, data: bytes, pool: Pool, groups: int, device: str = "cpu"
) -> Divergence:
    """Return the error of every layer that the file and the eager model have in common.

    Args:
        model: the eager float32 model on the CPU.
        graph: `diffraction_to_obj` or `autoencoder`.
        data: the ONNX file.
        pool: inputs; holds those of the graph alone.
        groups: how many of its groups are run.
        device: where the file is run.
    """
    found = Divergence(graph, device)
    feed = pool.slice(0, groups)
    try:
        double, single = EagerRunner(model, graph, dtype=torch.float64), EagerRunner(model, graph)
        with recorded_steps(double.model) as steps:
            reference, references = record_layers(double, feed)
        with recorded_steps(single.model) as steps32:
            eager32, eagers32 = record_layers(single, feed)
        exported = onnx.load_from_string(data)
        counts = {path: len(values) for path, values in references.items()}
        matches = match_layers(exported, counts, aliases(model.model.autoencoder))
        physics = candidates(exported, scopes) if steps else []
        with OnnxRunner(
            with_outputs(exported, [*(tensor for _, _, tensor in matches), *physics]), device, whole=True
        ) as runner:
            results = runner.run(feed)
    except _ENDS as error:
        found.reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return found
    sources = nearest_sources(exported, {*(tensor for _, _, tensor in matches), *reference})
    relative: dict[str, float] = {}
    names = aliases(model.model.autoencoder)
    trials = []
    for path, call, tensor in matches:
        first_name = names.get(path, path)
        trials.append((path, tensor, references[first_name][call], eagers32[first_name][call]))
    behind = len(trials)
    trials += [(f"{OUTPUT} {name}", name, reference[name], eager32[name]) for name in reference]
    for number, (path, tensor, wanted, eager) in enumerate(trials):
        if number == behind:
            errors = step_errors(steps, steps32, results, physics)
            found.layers += [as_layer(step, value, worst, 0.0) for step, value, worst in errors]
        got = results.get(tensor)
        if got is None or got.shape != wanted.shape:
            continue  # the lowered layer keeps its result in another form
        if path.startswith(OUTPUT):
            worst = figures(tensor, got, reference, budget(tensor, eager32, reference))
        else:
            # A layer may be as coarse as it is: what that does to the outputs is what counts.
            worst = figures(LAYER, got, {LAYER: wanted}, budget(LAYER, {LAYER: eager}, {LAYER: wanted}, np.inf))
        rel_l2 = worst["rel_l2"]
        before = max((relative.get(source, 0.0) for source in sources[tensor]), default=0.0)
        growth = rel_l2 / before if before > 0.0 else 0.0
        found.layers.append(
            LayerError(
                path, tensor, rel_l2, worst["allowed_rel_l2"], worst["max_abs"], worst["allowed_max_abs"], growth
            )
        )
        relative[tensor] = rel_l2
    if all(layer.is_output for layer in found.layers):
        found.reason = "the file's nodes do not say which layer they belong to"
    return found


def record_layers(runner: EagerRunner, feed: Mapping[str, np.ndarray]) -> tuple[Outputs, dict[str, list[np.ndarray]]]:
    """Run the eager model; return its outputs, and by layer what each call returned (the network's own input too)."""
    results: dict[str, list[np.ndarray]] = defaultdict(list)
    network: nn.Module = runner.model.model.autoencoder

    def keep(path: str, value: object) -> None:
        results[path] += [tensor.detach().cpu().numpy().copy() for tensor in _tensors(value)]

    handles = [network.register_forward_pre_hook(lambda _, inputs: keep(ENTRY, inputs[0]))]
    for name, module in network.named_modules():
        path = f"{NETWORK}.{name}" if name else NETWORK
        handles.append(module.register_forward_hook(lambda _, __, value, path=path: keep(path, value)))
    try:
        outputs = runner.run(feed)
    finally:
        for handle in handles:
            handle.remove()
    return outputs, dict(results)


def aliases(network: nn.Module) -> dict[str, str]:
    """Return for every path of a module under which it is not known first the one under which it is: layers may be shared."""
    first = {id(module): name for name, module in network.named_modules()}
    every = network.named_modules(remove_duplicate=False)
    paths = ((name, first[id(module)]) for name, module in every)
    return {f"{NETWORK}.{name}": f"{NETWORK}.{known}" for name, known in paths if name != known}


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def match_layers(
    model: onnx.ModelProto, calls: Mapping[str, int], shared: Mapping[str, str] | None = None, *, every: bool = False
) -> list[tuple[str, int, str]]:
    """Return (layer, which of its results, ONNX value), in the order in which the file computes them.

    Args:
        model: an exported file.
        calls: eager layers, and how many tensors each returned in one run of the model.
        shared: other paths of layers that stand in several places, with the path under which `calls` has them.
        every: name layers that end with another's result too.

    A layer whose nodes hand out another number of tensors is left to the layers around it.
    """
    leaving, entering = crossings(model)
    found: list[tuple[tuple[int, int], str, int, str]] = []
    if len({value for _, value in entering}) == 1:
        found.append(((entering[0][0], 99), ENTRY, 0, entering[0][1]))
    together: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
    for path, values in leaving.items():
        together[(shared or {}).get(path, path)] += [(position, value, path) for position, value in values]
    for first_path, uses in together.items():
        if calls.get(first_path) == len(uses):
            # At one node, the innermost layer is named first. A shared layer's calls come in the order of its uses.
            found += [
                ((position, -path.count(".")), path, call, value)
                for call, (position, value, path) in enumerate(sorted(uses))
            ]
    # The network's input comes before its first node.
    found.sort(key=lambda item: (item[0][0] - (item[1] == ENTRY), item[0][1]))
    seen: set[str] = set()
    unique = []
    for _, path, call, value in found:
        if every or value not in seen:  # a layer that ends with another's result adds nothing
            seen.add(value)
            unique.append((path, call, value))
    return unique


def leaving_values(model: onnx.ModelProto, path: str) -> list[str]:
    """Return the values that a module's nodes hand out, in the order in which they are computed."""
    return list(dict.fromkeys(value for _, value in crossings(model)[0].get(path, [])))


Crossing = tuple[int, str]  # position of the node, value


def crossings(model: onnx.ModelProto) -> tuple[dict[str, list[Crossing]], list[Crossing]]:
    """Return the values that leave each module, and those that enter the network."""
    nodes = [(node, scopes(node)) for node in model.graph.node]
    consumers: dict[str, list[frozenset[str]]] = defaultdict(list)
    for node, inside in nodes:
        for value in node.input:
            consumers[value].append(inside)
    for output in model.graph.output:
        consumers[output.name].append(frozenset())
    leaving: dict[str, list[tuple[int, str]]] = defaultdict(list)
    entering: list[tuple[int, str]] = []
    produced = {value.name: frozenset[str]() for value in model.graph.input}
    for position, (node, inside) in enumerate(nodes):
        for value in node.input:
            if NETWORK in inside and value in produced and NETWORK not in produced[value]:
                entering.append((position, value))
        for value in node.output:
            produced[value] = inside
            for path in inside:
                if any(path not in user for user in consumers[value]):
                    leaving[path].append((position, value))
    return leaving, entering


def nearest_sources(model: onnx.ModelProto, tensors: Collection[str]) -> dict[str, set[str]]:
    """Return for each of the tensors the others that it is computed from with none of them in between."""
    sources: dict[str, set[str]] = {}
    for node in model.graph.node:  # each after those whose results it takes
        found: set[str] = set()
        for value in node.input:
            found |= {value} if value in tensors else sources.get(value, set())
        sources |= dict.fromkeys(node.output, found)
    return {tensor: sources.get(tensor, set()) for tensor in tensors}


def scopes(node: onnx.NodeProto) -> frozenset[str]:
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            try:
                names = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError):
                return frozenset()
            # The last one is the node's own name.
            return frozenset(str(name) for name in names[:-1] if name) if isinstance(names, list) else frozenset()
    return frozenset()


def with_outputs(model: onnx.ModelProto, tensors: Iterable[str]) -> bytes:
    """Return the file with intermediate tensors among its outputs."""
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    present = {value.name for value in wider.graph.output}
    for tensor in tensors:
        if tensor not in present:
            present.add(tensor)
            wider.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return bytes(wider.SerializeToString())
