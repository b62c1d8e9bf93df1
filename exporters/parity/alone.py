"""Each layer of a network by itself, on inputs that ordinary patterns need never bring about.

What a network is fed reaches only some of what its layers can do: units stay silent, a sigmoid never meets its ends, a spectral
filter sees faint high frequencies. Here every layer of a file is cut out and fed numbers of its own: ordinary ones among zeros, and
ones far beyond both ends of every activation. A change of any weight shows, whatever the layers around it do.
"""

from __future__ import annotations

import copy
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # its stubs are a package of their own
from torch import Tensor, nn

from exporters.formats.torchscript_run import StoredTorchScript
from exporters.parity.cuts import cut_out, layer_cuts
from exporters.parity.entry import Entry
from exporters.parity.inputs import Pool
from exporters.parity.layers import (
    ENTRY,
    NETWORK,
    aliases,
    leaving_values,
    match_layers,
    record_layers,
    with_outputs,
)
from exporters.parity.metrics import ALONE, budget, figures
from exporters.parity.reference import one_thread
from exporters.parity.rows import OUTPUT, Divergence, LayerError, ParityRow
from exporters.parity.runners import FAILURES, EagerRunner, NotRunnable, OnnxRunner, Outputs
from exporters.parity.script_values import value_before_first_layer
from ptycho_torch.models.module import PtychoModel

ONNX, SCRIPT = "onnx by layer", "torchscript by layer"
INPUTS = "ordinary among zeros, wide"
GROUPS = 2
_WIDE = 12.0  # where sigmoid, tanh and GELU have reached their ends to a digit of float32
_ENDS = (*FAILURES, DecodeError)


@dataclass(frozen=True)
class Judged:
    """What one layer gives for its inputs, in float64 and in eager float32."""

    feed: np.ndarray
    reference: np.ndarray
    eager32: np.ndarray

    def errors(self, value: np.ndarray, *, cut: bool = False) -> dict[str, float] | None:
        """Return a result's figures; None where it cannot be judged: it has another shape, or eager's own rounding proves nothing.

        Args:
            value: what the file's layer gives.
            cut: it may be the middle of what the eager layer gives, and not only lack the edge of one convolution.
        """
        whole = self.reference.shape
        if value.ndim != len(whole) or value.shape[:2] != whole[:2]:
            return None
        margins = {size - part for size, part in zip(whole[2:], value.shape[2:], strict=True)}
        if not all(margin in (0, 2) or (cut and 0 < margin == size // 2) for margin in margins for size in whole[3:]):
            return None
        reference, eager32 = (middle(whole, value.shape) for whole in (self.reference, self.eager32))
        allowed = budget(ALONE, {ALONE: eager32}, {ALONE: reference})
        return None if allowed.objection else figures(ALONE, value, {ALONE: reference}, allowed)


# layer, its figures or None
Found = tuple[str, dict[str, float] | None]


@dataclass
class Alone:
    """The layers of one eager network, judged once for each shape of input.

    Attributes:
        entry: what the network is fed for pixels of every size.
        results: what files of cut-out layers gave: graphs of one network have the same.
        calls: how many tensors each layer returned in a run of the network.
        shared: other paths of layers that stand in several places, with the first.
    """

    model: PtychoModel
    pool: Pool
    entry: Entry = field(init=False)
    results: dict[bytes, Outputs] = field(default_factory=dict)
    calls: dict[str, int] = field(init=False)
    shared: dict[str, str] = field(init=False)
    _judged: dict[tuple[tuple[str, ...], tuple[int, ...]], Judged | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Run the network once, to know its layers and what they are fed."""
        network = copy.deepcopy(self.model.model.autoencoder).requires_grad_(False)
        self._single = dict(network.named_modules(remove_duplicate=False))
        self._double = dict(copy.deepcopy(network).double().named_modules(remove_duplicate=False))
        self.shared = aliases(network)
        self.entry = Entry.of(self.model, self.pool)
        self.inputs: dict[str, tuple[int, ...]] = {}
        runner = EagerRunner(self.model, "diffraction_to_obj")
        inside = runner.model.model.autoencoder
        handles = [
            module.register_forward_pre_hook(self._note(f"{NETWORK}.{name}"))
            for name, module in inside.named_modules()
            if name
        ]
        _, results = record_layers(runner, self.pool.slice(0, 1))
        for handle in handles:
            handle.remove()
        self.calls = {path: len(values) for path, values in results.items()}

    def _note(self, path: str) -> Callable[[nn.Module, tuple[object, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[object, ...]) -> None:
            if len(inputs) == 1 and isinstance(inputs[0], Tensor):
                self.inputs.setdefault(path, tuple(inputs[0].shape[1:]))

        return hook

    def behind(self, path: str, weights: Iterable[str]) -> tuple[str, ...] | None:
        """Return the layers that nodes of a layer stand for: itself, behind the convolution that it was merged with; None where that is not clear.

        A norm is folded into the convolution before it, and the node is named after the norm and its weights after the convolution.

        Args:
            path: of the layer, as the nodes name it.
            weights: names of the weights that its nodes take.
        """
        modules = (name.rpartition(".")[0] for name in weights)
        foreign = {name for name in modules if name in self.inputs and name != path and not name.startswith(f"{path}.")}
        if not foreign:
            return (path,)
        is_norm = isinstance(self._single.get(path.removeprefix(f"{NETWORK}.")), nn.BatchNorm2d)
        return (foreign.pop(), path) if is_norm and len(foreign) == 1 else None

    def judged(self, *paths: str, shape: tuple[int, ...]) -> Judged | None:
        """Return what a layer does with inputs of a shape; None where it does nothing with them: it takes others, or more than one.

        Args:
            paths: of the layer, as the graphs name it, or of several that follow each other.
            shape: of its input, without the axis of groups.
        """
        first = tuple(self.shared.get(path, path) for path in paths)
        if (first, shape) not in self._judged:
            known = all(path in self.inputs for path in first)
            self._judged[first, shape] = self._judge(first, shape) if known else None
        return self._judged[first, shape]

    def _judge(self, paths: tuple[str, ...], shape: tuple[int, ...]) -> Judged | None:
        feed = inputs_of(paths[0], shape)
        eager = torch.from_numpy(feed)
        wanted = eager.double()
        try:
            with torch.no_grad(), one_thread():
                for name in (path.removeprefix(f"{NETWORK}.") for path in paths):
                    wanted, eager = self._double[name](wanted), self._single[name](eager)
        except (RuntimeError, ValueError):  # a layer of one size only
            return None
        if not isinstance(wanted, Tensor) or len(wanted) != GROUPS:
            return None
        if not bool(torch.isfinite(wanted).all()):
            raise ValueError(f"the eager {paths[-1]} gives values that are not finite")
        return Judged(feed, wanted.numpy(), eager.numpy())


def middle(value: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the middle rows and columns of an array: the graph of the patches' centre cuts inside its network."""
    if value.shape[2:] == tuple(shape[2:]):
        return value
    rows, columns = ((size - part) // 2 for size, part in zip(value.shape[2:], shape[2:], strict=True))
    return np.ascontiguousarray(value[..., rows : rows + shape[2], columns : columns + shape[3]])


def inputs_of(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a layer's inputs, (GROUPS, …) float32: normally distributed ones among zeros, and wide ones."""
    random = np.random.default_rng(zlib.crc32(path.encode()))
    ordinary = random.normal(size=shape) * (random.random(shape) < 0.5)
    return np.stack([ordinary, random.uniform(-_WIDE, _WIDE, shape)]).astype(np.float32)


class Tried(NamedTuple):
    """The layers of one file."""

    row: ParityRow
    """By the worst of them."""
    layers: list[LayerError]

    def divergence(self, failed: ParityRow | None, steps: Iterable[LayerError] = ()) -> Divergence:
        """Return the layers with the outputs of a row that failed: where a file diverges that shows no values inside.

        Args:
            failed: a row of the file as a whole; None where none failed.
            steps: of the physics, which follow the layers.
        """
        found = Divergence(self.row.graph, "cpu", [*self.layers, *steps], self.row.reason, SCRIPT.split()[0])
        outputs = {} if failed is None else failed.outputs
        found.layers += [_layer(f"{OUTPUT} {name}", figures) for name, figures in outputs.items() if "share" in figures]
        return found


def alone_rows(layers: Mapping[str, Alone], artifacts: Mapping[str, Mapping[str, bytes]]) -> list[Tried]:
    """Return for each graph the layers of the ONNX file, and those of the TorchScript file, each by itself.

    Args:
        layers: of the eager networks, by graph.
        artifacts: the exported files by graph and format.
    """
    tried = []
    for graph, files in artifacts.items():
        tried.append(_tried(graph, ONNX, partial(_onnx, layers[graph], files["onnx"])))
        tried.append(_tried(graph, SCRIPT, partial(_script, layers[graph], files["torchscript"])))
    return tried


def _tried(graph: str, runtime: str, found: Callable[[], Iterator[Found]]) -> Tried:
    row = ParityRow(graph, runtime, "cpu", "float32", GROUPS, INPUTS, "passed")
    layers: list[LayerError] = []
    worst = -1.0
    try:
        for path, errors in found():
            if errors is None:
                continue
            layers.append(_layer(path, errors))
            share = errors["share"] if errors["share"] == errors["share"] else float("inf")
            if share > worst:
                worst, row.outputs = share, {path: errors}
    except NotRunnable as error:
        row.verdict, row.reason = "not run", str(error)
        return Tried(row, [])
    except _ENDS as error:
        row.verdict, row.reason = "failed", f"its layers cannot be run ({' '.join(str(error).split())[:160]})"
        return Tried(row, [])
    row.facts = {"layers": len(layers)}
    if not layers:
        row.verdict, row.reason = "failed", "nothing in it says which layer it belongs to"
    elif not worst <= 1.0:
        row.verdict = "failed"
    return Tried(row, layers)


def _layer(path: str, errors: Mapping[str, float]) -> LayerError:
    limits = errors["rel_l2"], errors["allowed_rel_l2"], errors["max_abs"], errors["allowed_max_abs"]
    return LayerError(path, path, *limits, 0.0)


def _onnx(layers: Alone, data: bytes) -> Iterator[Found]:
    model = onnx.load_from_string(data)
    matches = match_layers(model, layers.calls, layers.shared, every=True)
    cuts = layer_cuts(model, matches)
    fed = [value for path, _, value in matches if path == ENTRY]
    entered = _values(model, [*fed, *(cut.entering for cut in cuts)], layers.entry.feed)
    shapes = {name: value.shape[1:] for name, value in entered.items()}
    ends = leaving_values(model, NETWORK)
    tried = []
    for cut in cuts:
        shape, paths = shapes.get(cut.entering), layers.behind(cut.path, cut.weights)
        judged = None if shape is None or paths is None else layers.judged(*paths, shape=shape)
        if judged is not None:
            tried.append((cut, judged))
    if not tried:
        return
    for value in fed:
        yield ENTRY, layers.entry.errors(entered[value])
    file = cut_out(model, {cut: judged.feed.shape for cut, judged in tried})
    if file not in layers.results:
        with OnnxRunner(file, whole=True) as runner:
            feed = {f"{number}.in": judged.feed for number, (_, judged) in enumerate(tried)}
            layers.results[file] = runner.run(feed)
    found = layers.results[file]
    for number, (cut, judged) in enumerate(tried):
        yield cut.path, judged.errors(found[f"{number}.out"], cut=cut.leaving in ends)


def _script(layers: Alone, data: bytes) -> Iterator[Found]:
    if isinstance(data, StoredTorchScript):
        raise NotRunnable(
            "a stored TorchScript file is run in a confined process, which hands out nothing but its outputs"
        )
    file = torch.jit.load(io.BytesIO(data))  # type: ignore[no-untyped-call]
    entry = layers.entry
    fed = value_before_first_layer(data, entry.feed, entry.reference.shape)
    if fed is not None:
        yield ENTRY, entry.errors_at_first_layer(fed)
    for path, module in file.named_modules():
        shape = layers.inputs.get(layers.shared.get(path, path))
        judged = None if shape is None or not hasattr(module, "forward") else layers.judged(path, shape=shape)
        if judged is None:
            continue
        try:
            with torch.no_grad(), one_thread():
                value = module(torch.from_numpy(judged.feed))
        except RuntimeError:  # what the trace handed it beside its input
            continue
        if isinstance(value, Tensor):
            yield path, judged.errors(value.numpy())


def _values(model: onnx.ModelProto, names: Iterable[str], feed: Mapping[str, np.ndarray]) -> Outputs:
    """Return values of a file by name; those that it does not compute are left out."""
    wanted = list(dict.fromkeys(names))
    with OnnxRunner(with_outputs(model, wanted), whole=True) as runner:
        found = runner.run(feed)
    return {name: found[name] for name in wanted if name in found}
