"""Sub-pixel translation, reassembly of a group's patches, and the two detector models, era by era.

Everything acts on complex tensors and takes its precision from its inputs; only the sampling positions are float32 by
definition, because their rounding decides which pixels lie inside a patch's weight (see `sampling_positions_px`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptycho_torch.errors import ConfigurationError
from ptycho_torch.spec import ModelSpec

WEIGHT_CUT = 1e-6  # weights at or below this (absolute, or relative to the group's largest) leave a pixel empty
CENTRAL_MASK_EPS = 0.001
PROBE_WEIGHT_EPS = 1e-12


def sampling_grid(size_px: int) -> np.ndarray:
    """Return the normalised coordinates −1…1 of `size_px` pixels, (size_px,) float32.

    Computed as one fused multiply-add per element from both ends towards the middle, which is how vectorised
    linspace rounds; other roundings change the reassembled object by up to 1e-3.
    """
    step = float(np.float32(2.0 / (size_px - 1)))
    index = np.arange(size_px)
    half = size_px // 2
    return np.where(index < half, -1.0 + step * index, 1.0 - step * (size_px - 1 - index)).astype(np.float32)


def sampling_positions_px(shift_px: Tensor, grid: Tensor) -> Tensor:
    """Return where each output pixel samples the input when content moves by `shift_px`.

    Args:
        shift_px: (…,) any float dtype; movement along one axis, pixels.
        grid: (M,) float32 from `sampling_grid`.

    Returns:
        (…, M) float32 positions in pixels. Each step is done in float64 and rounded to float32, so that no compiler can
        contract two of them into one.
    """
    size_px = grid.shape[0]
    step = float(np.float32(2.0 / (size_px - 1)))
    moved = _float32(shift_px.float().double() * step).double().unsqueeze(-1)
    normalised = _float32(grid.double() - moved).double()
    return (_float32(normalised + 1.0).double() * (0.5 * (size_px - 1))).float()


def _float32(value: Tensor) -> Tensor:
    """Return a float64 value rounded to float32.

    A copy, because TorchScript's fuser for CUDA leaves out a rounding between two steps of one kernel, and makes no kernel across it:
    without it a predicted pattern was 4e-4 off on an H100, from the second batch on.
    """
    return value.float().clone()


def shift_matrix(shift_px: Tensor, grid: Tensor, pixel: Tensor) -> Tensor:
    """Return the bilinear translation along one axis as matrices, (…, M, M) of the dtype of `pixel`: rows are output pixels.

    Zero outside the input. `A_y @ image @ A_x.T` moves content by +shift (rows by y, columns by x).

    Args:
        shift_px: (…,) any float dtype; movement along one axis, pixels.
        grid: (M,) float32 from `sampling_grid`.
        pixel: (M,) 0 … M − 1. Made beforehand: a trace would keep the device on which it was made.
    """
    position = sampling_positions_px(shift_px, grid).to(pixel.dtype).unsqueeze(-1)
    return F.relu(1.0 - (position - pixel).abs())


def central_box(N: int) -> np.ndarray:
    """Return the one-dimensional weight of a patch's central half, (N,) float32: 1 inside, 0 outside."""
    box = np.zeros(N, np.float32)
    box[N // 4 : N // 4 + N // 2] = 1.0
    return box


def disk_probe_mask(N: int, sigma_px: float = 1.0, diameter_px: float | None = None) -> np.ndarray:
    """Return the soft probe mask: a disk smoothed by a Gaussian, between 0 and 1, largest value 1; (N, N) float32.

    Args:
        N: side of the mask, px.
        sigma_px: of the Gaussian, which is cut at 3·sigma; 0 or less leaves the edge hard.
        diameter_px: of the disk, which holds the pixels whose centres lie within; N/2 where None.

    Raises `ConfigurationError` for a disk that holds no pixel.
    """
    radius_px = (N / 2 if diameter_px is None else diameter_px) / 2
    axis = np.arange(N) - N // 2 + 0.5
    disk = (axis[:, None] ** 2 + axis[None, :] ** 2 < radius_px**2).astype(np.float64)
    if not disk.any():
        raise ConfigurationError(f"a probe mask of diameter {diameter_px} px holds no pixel")
    if sigma_px > 0.0:
        reach = max(1, math.ceil(3 * sigma_px))
        taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2.0)
        taps /= taps.sum()
        for ax in (0, 1):
            disk = np.apply_along_axis(lambda line: np.convolve(line, taps)[reach : reach + N], ax, disk)
    mask: np.ndarray = np.clip(disk / disk.max(), 0.0, 1.0).astype(np.float32)
    return mask


class Translator(nn.Module):
    """Move patches onto the group's canvas and back; holds the constants that depend on N and the canvas only."""

    grid: Tensor
    pixel: Tensor
    box: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        """Take sizes and the sign of the shift from `spec`."""
        super().__init__()
        self.N, self.canvas_px = spec.N, spec.canvas_px
        self.pad_px = (spec.canvas_px - spec.N) // 2
        self.sign = float(spec.rules.positions_sign)
        self.register_buffer("grid", torch.from_numpy(sampling_grid(spec.canvas_px)), persistent=False)
        pixel = np.arange(spec.canvas_px, dtype=np.float32)
        self.register_buffer("pixel", torch.from_numpy(pixel), persistent=False)
        self.register_buffer("box", torch.from_numpy(central_box(spec.N)), persistent=False)

    def matrices(self, positions: Tensor, dtype: torch.dtype, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Return (A_y, A_x) for positions (B, C, 1, 2) = (x, y) px: (B, C, M, N) onto the canvas, (B, C, N, M) back."""
        shift = positions[:, :, 0, :] * (-self.sign if inverse else self.sign)
        pixel = self.pixel.to(dtype)
        matrix_x = shift_matrix(shift[..., 0], self.grid, pixel)
        matrix_y = shift_matrix(shift[..., 1], self.grid, pixel)
        patch = slice(self.pad_px, self.pad_px + self.N)
        if inverse:
            return matrix_y[..., patch, :], matrix_x[..., patch, :]
        return matrix_y[..., patch], matrix_x[..., patch]


def apply_matrices(matrix_y: Tensor, image: Tensor, matrix_x: Tensor) -> Tensor:
    """Return A_y · image · A_xᵀ over the last two axes; a complex image is translated part by part."""
    if image.is_complex():
        real = apply_matrices(matrix_y, image.real, matrix_x)
        return torch.complex(real, apply_matrices(matrix_y, image.imag, matrix_x))
    return matrix_y @ image @ matrix_x.transpose(-1, -2)


class ForwardModel(nn.Module):
    """Object patches and probe to predicted diffraction: reassembly, extraction, illumination, detector.

    Parameter names (`alpha`, `beta`, `rect_scaler.s1`, `rect_scaler.s2`) are those of the stored state_dict.
    """

    probe_mask: Tensor

    def __init__(self, spec: ModelSpec, probe_mask: np.ndarray | None = None) -> None:
        """Build for `spec`; `probe_mask` (N, N) or (P, N, N) float is needed where `spec.probe_mask` is "tensor"."""
        super().__init__()
        self.spec = spec
        if spec.rules.has_alpha_beta:
            self.alpha = nn.Parameter(torch.ones(spec.num_datasets))
            self.beta = nn.Parameter(torch.ones(spec.num_datasets))
        if spec.rules.has_rect_scaler:
            self.rect_scaler = RectScaler(spec.num_datasets)
        self.translator = Translator(spec)
        mask = np.ones((1, 1), np.float32)
        if spec.probe_mask == "disk":
            mask = disk_probe_mask(spec.N, spec.probe_mask_sigma_px, spec.probe_mask_diameter_px)
        elif spec.probe_mask == "tensor":
            if probe_mask is None:
                raise ValueError("spec.probe_mask is 'tensor' but no probe mask was given")
            mask = np.asarray(probe_mask)
        self.register_buffer("probe_mask", torch.from_numpy(np.array(mask)), persistent=False)

    def forward(self, patches: Tensor, positions: Tensor, probe: Tensor, output_scale: Tensor, ids: Tensor) -> Tensor:
        """Return the predicted diffraction, (B, C, N, N): amplitude, or intensity for rectangular physics.

        Args:
            patches: (B, C, N, N) complex object patches.
            positions: (B, C, 1, 2) (x, y) offsets from the group's centre, px.
            probe: broadcastable to (B, C, P, N, N) complex.
            output_scale: (B, 1, 1, 1).
            ids: (B,) int64 dataset of each group.
        """
        spec = self.spec
        if divides_probe(spec):
            probe = probe / spec.probe_scale
        if spec.object_big:
            patches = self.extract(self.reassemble(patches, positions, probe), positions)
        if spec.physics == "rectangular":
            return self.rectangular_intensity(patches, probe, output_scale, ids)
        return self.amplitude(patches, probe, output_scale, ids)

    def reassemble(self, patches: Tensor, positions: Tensor, probe: Tensor) -> Tensor:
        """Return the group's object on its canvas, (B, 1, M, M) complex."""
        spec, translator = self.spec, self.translator
        dtype = patches.real.dtype
        matrix_y, matrix_x = translator.matrices(positions, dtype, inverse=False)
        moved = apply_matrices(matrix_y, patches, matrix_x)
        if spec.patch_weighting == "probe":
            weight = apply_matrices(matrix_y, (probe.abs() ** 2).sum(2), matrix_x)
        else:
            box = translator.box.to(dtype)
            weight = (matrix_y @ box).unsqueeze(-1) * (matrix_x @ box).unsqueeze(-2)
        total = weight.sum(1, keepdim=True)
        if spec.rules.reassembly == "floored":
            return moved.sum(1, keepdim=True) / total.clamp_min(1.0) * (total > WEIGHT_CUT)
        if spec.rules.reassembly == "plain":
            return moved.sum(1, keepdim=True) / (total + CENTRAL_MASK_EPS)
        weighted = (moved * weight).sum(1, keepdim=True)
        if spec.patch_weighting == "central_mask":
            return weighted / (total + CENTRAL_MASK_EPS) * (total > WEIGHT_CUT)
        cut = WEIGHT_CUT * (total.amax((-2, -1), keepdim=True) if spec.patch_weighting == "probe" else 1.0)
        return weighted / total.clamp_min(PROBE_WEIGHT_EPS) * (total > cut)

    def extract(self, canvas: Tensor, positions: Tensor) -> Tensor:
        """Return each pattern's view of the canvas, (B, C, N, N) complex."""
        matrix_y, matrix_x = self.translator.matrices(positions, canvas.real.dtype, inverse=True)
        return apply_matrices(matrix_y, canvas, matrix_x)

    def amplitude(self, patches: Tensor, probe: Tensor, output_scale: Tensor, ids: Tensor) -> Tensor:
        """Return √(|F|²/N²) with the zero frequency in the centre, unscaled to the data."""
        spec = self.spec
        exit_wave = patches.unsqueeze(2) * probe * self.probe_mask
        far_field = torch.fft.fft2(exit_wave).sum(2)
        intensity = (far_field.real**2 + far_field.imag**2) / spec.N**2
        diffraction: Tensor = torch.fft.fftshift(intensity, (-2, -1)).sqrt() / output_scale
        if spec.amplitude_physics_gain != 1.0:
            diffraction = diffraction * spec.amplitude_physics_gain
        if spec.intensity_scale_trainable and spec.rules.has_alpha_beta:
            diffraction = self.alpha[ids].view(-1, 1, 1, 1) * diffraction + self.beta[ids].view(-1, 1, 1, 1)
        return diffraction

    def rectangular_intensity(self, patches: Tensor, probe: Tensor, output_scale: Tensor, ids: Tensor) -> Tensor:
        """Return the intensity of probe × object with real and imaginary parts scaled apart."""
        scale_real = self.rect_scaler.s1[ids].view(-1, 1, 1, 1, 1)
        scale_imag = self.rect_scaler.s2[ids].view(-1, 1, 1, 1, 1)
        patches = patches.unsqueeze(2)
        exit_wave = scale_real * (probe * patches.real) + 1j * (scale_imag * (probe * patches.imag))
        far_field = torch.fft.fft2(output_scale.unsqueeze(2) * exit_wave, norm="ortho")
        if self.spec.rules.coherent_modes:
            far_field = far_field.sum(2, keepdim=True)
        intensity: Tensor = (far_field.real**2 + far_field.imag**2).sum(2)
        shifted: Tensor = torch.fft.fftshift(intensity, (-2, -1))
        return shifted.clamp_min(0.0)


class RectScaler(nn.Module):
    """Scales of the real and the imaginary part, one pair per dataset."""

    def __init__(self, num_datasets: int) -> None:
        """Allocate `s1` and `s2`, (num_datasets,)."""
        super().__init__()
        self.s1 = nn.Parameter(torch.ones(num_datasets))
        self.s2 = nn.Parameter(torch.ones(num_datasets))


def divides_probe(spec: ModelSpec) -> bool:
    """Say whether the physics divides the probe by `spec.probe_scale`."""
    return spec.physics == "amplitude" or spec.rules.rectangular_probe_divided
