"""What parity means for a user's picture: one scan's stitched object from each runtime, against eager in float64.

Fourier ring correlation after Saxton and Baumeister, J. Microsc. 127 (1982) 127; structural similarity from scikit-image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from exporters.graph.graphs import graph_io
from exporters.parity.first_patterns import first_patterns
from exporters.parity.inputs import Source
from exporters.parity.rows import StitchedRow
from exporters.parity.runners import EagerRunner, NotRunnable, OnnxRunner, TorchScriptRunner
from ptycho_runtime.engine.batching import Feed
from ptycho_runtime.engine.session import BaseSession, Session
from ptycho_runtime.image.core import Graphs
from ptycho_runtime.image.reconstruct import reconstruct
from ptycho_torch.models.module import PtychoModel

MAX_PATTERNS = 256  # eager in float64 takes a tenth of a second a pattern on two cores
FACTOR = 16.0  # both figures fall with the square of the error, of which 4 times eager float32's own is allowed
FLOOR = 1e-9
MOST = 0.01  # a larger allowance would let another object through
_RING_POWER = 1e-9  # rings with less of the spectrum's power hold rounding alone
GRAPH = "diffraction_to_obj"


class _Float64(BaseSession):
    """A session whose outputs come in float64, in which they are then interpolated too."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.engine, self.device, self.options = session.engine, session.device, session.options
        self.inputs, self.outputs = session.inputs, session.outputs

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        return {name: value.astype(np.float64) for name, value in self.session.run(feed).items()}

    def facts(self) -> dict[str, Any]:
        return self.session.facts()

    def close(self) -> None:
        self.session.close()


def compare_stitched(model: PtychoModel, files: Mapping[str, bytes], source: Source) -> list[StitchedRow]:
    """Return eager float32, TorchScript and ONNX on the CPU, each stitched from at most the first 256 patterns of a scan.

    Args:
        model: the eager model of `diffraction_to_obj`.
        files: its exports by format.
        source: a scan with positions, and how the input scale factor is made.

    Raises `ScanError` for a scan that cannot be read to its end.
    """
    spec = model.spec
    inputs, outputs = graph_io(spec, GRAPH)
    export, scan = first_patterns(spec, source, MAX_PATTERNS)

    def stitched(open_runner: Callable[[], Session]) -> tuple[np.ndarray, np.ndarray]:
        with open_runner() as runner:
            canvas = reconstruct(export, Graphs(_Float64(runner)), scan).canvas
        return canvas.object, canvas.covered

    reference, covered = stitched(lambda: EagerRunner(model, GRAPH, dtype=torch.float64))
    trials: list[tuple[str, str, Callable[[], Session]]] = []
    for device in ("cpu", "cuda"):
        trials += [
            ("eager", device, partial(EagerRunner, model, GRAPH, device)),
            ("torchscript", device, partial(TorchScriptRunner, files["torchscript"], inputs, outputs, device)),
            ("onnx", device, partial(OnnxRunner, files["onnx"], device)),
        ]
    rows: list[StitchedRow] = []
    allowed = (FLOOR, FLOOR, FLOOR)
    for runtime, device, open_runner in trials:
        try:
            deficits = figures(stitched(open_runner)[0], reference, covered)
        except NotRunnable:
            continue  # the matrix says why
        if (runtime, device) == ("eager", "cpu"):
            frc, amplitude, phase = (min(max(FACTOR * deficit, FLOOR), MOST) for deficit in deficits)
            allowed = (frc, amplitude, phase)
        rows.append(StitchedRow(runtime, device, len(scan), *deficits, allowed))
    return rows


def figures(object_: np.ndarray, reference: np.ndarray, covered: np.ndarray) -> tuple[float, float, float]:
    """Return 1 − figure for the Fourier ring correlation's lowest ring, SSIM of amplitude, SSIM of phase.

    Args:
        object_: (rows, columns) complex.
        reference: the same, what is right.
        covered: where something was measured; the smallest box around it is compared.
    """
    from skimage.metrics import structural_similarity

    rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    got, wanted = object_[box].astype(np.complex128), reference[box].astype(np.complex128)
    if not np.isfinite(got).all():
        return float("inf"), float("inf"), float("inf")
    found = [1.0 - float(ring_correlation(got, wanted).min())]
    # Away from the cut at ±π, where equal objects could differ by a turn.
    turn = np.exp(-1j * np.angle(wanted.sum()))
    for a, b in ((np.abs(got), np.abs(wanted)), (np.angle(got * turn), np.angle(wanted * turn))):
        span = float(np.ptp(b)) or 1.0
        similarity = structural_similarity(a, b, data_range=span)  # type: ignore[no-untyped-call]
        found.append(1.0 - float(similarity))
    return max(found[0], 0.0), max(found[1], 0.0), max(found[2], 0.0)


def ring_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Fourier ring correlation of two complex images, one value a ring up to the Nyquist frequency.

    Rings that hold less than 1e-9 of the spectrum's power are 1: nothing but rounding is in them.
    """
    a, b = np.fft.fft2(first), np.fft.fft2(second)
    size = min(first.shape)
    fy, fx = (np.fft.fftfreq(n) for n in first.shape)
    ring = np.round(np.hypot(fy[:, None], fx[None, :]) * size).astype(int).ravel()
    count = size // 2 + 1

    def per_ring(values: np.ndarray) -> np.ndarray:
        return np.bincount(ring, values.ravel(), minlength=count)[:count]

    cross = (a * np.conj(b)).ravel()
    product = np.hypot(per_ring(cross.real), per_ring(cross.imag))
    power_a, power_b = per_ring(np.abs(a) ** 2), per_ring(np.abs(b) ** 2)
    empty = np.maximum(power_a, power_b) <= _RING_POWER * max(power_a.sum(), power_b.sum())
    found: np.ndarray = np.where(empty, 1.0, product / np.sqrt(np.maximum(power_a * power_b, 1e-300)))
    return found
