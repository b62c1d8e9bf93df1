"""The four-quadrant arctangent in operators that every execution provider has (onnxruntime's CUDA provider has no Atan)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# atan(z)/z as a polynomial in z² on |z| ≤ tan(π/8): a Chebyshev fit of degree 6, largest error 2.1e-11.
COEFFICIENTS = (
    0.9999999999791283,
    -0.3333333212787685,
    0.19999885898507147,
    -0.14281639254884776,
    0.1104105410680419,
    -0.08459108874981451,
    0.04712996683161754,
)
_TAN_EIGHTH = math.tan(math.pi / 8)
_TINY = 1e-37  # keeps 0/0 out: the angle of nothing is 0, as torch.angle has it


def atan2(y: Tensor, x: Tensor) -> Tensor:
    """Return the angle of x + iy in (−π, π], rad; same shape and dtype as its inputs."""
    size_x, size_y = x.abs(), y.abs()
    ratio = torch.minimum(size_x, size_y) / torch.clamp_min(torch.maximum(size_x, size_y), _TINY)
    reduce = ratio > _TAN_EIGHTH
    z = torch.where(reduce, (ratio - 1.0) / (ratio + 1.0), ratio)
    square = z * z
    series = square * COEFFICIENTS[-1] + COEFFICIENTS[-2]
    for coefficient in COEFFICIENTS[-3::-1]:
        series = series * square + coefficient
    angle = z * series
    angle = torch.where(reduce, angle + math.pi / 4, angle)
    angle = torch.where(size_y > size_x, math.pi / 2 - angle, angle)
    angle = torch.where(x < 0.0, math.pi - angle, angle)
    return torch.where(y < 0.0, -angle, angle)
