"""The configuration dataclasses of PtychoPINN, with its names and defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ptycho_torch.errors import ConfigurationError


@dataclass
class ModelConfig:
    """What the network is.

    Examples:
        >>> from ptycho_torch import ModelConfig
        >>> ModelConfig(N=128, gridsize=2).n_filters_scale
        2
    """

    N: int = 64
    gridsize: int = 1
    n_filters_scale: int = 2
    model_type: Literal["pinn", "supervised"] = "pinn"
    architecture: str = "cnn"
    fno_modes: int = 12
    fno_width: int = 32
    fno_blocks: int = 4
    fno_cnn_blocks: int = 2
    learned_input_channels: int = 1
    max_hidden_channels: int | None = None
    resnet_width: int | None = None
    fno_input_transform: str = "none"
    generator_output_mode: str = "real_imag"
    amp_activation: str = "sigmoid"
    object_big: bool | None = None
    object_layout: str | None = None
    training_canvas: str | None = None
    training_patch_weighting: str | None = None
    probe_big: bool = True
    probe_mask: bool = False
    probe_mask_sigma: float = 1.0
    probe_mask_diameter: float | None = None
    pad_object: bool = True
    probe_scale: float = 4.0
    gaussian_smoothing_sigma: float = 0.0

    def __post_init__(self) -> None:
        """Resolve `object_big` and refuse sizes that no network has."""
        if self.object_big is None:
            self.object_big = True
        if self.N not in (64, 128, 256):
            raise ConfigurationError(f"N is {self.N!r}; PtychoPINN builds networks for N = 64, 128 or 256 only")
        if self.gridsize < 1:
            raise ConfigurationError(f"gridsize is {self.gridsize!r}; expected 1 or more")


@dataclass
class TrainingConfig:
    """How the network is trained.

    Examples:
        >>> from ptycho_torch import ModelConfig, TrainingConfig
        >>> TrainingConfig(ModelConfig(N=128)).batch_size
        16
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    train_data_file: Path | str | None = None
    test_data_file: Path | str | None = None
    batch_size: int = 16
    nepochs: int = 50
    mae_weight: float = 0.0
    nll_weight: float = 1.0
    realspace_mae_weight: float = 0.0
    realspace_weight: float = 0.0
    nphotons: float = 1e9
    n_groups: int | None = None
    n_images: int | None = None
    n_subsample: int | None = None
    subsample_seed: int | None = None
    neighbor_count: int = 4
    enable_oversampling: bool = False
    neighbor_pool_size: int | None = None
    positions_provided: bool = True
    probe_trainable: bool = False
    intensity_scale_trainable: bool = True
    output_dir: Path | str = "training_outputs"
    sequential_sampling: bool = False
    backend: Literal["tensorflow", "pytorch"] = "tensorflow"
    torch_loss_mode: Literal["poisson", "mae"] = "poisson"


@dataclass
class InferenceConfig:
    """What the network is applied to.

    Examples:
        >>> from ptycho_torch import InferenceConfig
        >>> InferenceConfig(model_path="run").model.N
        64
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    model_path: Path | str | None = None
    test_data_file: Path | str | None = None
    n_groups: int | None = None
    n_images: int | None = None
    n_subsample: int | None = None
    subsample_seed: int | None = None
    neighbor_count: int = 4
    enable_oversampling: bool = False
    neighbor_pool_size: int | None = None
    debug: bool = False
    output_dir: Path | str = "inference_outputs"
    backend: Literal["tensorflow", "pytorch"] = "tensorflow"
