"""What a parity check finds, as plain values: rows of the matrix, layers, stitched objects. Imports the standard library alone.

They are read back from `parity.json`, compared and printed where no model can be run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STORED_RUNTIMES = ("torchscript", "onnx")
VERDICTS = ("passed", "failed", "not run")
# graph, runtime, device, precision, batch
Cell = tuple[str, str, str, str, int]
# What an output of the graph is called among its layers.
OUTPUT = "output"
# Times what is allowed: no luck goes that far.
_CERTAIN = 30.0


@dataclass
class ParityRow:
    """One graph on one runtime, device and batch size."""

    graph: str
    runtime: str
    device: str
    precision: str
    batch: int
    inputs: str
    verdict: str  # "passed", "failed" or "not run"
    reason: str = ""
    outputs: dict[str, dict[str, float]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def cell(self) -> Cell:
        """Return the row's place in the matrix."""
        return self.graph, self.runtime, self.device, self.precision, self.batch

    @property
    def gravity(self) -> tuple[bool, bool, float]:
        """Return what sorts rows of one runtime: a failed row counts more than any that passed, one without figures most."""
        name, share = self.worst()
        return self.verdict == "failed", self.verdict == "failed" and not name, share

    def worst(self) -> tuple[str, float]:
        """Return (output, error as a share of what is allowed) of the worst output."""
        shares = {name: figures["share"] for name, figures in self.outputs.items() if "share" in figures}
        name = max(shares, key=lambda key: shares[key]) if shares else ""
        return name, shares.get(name, 0.0)


@dataclass(frozen=True)
class LayerError:
    """One layer's result in the exported file against the eager model in float64."""

    layer: str  # the eager module's path, or `output NAME`
    tensor: str  # the ONNX value
    rel_l2: float
    allowed_rel_l2: float
    max_abs: float
    allowed_max_abs: float
    growth: float  # relative L2 over the largest of the layers it is computed from; 0 where there are none

    @property
    def is_output(self) -> bool:
        """Say whether this is an output of the graph."""
        return self.layer.startswith(OUTPUT)

    @property
    def share(self) -> float:
        """Return the larger of the two errors as a share of what is allowed."""
        pairs = ((self.rel_l2, self.allowed_rel_l2), (self.max_abs, self.allowed_max_abs))
        shares = [error / limit if limit > 0.0 else (0.0 if error == 0.0 else float("inf")) for error, limit in pairs]
        # What is not a number is not within anything.
        return max(share if share == share else float("inf") for share in shares)


@dataclass
class Divergence:
    """The layers of one graph with their errors."""

    graph: str
    device: str
    layers: list[LayerError] = field(default_factory=list)
    reason: str = ""  # why there are none
    runtime: str = "onnx"  # whose file; the layers of a TorchScript file are run by themselves, on numbers of their own

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Divergence:
        """Return what `dataclasses.asdict` and JSON made of one; infinities may be text."""
        layers = []
        for layer in document["layers"]:
            figures = {key: float(value) for key, value in layer.items() if key not in ("layer", "tensor")}
            layers.append(LayerError(str(layer["layer"]), str(layer["tensor"]), **figures))
        runtime = str(document.get("runtime", cls.runtime))
        return cls(document["graph"], document["device"], layers, document["reason"], runtime)

    @property
    def name(self) -> str:
        """Return which file it is, in words."""
        return self.graph if self.runtime == "onnx" else f"{self.graph}, {self.runtime}"

    @property
    def first(self) -> LayerError | None:
        """Return the first layer that explains an output beyond its share; None where all outputs are within theirs.

        A layer of few numbers near zero can by luck err a few times more than eager's, and the error heals in the next. So
        where an output is far beyond its share, a layer must be beyond by at least the square root of that.
        """
        worst = max((layer.share for layer in self.layers if layer.is_output), default=0.0)
        if worst <= 1.0:
            return None
        return next(layer for layer in self.layers if layer.share > 1.0 and layer.share >= min(worst**0.5, _CERTAIN))

    def blames(self, layer: LayerError) -> bool:
        """Say whether a layer is wrong: beyond its share, and neither luck before the fault nor in a graph that is right."""
        first = self.first
        return first is not None and layer.share > 1.0 and self.layers.index(layer) >= self.layers.index(first)

    def summary(self) -> str:
        """Return the finding in one line."""
        if self.reason:
            return f"{self.name}: no layers could be compared: {self.reason}"
        if self.first is None:
            worst = max(self.layers, key=lambda layer: layer.share)
            return (
                f"{self.name}: run layer by layer, all outputs are within what rounding explains "
                f"({len(self.layers)} layers, the worst is {worst.layer} with {worst.share:.3g} of what is allowed"
                f"{', which no output shows' if worst.share > 1.0 else ''})"
            )
        return f"{self.name}: diverges first at {self.first.layer} ({self.first.share:.3g} × what is allowed)"

    def around(self, before: int = 3, after: int = 4) -> list[LayerError]:
        """Return the layers around the first beyond its share and the graph's outputs; the worst ones where there is none."""
        if self.first is None:
            worst = sorted(self.layers, key=lambda layer: -layer.share)[: before + after]
            return [layer for layer in self.layers if layer in worst]
        at = self.layers.index(self.first)
        chosen = self.layers[max(0, at - before) : at + 1 + after]
        return chosen + [layer for layer in self.layers[at + 1 + after :] if layer.is_output]


@dataclass(frozen=True)
class StitchedRow:
    """One runtime's stitched object against eager float64's. Deficits are 1 − figure; 0 is equal."""

    runtime: str
    device: str
    patterns: int
    frc_deficit: float  # of the ring that agrees least
    ssim_amplitude_deficit: float
    ssim_phase_deficit: float
    allowed: tuple[float, float, float]

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> StitchedRow:
        """Return what `dataclasses.asdict` and JSON made of one; infinities may be text."""
        figures = {k: float(v) for k, v in document.items() if k.endswith("_deficit")}
        frc, amplitude, phase = map(float, document["allowed"])
        return cls(**{**document, **figures, "allowed": (frc, amplitude, phase)})

    @property
    def deficits(self) -> tuple[float, float, float]:
        """Return the three figures in the order of `allowed`."""
        return self.frc_deficit, self.ssim_amplitude_deficit, self.ssim_phase_deficit

    @property
    def passed(self) -> bool:
        """Say whether no figure is lower than eager float32's own error explains."""
        return all(found <= limit for found, limit in zip(self.deficits, self.allowed, strict=True))


def finite(value: Any) -> Any:
    """Return a JSON value with numbers that JSON lacks as text."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return str(value)
    return value
