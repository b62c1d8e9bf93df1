"""`input_scale_factor` before the scan is there: frozen, given, of a reference scan, or of a first window; never of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptycho_runtime.export.bundle import Export
from ptycho_runtime.scan.scale import scale_of_energy


@dataclass(frozen=True)
class Scale:
    """The factor of a live run, and where it comes from."""

    factor: float
    source: str
    """In words."""
    uncertainty: float = 0.0
    """Standard error as a share of the factor, of the frames it was made of; 0 where it is not in question."""

    def __str__(self) -> str:
        """Return it in words."""
        error = f" ± {100 * self.uncertainty:.2g} %" if self.uncertainty else ""
        return f"input_scale_factor {self.factor:.9g}{error}, {self.source}"


def known_scale(export: Export, given: float | None, reference: np.ndarray | None, name: str = "") -> Scale | None:
    """Return the factor if it is known before the first frame.

    Args:
        export: of the model.
        given: by the user.
        reference: (n,) energies of the patterns of a reference scan, as fed.
        name: of that scan.
    """
    if given is not None:
        return Scale(given, "as given")
    if reference is not None:
        return Scale(scale_of_energy(export.scale_formula, reference, export.N), f"of the reference scan {name}")
    if export.scale_value:
        return Scale(export.scale_value, "frozen in the export")
    return None


def scale_of_window(export: Export, energy: np.ndarray) -> Scale:
    """Return the factor of the first frames of a scan from their energies (k,)."""
    # The factor goes with the mean energy to the power −1/2.
    spread = float(energy.std() / max(energy.mean(), 1e-300)) if len(energy) > 1 else 1.0
    return Scale(
        scale_of_energy(export.scale_formula, energy, export.N),
        f"of the first {len(energy)} frames",
        0.5 * spread / float(np.sqrt(len(energy))),
    )


def exactly_again(used: Scale, whole: float, bundle: Path) -> str:
    """Return how far a factor was from the whole scan's, and the command that makes the image with that; empty where it is the same."""
    off = used.factor / whole - 1.0
    if abs(off) < 1e-12:
        return ""
    return (
        f"input_scale_factor was {100 * off:+.2g} % from that of all frames, {whole:.9g}; with it: ptycho-runtime reconstruct {bundle} "
        f"SCAN --input-scale {whole:.9g} -o OUT"
    )
