"""The steps of the physics in a file, found by their numbers: its nodes say that they are physics, but not which step.

The eager physics hands out the views of the overlapped object, the exit waves and the far field. In the file, a step's
real and imaginary part are the two values that come nearest to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from exporters.parity.metrics import budget, figures
from exporters.parity.rows import LayerError
from ptycho_runtime import contract
from ptycho_torch.models.module import PtychoModel

PHYSICS = "physics"
VIEWS, EXIT_WAVE, FAR_FIELD = "physics.overlap", "physics.exit_wave", "physics.far_field"
STEPS = (VIEWS, EXIT_WAVE, FAR_FIELD)
_SOURCES = ("MatMul", "Gemm", "Mul", "Add", "Sub", "Div", "Sum", "Neg")
Steps = dict[str, np.ndarray]  # step -> complex values, groups first


class _Transforms(TorchFunctionMode):
    """Notes what enters and leaves the physics' Fourier transform while it is active."""

    def __init__(self, steps: Steps, size_px: int) -> None:
        super().__init__()
        self.steps, self.size_px = steps, size_px

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.fft.fft2:
            norm = 1.0 if (kwargs or {}).get("norm") == "ortho" else 1.0 / self.size_px
            self.steps[EXIT_WAVE] = args[0].cpu().numpy().copy()
            self.steps[FAR_FIELD] = np.fft.fftshift((result * norm).cpu().numpy(), (-2, -1))
        return result


@contextmanager
def recorded_steps(model: PtychoModel) -> Iterator[Steps]:
    """Give a dictionary that holds the steps of the eager physics that runs in this block."""
    steps: Steps = {}
    physics = model.model.forward_model
    if physics is None:
        yield steps
        return
    extract = physics.extract

    def noted(canvas: Tensor, positions: Tensor) -> Tensor:
        views = extract(canvas, positions)
        steps[VIEWS] = views.cpu().numpy().copy()
        return views

    physics.extract = noted  # type: ignore[method-assign]
    plain = type(physics).amplitude, type(physics).rectangular_intensity
    wrapped = [_watched(method, steps, model.spec.N) for method in plain]
    physics.amplitude, physics.rectangular_intensity = (  # type: ignore[method-assign]
        wrapped[0].__get__(physics),
        wrapped[1].__get__(physics),
    )
    try:
        yield steps
    finally:
        del physics.extract, physics.amplitude, physics.rectangular_intensity


def _watched(method: Callable[..., Tensor], steps: Steps, size_px: int) -> Callable[..., Tensor]:
    def watched(self: Any, *args: Tensor) -> Tensor:
        with _Transforms(steps, size_px):
            return method(self, *args)

    return watched


def candidates(model: onnx.ModelProto, inside: Callable[[onnx.NodeProto], Iterable[str]]) -> list[str]:
    """Return the values of the file's physics among which its steps are, in the order in which they are computed."""
    return [
        value
        for node in model.graph.node
        if node.op_type in _SOURCES and PHYSICS in inside(node)
        for value in node.output
    ]


def step_errors(
    steps: Steps, steps32: Steps, results: Mapping[str, np.ndarray], values: Iterable[str]
) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Yield (step, value that is nearest to its real or imaginary part, figures of the worse of the two).

    Args:
        steps: the eager physics in float64.
        steps32: in float32.
        results: the file's values.
        values: names of those that may be steps.
    """
    held = [name for name in values if name in results and results[name].dtype == np.float32]
    for step in STEPS:
        if step not in steps:
            continue
        parts = {contract.OBJECT_REAL: steps[step].real, contract.OBJECT_IMAG: steps[step].imag}
        parts32 = {contract.OBJECT_REAL: steps32[step].real, contract.OBJECT_IMAG: steps32[step].imag}
        found = []
        for part, wanted in parts.items():
            like = [name for name in held if results[name].size == wanted.size and len(results[name]) == len(wanted)]
            if not like:
                break
            distances = {name: float(np.linalg.norm(results[name].reshape(wanted.shape) - wanted)) for name in like}
            nearest = min(distances, key=lambda name: distances[name])
            value = results[nearest].reshape(wanted.shape)
            found.append((nearest, figures(part, value, parts, budget(part, parts32, parts, np.inf))))
        if len(found) == 2:
            nearest, worst = max(found, key=lambda pair: pair[1]["share"])
            yield step, nearest, worst


def as_layer(step: str, tensor: str, worst: Mapping[str, float], growth: float) -> LayerError:
    """Return a step as a layer of the report."""
    limits = worst["allowed_rel_l2"], worst["max_abs"], worst["allowed_max_abs"]
    return LayerError(step, tensor, worst["rel_l2"], *limits, growth)
