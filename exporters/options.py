"""What a caller decides about an export or its verification, as values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_runtime.export.precision import Budget
from ptycho_runtime.scan.options import ReadOptions

if TYPE_CHECKING:
    from exporters.formats.trace import Tracer
    from ptycho_torch.spec import ModelSpec

Progress = Callable[[str], None]
# Batch sizes of the parity check.
BATCHES = (1, 3, 16, 33)


def silent(text: str) -> None:
    """Show no progress."""


@dataclass(frozen=True, kw_only=True)
class ProofOptions:
    """How exports are proven."""

    scan: str | Path | None = None
    """Any scan that the runtime reads; its patterns, positions and probe are used in place of simulated ones."""
    scan_options: ReadOptions | None = None
    """What the scan's file leaves open."""
    require: Sequence[str] = ()
    """Devices (`cuda`, `tensorrt`) on which the proof must have run."""
    batches: Sequence[int] = BATCHES
    """Groups in a batch."""
    layers: bool = False
    """Compare the ONNX files with the eager models layer by layer even if they pass."""
    budget: Budget | None = None
    """What variants in reduced precision may err on held-back patterns of the scan."""
    progress: Progress = silent
    """Called with a short text at each step."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions(ProofOptions):
    """How a bundle is exported."""

    force: bool = False
    """Replace files in the output folder that this project did not write."""
    in_place: bool = False
    """Put the exports into the source itself; only the files beside it go to the output folder."""
    architecture: ModelSpec | Mapping[str, Any] | str | Path | None = None
    """Fields that settle what the bundle leaves open (dictionary, `ModelSpec` or JSON file)."""
    params: Mapping[str, Any] | str | Path | None = None
    """Parameters for what a checkpoint lacks (dictionary or JSON file)."""
    ignore_extra: bool = False
    """Leave out what a state_dict holds beside the model, such as averaged weights or metrics; refused where False."""
    precision: str | None = None
    """Store a variant in reduced precision too: `auto` (the fastest on this host), `bfloat16`, `int8` or `float16`; needs scan and budget."""
    trace: Tracer | None = None
    """What makes the files of graphs; `exporters.formats.trace.trace_family` where None. A cache of its results is given here."""


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(ProofOptions):
    """How stored exports are verified; a budget given here is in place of those that were stored."""

    store_baseline: bool = False
    """Put what the model leaves unexplained on the scan into the bundle's `exports.json` where the proof passes; else it is only said."""
    against: str | Path | None = None
    """An NPZ of PtychoPINN's own outputs, which the models are held against too; see `exporters.parity.against`."""
    run_stored_torchscript: bool = False
    """Run a stored TorchScript that is not, byte for byte, what the weights give here, in a process without files and network; what the
    weights give is run in its stead where False."""
