"""Reduced precision as values: what an export's variants are, what they may err, and what they were found to err."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ptycho_runtime.errors import ReconstructionError

# What a budget may allow at most, of phase and of amplitude: beyond, the object is another one.
MOST_PHASE_RAD = 0.1
MOST_AMPLITUDE_REL = 0.1
PRECISIONS = ("float32", "auto")  # what a user may ask a reconstruction for
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

        Raises `ReconstructionError` unless both are there once, positive, the phase in rad or mrad and the amplitude in %, neither
        beyond its ceiling.
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
        budget = cls(found["phase"], found["amp"])
        if budget.phase_rad > MOST_PHASE_RAD or budget.amplitude_rel > MOST_AMPLITUDE_REL:
            raise ReconstructionError(
                f"budget {text!r}: allows another object; expected {cls(MOST_PHASE_RAD, MOST_AMPLITUDE_REL)} at most"
            )
        return budget

    def allows(self, errors: PrecisionErrors) -> bool:
        """Say whether both errors are within; what is not a number never is."""
        return errors.phase_rad <= self.phase_rad and errors.amplitude_rel <= self.amplitude_rel

    def __str__(self) -> str:
        """Return it in words."""
        return f"phase {self.phase_rad:g} rad, amplitude {100 * self.amplitude_rel:g} %"


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

    @property
    def label(self) -> str:
        """Name engine and precision."""
        return f"{self.engine} {variant_precision(self.precision, len(self.int8_layers))}"


def variant_precision(precision: str, int8_layers: int) -> str:
    """Return a precision in words."""
    return precision if not int8_layers else f"int8 ({int8_layers} layers) and {precision}"
