"""The physics of a model in real arithmetic: patches to predicted diffraction.

Fourier transforms of the fixed size N are products with constant matrices.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from ptycho_torch.models.physics import (
    CENTRAL_MASK_EPS,
    PROBE_WEIGHT_EPS,
    WEIGHT_CUT,
    ForwardModel,
    divides_probe,
)

Pair = tuple[Tensor, Tensor]  # real and imaginary part


class RealPhysics(nn.Module):
    """`ForwardModel` in real arithmetic, with N-point Fourier transforms as matrix products.

    The rows of the Fourier matrices are in shifted order, so that the zero frequency comes out in the centre.
    """

    fourier_cos: Tensor
    fourier_sin: Tensor
    probe_mask: Tensor

    def __init__(self, forward_model: ForwardModel, output_gain: float) -> None:
        """Take the constants and parameters of the eager physics."""
        super().__init__()
        self.spec = forward_model.spec
        self.output_gain = output_gain
        self.translator = forward_model.translator
        spec, like = self.spec, forward_model.translator.box
        shifted = np.fft.fftshift(np.arange(spec.N))
        angle = 2.0 * np.pi * ((shifted[:, None] * np.arange(spec.N)[None, :]) % spec.N) / spec.N
        norm = 1.0 / math.sqrt(spec.N)
        self.register_buffer("fourier_cos", torch.from_numpy(np.cos(angle) * norm).to(like.dtype))
        self.register_buffer("fourier_sin", torch.from_numpy(-np.sin(angle) * norm).to(like.dtype))
        if spec.probe_mask != "none":
            self.register_buffer("probe_mask", forward_model.probe_mask.to(like.dtype))
        for name, values in self.scales(forward_model).items():
            self.register_buffer(name, values)

    def scales(self, forward_model: ForwardModel) -> dict[str, Tensor]:
        """Return the per-dataset scales that act, as they are indexed in the graph."""
        spec = self.spec
        if spec.physics == "rectangular":
            found = {"scale_real": forward_model.rect_scaler.s1, "scale_imag": forward_model.rect_scaler.s2}
        elif spec.intensity_scale_trainable and spec.rules.has_alpha_beta:
            found = {"alpha": forward_model.alpha, "beta": forward_model.beta}
        else:
            return {}
        return {name: value.detach().clone().reshape(-1, 1, 1, 1, 1) for name, value in found.items()}

    def scale(self, name: str, experiment_id: Tensor | None, axes: int) -> Tensor:
        """Return one scale per group, (B or 1, 1, …) with the given number of axes."""
        values: Tensor = getattr(self, name)
        values = values.reshape(-1, *[1] * (axes - 1))
        return values if experiment_id is None else values[experiment_id]

    def forward(
        self, patches: Pair, positions: Tensor, probe: Pair, output_scale: Tensor, experiment_id: Tensor | None
    ) -> Tensor:
        """Return the predicted diffraction, (B, C, N, N)."""
        spec = self.spec
        if spec.probe_scale != 1.0 and divides_probe(spec):
            probe = (probe[0] / spec.probe_scale, probe[1] / spec.probe_scale)
        factor = output_scale
        if spec.intensity_scale_trainable:
            factor = output_scale * 0.0 + spec.intensity_scale
        elif self.output_gain != 1.0:
            factor = output_scale * self.output_gain
        # Without reassembly positions do not act; they stay an input of the graph.
        unmoved = (patches[0] + 0.0 * positions[:, :1, :, :1], patches[1])
        patches = self.overlap(patches, positions, probe) if spec.object_big else unmoved
        real, imag = (part.unsqueeze(2) for part in patches)
        probe_real, probe_imag = (part[None, None] for part in probe)
        if spec.physics == "rectangular":
            return self.intensity(real, imag, probe_real, probe_imag, factor.unsqueeze(2), experiment_id)
        return self.amplitude(real, imag, probe_real, probe_imag, factor, experiment_id)

    def overlap(self, patches: Pair, positions: Tensor, probe: Pair) -> Pair:
        """Return each pattern's view of the group's reassembled object."""
        dtype = patches[0].dtype
        matrix_y, matrix_x = self.translator.matrices(positions, dtype, inverse=False)
        columns = matrix_x.transpose(-1, -2)
        normalise = self.normaliser(matrix_y, matrix_x, columns, probe)
        back_y, back_x = self.translator.matrices(positions, dtype, inverse=True)
        back_columns = back_x.transpose(-1, -2)
        views = []
        for part in patches:
            canvas = normalise(matrix_y @ part @ columns)
            views.append(back_y @ canvas @ back_columns)
        return views[0], views[1]

    def normaliser(self, matrix_y: Tensor, matrix_x: Tensor, columns: Tensor, probe: Pair):  # type: ignore[no-untyped-def]
        """Return the function that adds up moved patches, (B, C, M, M) to (B, 1, M, M), with the era's weights."""
        spec = self.spec
        if spec.patch_weighting == "probe":
            illumination = (probe[0] * probe[0] + probe[1] * probe[1]).sum(0)[None, None]
            weight = matrix_y @ illumination @ columns
        else:
            box = self.translator.box.to(matrix_y.dtype).unsqueeze(-1)
            weight = (matrix_y @ box) * (matrix_x @ box).transpose(-1, -2)
        total = weight.sum(1, keepdim=True)
        if spec.rules.reassembly == "floored":
            covered = (total > WEIGHT_CUT).to(total.dtype)
            floor = torch.clamp_min(total, 1.0)
            return lambda moved: moved.sum(1, keepdim=True) / floor * covered
        if spec.rules.reassembly == "plain":
            return lambda moved: moved.sum(1, keepdim=True) / (total + CENTRAL_MASK_EPS)
        if spec.patch_weighting == "central_mask":
            covered = (total > WEIGHT_CUT).to(total.dtype)
            return lambda moved: (moved * weight).sum(1, keepdim=True) / (total + CENTRAL_MASK_EPS) * covered
        if spec.patch_weighting == "probe":
            covered = (total > WEIGHT_CUT * total.amax((-2, -1), keepdim=True)).to(total.dtype)
        else:
            covered = (total > WEIGHT_CUT).to(total.dtype)
        floor = torch.clamp_min(total, PROBE_WEIGHT_EPS)
        return lambda moved: (moved * weight).sum(1, keepdim=True) / floor * covered

    def far_field(self, real: Tensor, imag: Tensor) -> Pair:
        """Return the orthonormal two-dimensional Fourier transform, zero frequency in the centre."""
        cos, sin = self.fourier_cos, self.fourier_sin
        rows_real = cos @ real - sin @ imag
        rows_imag = cos @ imag + sin @ real
        cos_t, sin_t = cos.transpose(0, 1), sin.transpose(0, 1)
        return rows_real @ cos_t - rows_imag @ sin_t, rows_real @ sin_t + rows_imag @ cos_t

    def amplitude(
        self, real: Tensor, imag: Tensor, probe_real: Tensor, probe_imag: Tensor, factor: Tensor, ids: Tensor | None
    ) -> Tensor:
        """Return the amplitude detector's result; the orthonormal transform already divides |F|² by N²."""
        spec = self.spec
        exit_real = real * probe_real - imag * probe_imag
        exit_imag = real * probe_imag + imag * probe_real
        if spec.probe_mask != "none":
            exit_real, exit_imag = exit_real * self.probe_mask, exit_imag * self.probe_mask
        far_real, far_imag = self.far_field(exit_real, exit_imag)
        far_real, far_imag = far_real.sum(2), far_imag.sum(2)
        diffraction = torch.sqrt(far_real * far_real + far_imag * far_imag) / factor
        if spec.amplitude_physics_gain != 1.0:
            diffraction = diffraction * spec.amplitude_physics_gain
        if spec.intensity_scale_trainable and spec.rules.has_alpha_beta:
            diffraction = self.scale("alpha", ids, 4) * diffraction + self.scale("beta", ids, 4)
        return diffraction

    def intensity(
        self, real: Tensor, imag: Tensor, probe_real: Tensor, probe_imag: Tensor, factor: Tensor, ids: Tensor | None
    ) -> Tensor:
        """Return the rectangular detector's intensity."""
        scaled_real = self.scale("scale_real", ids, 5) * real * factor
        scaled_imag = self.scale("scale_imag", ids, 5) * imag * factor
        exit_real = probe_real * scaled_real - probe_imag * scaled_imag
        exit_imag = probe_imag * scaled_real + probe_real * scaled_imag
        far_real, far_imag = self.far_field(exit_real, exit_imag)
        if self.spec.rules.coherent_modes:
            far_real, far_imag = far_real.sum(2, keepdim=True), far_imag.sum(2, keepdim=True)
        return torch.relu((far_real * far_real + far_imag * far_imag).sum(2))
