"""Reduced precision on this host: a variant that an export brings runs only where its budget is kept here and now.

What a variant errs was measured where it was made. Another processor, another library or another scan may give another
error, so it is measured again: on the stored patterns when it is opened, and on a few of the scan's own before the scan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ptycho_runtime import contract as c
from ptycho_runtime.engine.session import GraphSession, Session
from ptycho_runtime.errors import ReconstructionError, VariantRefusedError
from ptycho_runtime.metrics import field_errors

if TYPE_CHECKING:
    from ptycho_runtime.export.bundle import Export

PRECISIONS = ("float32", "auto")
VARIANT_PRECISIONS = {"openvino": ("float32", "bfloat16"), "onnxruntime": ("float16",)}  # by engine
_PART = re.compile(r"(phase|amp)=([0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)(rad|mrad|%)")
_UNITS = {"rad": 1.0, "mrad": 1e-3, "%": 1e-2}


@dataclass(frozen=True)
class PrecisionErrors:
    """What reduced precision does to the object."""

    phase_rad: float  # root mean square of the wrapped phase difference, weighted by intensity
    amplitude_rel: float  # ‖|o| − |o_ref|‖ / ‖|o_ref|‖

    def __str__(self) -> str:
        """Return both figures."""
        return f"phase {self.phase_rad:.2g} rad, amplitude {100 * self.amplitude_rel:.2g} %"


@dataclass(frozen=True)
class Budget:
    """What a user allows reduced precision to do to the object."""

    phase_rad: float
    amplitude_rel: float

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Return the budget of a text such as `phase=0.01rad,amp=1%`.

        Raises `ReconstructionError` unless both are there once, positive, the phase in rad or mrad and the amplitude in %.
        """
        found: dict[str, float] = {}
        for part in text.split(","):
            match = _PART.fullmatch(part.strip())
            unit_fits = match is not None and (match[3] == "%") == (match[1] == "amp")
            value = float(match[2]) * _UNITS[match[3]] if match else 0.0
            if match is None or not unit_fits or match[1] in found or not 0.0 < value < float("inf"):
                raise ReconstructionError(
                    f"budget {text!r}: {part!r} is not understood; expected such as phase=0.01rad,amp=1%"
                )
            found[match[1]] = value
        if len(found) < 2:
            raise ReconstructionError(f"budget {text!r}: lacks a part; expected such as phase=0.01rad,amp=1%")
        return cls(found["phase"], found["amp"])

    def allows(self, errors: PrecisionErrors) -> bool:
        """Say whether both errors are within; what is not a number never is."""
        return errors.phase_rad <= self.phase_rad and errors.amplitude_rel <= self.amplitude_rel

    def __str__(self) -> str:
        """Return it in words."""
        return f"phase {self.phase_rad:g} rad, amplitude {100 * self.amplitude_rel:g} %"


def precision_errors(outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> PrecisionErrors:
    """Return what the outputs of an object graph err; infinite where one is not finite."""
    if not all(np.isfinite(value).all() for value in outputs.values()):
        return PrecisionErrors(float("inf"), float("inf"))
    found = field_errors(outputs, reference)
    return PrecisionErrors(found["phase_rad"], found["amplitude_rel"])


@dataclass(frozen=True)
class Variant:
    """A way of running one graph in reduced precision, and what it was allowed to err."""

    graph: str
    model: bytes
    engine: str
    precision: str  # of the products that are not in int8, of `VARIANT_PRECISIONS`
    int8_layers: tuple[str, ...]
    budget: Budget
    stored: PrecisionErrors  # measured where it was made

    @property
    def device(self) -> str:
        """The device it is for."""
        return "cpu" if self.engine == "openvino" else "cuda"

    def open(self, batch: int = 16, threads: int | None = None) -> Session:
        """Return a session of it; raises `DeviceUnavailableError` where its engine or device is not there."""
        from ptycho_runtime.engine.openvino import OpenVinoSession

        if self.engine == "openvino":
            return OpenVinoSession(self.model, batch, precision=self.precision, threads=threads)
        return GraphSession(self.model, self.device, batch)

    @property
    def label(self) -> str:
        """Name engine and precision."""
        return f"{self.engine} {variant_precision(self.precision, len(self.int8_layers))}"


@dataclass(frozen=True)
class OpenedVariant:
    """A variant that kept its budget on this host, ready to run."""

    variant: Variant
    session: Session


def variant_precision(precision: str, int8_layers: int) -> str:
    """Return a precision in words."""
    return precision if not int8_layers else f"int8 ({int8_layers} layers) and {precision}"


def open_variant(export: Export, graph: str, device: str, batch: int, threads: int | None = None) -> OpenedVariant:
    """Return a graph's stored variant, open and proven on this host on the patterns stored with it.

    Raises:
        VariantRefusedError: the export has none for the graph, or it errs more than its budget here.
        DeviceUnavailableError: its engine is not installed or cannot run it here.
    """
    variant = export.variants.get((graph, device))
    if variant is None:
        how = "--precision auto" if device == "cpu" else "--precision float16"
        raise VariantRefusedError(
            f"{export.path.name}: has no variant in reduced precision for {device}; export the bundle with {how}"
        )
    opened = OpenedVariant(variant, variant.open(batch, threads))
    feed, reference = stored_patterns(export, graph)
    refuse_beyond(opened, feed, reference, "the patterns stored with it")
    return opened


def refuse_beyond(
    opened: OpenedVariant, feed: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], where: str
) -> PrecisionErrors:
    """Run a variant on patterns whose outputs are known and return what it errs.

    Raises `VariantRefusedError` where that is more than its budget.
    """
    variant = opened.variant
    found = precision_errors(opened.session.run(feed), reference)
    if not variant.budget.allows(found):
        raise VariantRefusedError(
            f"{variant.label} errs {found} on {where}; its budget is {variant.budget}; float32 is right"
        )
    return found


def stored_patterns(export: Export, graph: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return (inputs, outputs in float64 rounded to float32) of the held-back patterns that the variants were judged by."""
    arrays = export.variant_patterns()
    middle = c.centre(export.N) if graph == c.CENTRE else slice(None)
    feed = {name: arrays[name] for name in (c.DIFFRACTION, c.INPUT_SCALE)}
    return feed, {name: arrays[name][..., middle, middle] for name in (c.OBJECT_REAL, c.OBJECT_IMAG)}
