"""`ModelSpec`: everything that decides which module a bundle's weights belong to, as plain JSON values."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ptycho_torch.eras import ERAS, Era, EraName
from ptycho_torch.errors import ConfigurationError, UnsupportedArchitectureError

Generator = Literal["cnn", "unet", "ffno", "fno", "fno_vanilla", "neuralop_uno"]
OutputMode = Literal["amp_phase", "real_imag", "amp_phase_logits"]

SIZES = (64, 128, 256)
MAX_GRIDSIZE = 8
MAX_CHANNELS = 4096  # far above any real width; a bound before anything is allocated from a file's numbers


@dataclass(frozen=True)
class ModelSpec:
    """One buildable architecture and the physics around it.

    Values are plain JSON types so that a spec can be written to a file, edited and given back as an override.
    Channel counts follow PtychoPINN: `C = gridsize**2` patterns form one group.

    Examples:
        >>> from ptycho_torch import ModelSpec
        >>> ModelSpec(era="J", generator="cnn", N=64, gridsize=2).in_channels
        4
    """

    era: EraName
    generator: Generator
    N: int
    gridsize: int
    supervised: bool = False
    object_big: bool = True
    probe_big: bool = True
    output_mode: OutputMode = "amp_phase"
    # CNN and UNet
    n_filters_scale: int = 2
    amp_activation: Literal["sigmoid", "silu"] = "silu"
    amp_channels: int = 1  # rows of the amplitude (or real) head; 1 is broadcast over the group
    c_outer: int = 8  # channels that feed the outer path of the last stage
    border_mask: bool = False
    batch_norm: bool = False
    encoder_attention: Literal["none", "cbam", "eca"] = "none"
    bottleneck_cbam: bool = False
    decoder_attention: Literal["none", "cbam", "eca", "spatial"] = "none"
    decoder_spatial_kernel: int = 7
    shared_decoder: bool = False
    # real and imaginary head of the UNet: 0.2 + tanh and 1.2·tanh, or tanh twice
    unet_heads: Literal["bounded", "tanh"] = "bounded"
    # spectral generators
    learned_input_channels: int = 1
    input_transform: Literal["none", "sqrt", "log1p", "instancenorm"] = "none"
    fno_width: int = 32
    fno_modes: int = 12
    fno_blocks: int = 4
    fno_cnn_blocks: int = 2
    # physics around the network
    physics: Literal["amplitude", "rectangular"] = "amplitude"
    patch_weighting: Literal["central_mask", "probe", "uniform"] = "central_mask"
    max_neighbor_distance_px: float = 3.0
    max_position_jitter_px: int = 10  # widens the canvas in eras A, A2, U, U2 and V; the others ignore it
    probe_scale: float = 1.0
    probe_mask: Literal["none", "disk", "tensor"] = "none"
    probe_mask_sigma_px: float = 1.0  # of the disk's edge
    probe_mask_diameter_px: float | None = None  # of the disk; N/2 where None
    amplitude_physics_gain: float = 1.0
    num_datasets: int = 1
    single_probe_mode: bool = (
        False  # the era is known only up to how several modes add, so one mode is all that is exported
    )
    parity_scale_mode: Literal["off", "tied", "fixed", "input", "output"] = "off"
    parity_fixed_delta: float = 0.0
    # scaling convention: the module as it was trained, or as PtychoPINN's own reload rebuilds it
    scaling: Literal["as-trained", "as-reloaded"] = "as-trained"
    intensity_scale_trainable: bool = (
        False  # True: the fixed scale below replaces both scale factors, then alpha/beta act
    )
    intensity_scale: float = 1.0
    measurement_domain: Literal["amplitude", "counts"] = "amplitude"

    def __post_init__(self) -> None:
        """Refuse values outside what PtychoPINN can build, before anything is allocated from them."""
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if get_origin(hint) is Literal:
                if value not in get_args(hint):
                    kind = UnsupportedArchitectureError if name == "generator" else ConfigurationError
                    raise kind(f"{name} is {value!r}; expected one of {', '.join(map(repr, get_args(hint)))}")
            elif hint is bool and not isinstance(value, bool):
                raise ConfigurationError(f"{name} is {value!r}; expected true or false")
            elif hint is int and (isinstance(value, bool) or not isinstance(value, int)):
                raise ConfigurationError(f"{name} is {value!r}; expected a whole number")
            elif hint is float:
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e30:
                    raise ConfigurationError(f"{name} is {value!r}; expected a finite number")
                object.__setattr__(self, name, float(value))
        if self.N not in SIZES:
            raise ConfigurationError(f"N is {self.N}; PtychoPINN builds networks for N = 64, 128 or 256 only")
        _within("gridsize", self.gridsize, 1, MAX_GRIDSIZE)
        for name in ("n_filters_scale", "learned_input_channels", "fno_blocks", "num_datasets"):
            _within(name, getattr(self, name), 1, 64)
        _within("fno_cnn_blocks", self.fno_cnn_blocks, 0, 64)
        for name in ("amp_channels", "c_outer", "fno_width"):
            _within(name, getattr(self, name), 1, MAX_CHANNELS)
        _within("fno_modes", self.fno_modes, 1, 512)
        _within("decoder_spatial_kernel", self.decoder_spatial_kernel, 1, 31)
        if not 0.0 <= self.max_neighbor_distance_px <= self.N:
            raise ConfigurationError(f"max_neighbor_distance_px is {self.max_neighbor_distance_px}; expected 0 to N")
        if self.max_position_jitter_px % 2 or not 0 <= self.max_position_jitter_px <= self.N:
            raise ConfigurationError(f"max_position_jitter_px is {self.max_position_jitter_px}; expected 0 to N, even")
        if self.probe_mask_diameter_px is not None:
            object.__setattr__(
                self, "probe_mask_diameter_px", _positive("probe_mask_diameter_px", self.probe_mask_diameter_px)
            )
        if not abs(self.probe_mask_sigma_px) <= self.N:
            raise ConfigurationError(f"probe_mask_sigma_px is {self.probe_mask_sigma_px}; expected at most N")
        if not self.probe_scale > 0.0 or not self.intensity_scale > 0.0:
            raise ConfigurationError("probe_scale and intensity_scale must be positive")

    @property
    def rules(self) -> Era:
        """What this era's modules do."""
        return ERAS[self.era]

    @property
    def C(self) -> int:
        """Patterns in one group."""
        return self.gridsize**2

    @property
    def in_channels(self) -> int:
        """Channels of the network's input."""
        if self.generator not in ("cnn", "unet"):
            return self.learned_input_channels * self.C
        return self.C if self.object_big else 1

    @property
    def out_channels(self) -> int:
        """Channels of the phase (or imaginary) output."""
        return self.C if self.object_big or self.generator not in ("cnn", "unet") else 1

    @property
    def object_channels(self) -> int:
        """Channels of the object patches: a shared decoder has one width for both heads."""
        return self.amp_channels if self.shared_decoder else self.out_channels

    @property
    def canvas_px(self) -> int:
        """Side M of the canvas on which a group's patches are reassembled, in pixels."""
        overlap = -(-self.max_neighbor_distance_px // 1)
        q = int(overlap + overlap % 2)
        jitter = self.max_position_jitter_px if self.rules.canvas_jitter else 0
        return self.N + (self.gridsize - 1) * q + jitter

    def to_json(self) -> dict[str, Any]:
        """Return the spec as a dictionary of plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelSpec:
        """Build a spec from what `to_json` gave; unknown or missing names raise `ConfigurationError`."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigurationError(
                f"unknown architecture field(s) {', '.join(unknown)}; known are {', '.join(sorted(known))}"
            )
        missing = sorted({"era", "generator", "N", "gridsize"} - set(values))
        if missing:
            raise ConfigurationError(f"architecture lacks the field(s) {', '.join(missing)}")
        return cls(**values)

    def dumps(self) -> str:
        """Return the spec as indented JSON text."""
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < 1e6:
        raise ConfigurationError(f"{name} is {value!r}; expected a positive number")
    return float(value)


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigurationError(f"{name} is {value}; expected {low} to {high}")
