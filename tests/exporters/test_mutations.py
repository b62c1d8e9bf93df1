"""Sabotage: each way of exporting wrongly must be caught by parity, and the figure says by how much.

The TorchScript file carries the sabotage in most cases (tracing takes a second, exporting to ONNX takes four); both formats are
judged by the same code.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from sample_bundles import ROOT, members
from shared_exports import TINY
from tampering import with_flipped_weight

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters import ExportResult  # noqa: E402
from exporters.formats.torchscript import export_torchscript  # noqa: E402
from exporters.graph.graphs import build_graph, graph_io  # noqa: E402
from exporters.parity import alone  # noqa: E402
from exporters.parity.inputs import make_pool  # noqa: E402
from exporters.parity.matrix import judge_files  # noqa: E402
from exporters.parity.prepare import Prepared, prepare, telling_batches  # noqa: E402
from exporters.parity.report import ParityReport  # noqa: E402
from ptycho_runtime import contract  # noqa: E402
from ptycho_torch import load_torch_bundle  # noqa: E402

# All ways are tried on the trained demo in test-all, some on the smallest network in every run. A barely trained network of that
# size answers its input so weakly that rounding it to bfloat16 changes nothing that float32 could tell. What needs a group of
# patterns is tried on one that has them.
TRAINED, GROUPED = "cnn-2026-07-n64-g1-demo", "cnn-2026-07-n64-g2"
BATCHES = (1, 8)
TABLE = ROOT / "docs" / "mutations.md"
Module = torch.nn.Module
Exported = Callable[[str], ExportResult]


@functools.cache
def eager(exported: Exported, name: str) -> dict[str, Any]:
    """Return a bundle's eager models."""
    return load_torch_bundle(exported(name).bundle)[0]


@functools.cache
def prepared(exported: Exported, graph: str, name: str, batches: tuple[int, ...]) -> Prepared:
    """Return what all files of a graph are judged by."""
    model = eager(exported, name)[graph]
    return prepare({graph: model}, model.spec, telling_batches(batches))


def honest_onnx(exported: Exported, graph: str, name: str) -> bytes:
    return members(exported(name).bundle)[contract.onnx_member(graph)]


def judged(
    exported: Exported, graph: str, name: str, batches: tuple[int, ...] = BATCHES, **changed: bytes
) -> ParityReport:
    stored = members(exported(name).bundle)
    files = {
        "onnx": stored[contract.onnx_member(graph)],
        "torchscript": stored[contract.torchscript_member(graph)],
        **changed,
    }
    return judge_files(prepared(exported, graph, name, batches), {graph: files}, devices=("cpu",))


class Wrapped(Module):
    """A graph with its inputs or outputs tampered with."""

    def __init__(
        self, graph: Module, before: Callable[..., Any] | None = None, after: Callable[..., Any] | None = None
    ) -> None:
        super().__init__()
        self.graph, self.before, self.after = graph, before, after

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.graph(*(self.before(*inputs) if self.before else inputs))
        return tuple(self.after(*outputs)) if self.after else outputs


def on_inputs(change: Callable[..., Any]) -> Callable[[Module], Module]:
    return lambda graph: Wrapped(graph, before=change)


def on_outputs(change: Callable[..., Any]) -> Callable[[Module], Module]:
    return lambda graph: Wrapped(graph, after=change)


def replace_layers(kind: type[Module], make: Callable[[Module], Module], count: int = 1) -> Callable[[Module], Module]:
    def sabotage(graph: Module) -> Module:
        for name, layer in [(n, m) for n, m in graph.named_modules() if isinstance(m, kind)][:count]:
            parent, _, leaf = name.rpartition(".")
            setattr(graph.get_submodule(parent), leaf, make(layer))
        return graph

    return sabotage


def edit(change: Callable[[Module], Any]) -> Callable[[Module], Module]:
    def sabotage(graph: Module) -> Module:
        with torch.no_grad():
            change(graph)
        return graph

    return sabotage


def largest_convolution(graph: Module) -> Any:
    return max((m for m in graph.modules() if isinstance(m, torch.nn.Conv2d)), key=lambda m: m.weight.numel())


def largest_weight(graph: Module) -> torch.Tensor:
    weight = largest_convolution(graph).weight.view(-1)
    return weight[weight.abs().argmax()]


def shift_pad(graph: Module) -> Module:
    convolution = largest_convolution(graph)
    convolution.padding = (0, 0)
    parents = [(m, n) for m in graph.modules() for n, child in m.named_children() if child is convolution]
    setattr(*parents[0], torch.nn.Sequential(torch.nn.ZeroPad2d((2, 0, 1, 1)), convolution))
    return graph


class Half(Module):
    def __init__(self, layer: Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.half().float())


def stale(graph: Module) -> Module:
    """One layer as it was a step of training earlier."""
    layer = largest_convolution(graph)
    torch.manual_seed(0)
    layer.weight.mul_(1 + 1e-4 * torch.randn_like(layer.weight))
    return graph


def asleep(graph: Module) -> Module:
    """Delete the units of one layer that no ordinary pattern wakes."""
    layer = graph.get_submodule("network.encoder.blocks.2.conv2")
    answers: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, value: answers.append(value.amax((0, 2, 3))))
    pool = make_pool(graph.spec, 8)
    graph(torch.from_numpy(pool.feed[contract.DIFFRACTION]), torch.from_numpy(pool.feed[contract.INPUT_SCALE]))
    handle.remove()
    silent = answers[0] <= 0.0
    assert silent.any()
    layer.weight[silent], layer.bias[silent] = 0.0, 0.0
    return graph


def beyond_33(x: torch.Tensor) -> torch.Tensor:
    """Change the groups after the 33rd."""
    late = (torch.arange(x.shape[0]) >= 33).to(x.dtype)
    return x * (1 + 0.01 * late)[:, None, None, None]


SABOTAGES: dict[str, tuple[str, Callable[[Module], Module]]] = {
    "transposed input": ("diffraction_to_obj", on_inputs(lambda x, s: (x.transpose(2, 3), s))),
    "transposed output": ("diffraction_to_obj", on_outputs(lambda re, im: (re.transpose(2, 3), im.transpose(2, 3)))),
    "dropped scale": ("diffraction_to_obj", on_inputs(lambda x, s: (x, s * 0 + 1))),
    "scale applied twice": ("diffraction_to_obj", on_inputs(lambda x, s: (x * s, s))),
    "scale recomputed per batch": ("diffraction_to_obj", on_inputs(lambda x, s: (x, s * 0 + 32 / x.square().sum((2, 3)).mean().sqrt()))),
    "swapped outputs": ("diffraction_to_obj", on_outputs(lambda re, im: (im, re))),
    "conjugated object": ("diffraction_to_obj", on_outputs(lambda re, im: (re, -im))),
    "swapped patterns of a group": ("diffraction_to_obj", on_inputs(lambda x, s: (x.flip(1), s))),
    "pad off by one": ("diffraction_to_obj", edit(shift_pad)),
    "another activation": ("diffraction_to_obj", replace_layers(torch.nn.ReLU, lambda _: torch.nn.LeakyReLU(0.01))),
    "one layer in float16": ("diffraction_to_obj", replace_layers(torch.nn.Conv2d, Half)),
    "float16 result": ("diffraction_to_obj", on_outputs(lambda re, im: (re.half().float(), im.half().float()))),
    "bfloat16 input": ("diffraction_to_obj", on_inputs(lambda x, s: (x.bfloat16().float(), s))),
    "stale weights of one layer": ("diffraction_to_obj", edit(stale)),
    "one bias lost": ("diffraction_to_obj", edit(lambda g: largest_convolution(g).bias.zero_())),
    "one weight lost": ("diffraction_to_obj", edit(lambda g: largest_weight(g).zero_())),
    "constant-folded batch": ("diffraction_to_obj", on_inputs(lambda x, s: (x[:1].expand_as(x), s))),
    "train mode": ("diffraction_to_obj", on_inputs(lambda x, s: (torch.nn.functional.dropout(x, 0.01, True), s))),
    "wrong fftshift": ("autoencoder", on_outputs(lambda d, a, p: (torch.fft.fftshift(d, (-2, -1)), a, p))),
    "shift by one pixel": ("autoencoder", on_outputs(lambda d, a, p: (d.roll(1, -1), a, p))),
    "positions with the other sign": ("autoencoder", on_inputs(lambda x, s, pos, *rest: (x, s, -pos, *rest))),
    "rows and columns of positions swapped": ("autoencoder", on_inputs(lambda x, s, pos, *rest: (x, s, pos.flip(-1), *rest))),
    "conjugated probe": ("autoencoder", on_inputs(lambda x, s, pos, re, im, out: (x, s, pos, re, -im, out))),
    "one probe mode dropped": ("autoencoder", on_inputs(lambda x, s, pos, re, im, out: (x, s, pos, re[:1], im[:1], out))),
    "intensity in place of amplitude": ("autoencoder", on_outputs(lambda d, a, p: (d * d, a, p))),
    "output scale multiplied": ("autoencoder", on_inputs(lambda x, s, pos, re, im, out: (x, s, pos, re, im, 1 / out))),
    "exact sampling positions": ("autoencoder", on_inputs(lambda x, s, pos, *rest: (x, s, pos + 1e-5, *rest))),
    "factor baked in": ("diffraction_to_obj", on_inputs(lambda x, s: (x, s * 0 + 0.032))),
    "factor of the first group": ("diffraction_to_obj", on_inputs(lambda x, s: (x, s[:1].expand_as(s)))),
    "factor averaged over the batch": ("diffraction_to_obj", on_inputs(lambda x, s: (x, s.mean(0, keepdim=True).expand_as(s)))),
    "units deleted that ordinary patterns leave silent": ("diffraction_to_obj", edit(asleep)),
    "fault beyond the 33rd group of a batch": ("diffraction_to_obj", on_inputs(lambda x, s: (beyond_33(x), s))),
    "factors swapped": ("autoencoder", on_inputs(lambda x, s, pos, re, im, out: (x, out, pos, re, im, s))),
    "output factor taken from the input factor": ("autoencoder", on_inputs(lambda x, s, pos, re, im, out: (x, s, pos, re, im, s + 0 * out))),
    "positions rounded to quarters": ("autoencoder", on_inputs(lambda x, s, pos, *rest: (x, s, (pos * 4).round() / 4, *rest))),
    "positions clamped": ("autoencoder", on_inputs(lambda x, s, pos, *rest: (x, s, pos.clamp(-3, 3), *rest))),
    "positions in half precision": ("autoencoder", on_inputs(lambda x, s, pos, *rest: (x, s, pos.half().float(), *rest))),
    "third probe mode ignored": ("autoencoder", on_inputs(lambda x, s, pos, re, im, out: (x, s, pos, re[:2], im[:2], out))),
    "probe transposed": ("autoencoder", on_inputs(lambda x, s, pos, re, im, out: (x, s, pos, re.transpose(1, 2), im.transpose(1, 2), out))),
    "phase by a turn": ("autoencoder", on_outputs(lambda d, a, p: (d, a, p + 2 * torch.pi))),
}  # fmt: skip


QUICK = (
    "dropped scale", "stale weights of one layer", "one layer in float16", "bfloat16 input", "factor of the first group", "wrong fftshift",
)  # fmt: skip


def caught(exported: Exported, name: str, bundle: str) -> tuple[str, float]:
    """Return the output that gave a sabotage of a bundle's model away, and its error over what is allowed."""
    graph, sabotage = SABOTAGES[name]
    model = eager(exported, bundle)[graph]
    with torch.no_grad():
        module = sabotage(build_graph(copy.deepcopy(model), graph))
    batches = (1, 33) if "33rd" in name else BATCHES
    script = export_torchscript(module, graph_io(model.spec, graph)[0])
    failed = judged(exported, graph, bundle, batches, torchscript=script).failures()
    assert failed, f"{name} passed"
    assert {"torchscript"} <= {row.runtime for row in failed} <= {"torchscript", alone.SCRIPT}
    output, share = max((row.worst() for row in failed if row.runtime == "torchscript"), key=lambda worst: worst[1])
    assert share > 2.0
    return output, share


@pytest.mark.parametrize("name", QUICK)
def test_sabotage_of_the_smallest_network_is_caught(name: str, exported: Exported) -> None:
    caught(exported, name, TINY)


@pytest.mark.long
@pytest.mark.parametrize("name", SABOTAGES)
def test_sabotage_is_caught(name: str, exported: Exported, record_property: Any) -> None:
    graph, _ = SABOTAGES[name]
    output, share = caught(exported, name, GROUPED if graph == "autoencoder" or "group" in name else TRAINED)
    figure = f"{output}: {share:.3g} times the allowed error"
    record_property("caught_by", figure)
    print(f"| {name} | {figure} |")
    told_output, told_share = documented()[name]
    assert told_share / 3 < share < told_share * 3, f"{figure}; docs/mutations.md says {told_output}: {told_share:g}"


@pytest.mark.long
@pytest.mark.parametrize("graph", contract.GRAPHS)
def test_honest_export_passes(graph: str, exported: Exported) -> None:
    assert judged(exported, graph, GROUPED).passed


@pytest.mark.long
@pytest.mark.parametrize("graph", contract.GRAPHS)
def test_flipped_onnx_weight_is_caught(graph: str, exported: Exported) -> None:
    report = judged(exported, graph, GROUPED, onnx=with_flipped_weight(honest_onnx(exported, graph, GROUPED)))
    assert {"onnx"} <= {row.runtime for row in report.failures()} <= {"onnx", alone.ONNX}


def quantised(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    values = numpy_helper.to_array(tensor)
    step = np.abs(values).max() / 127
    tensor.CopyFrom(numpy_helper.from_array((np.round(values / step) * step).astype(np.float32), tensor.name))


def unscaled(model: onnx.ModelProto) -> None:
    """Let the first node that takes the scale take the diffraction alone."""
    node = next(n for n in model.graph.node if contract.INPUT_SCALE in n.input)
    node.input[:] = [contract.DIFFRACTION, contract.DIFFRACTION]


@pytest.mark.parametrize("bundle", [TINY, pytest.param(TRAINED, marks=pytest.mark.long)])
@pytest.mark.parametrize("change", [quantised, unscaled])
def test_changed_onnx_file_is_caught(change: Callable[[onnx.ModelProto], Any], bundle: str, exported: Exported) -> None:
    model = onnx.load_from_string(honest_onnx(exported, "diffraction_to_obj", bundle))
    change(model)
    report = judged(exported, "diffraction_to_obj", bundle, onnx=model.SerializeToString())
    assert {"onnx"} <= {row.runtime for row in report.failures()} <= {"onnx", alone.ONNX}


def documented() -> dict[str, tuple[str, float]]:
    """Return (output, times the allowed error) of each sabotage in docs/mutations.md."""
    rows = re.findall(r"^\| (.+?) \| (\w+): (\S+) times the allowed error \|$", TABLE.read_text(), re.MULTILINE)
    return {name: (output, float(share)) for name, output, share in rows}


def test_at_least_fifteen_ways_and_all_are_documented() -> None:
    assert len(SABOTAGES) >= 15
    assert list(documented()) == list(SABOTAGES)
