"""From a `ModelSpec` to its network, for every generator that can be built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from ptycho_torch.eras import ERAS
from ptycho_torch.errors import ConfigurationError
from ptycho_torch.models.cnn import CNN
from ptycho_torch.models.ffno import FFNO
from ptycho_torch.models.fno import CascadedFNO, VanillaFNO
from ptycho_torch.models.unet import UNet
from ptycho_torch.models.uno import NeuralOperatorUNO
from ptycho_torch.spec import ModelSpec

GENERATORS: Mapping[str, Callable[[ModelSpec], nn.Module]] = MappingProxyType(
    {
        "cnn": CNN,
        "unet": UNet,
        "ffno": FFNO,
        "fno": CascadedFNO,
        "fno_vanilla": VanillaFNO,
        "neuralop_uno": NeuralOperatorUNO,
    }
)


def build_network(spec: ModelSpec) -> nn.Module:
    """Return the network whose weights a state_dict holds under `model.autoencoder.`.

    Called with `x` (B, in_channels, N, N) it returns two real tensors (B, C or 1, N, N) after all activations:
    amplitude and phase (rad), or real and imaginary part where `spec.output_mode` is `real_imag`.
    All its parameters come from the state_dict, so it can be built under `torch.device("meta")` and filled by
    `load_state_dict(..., strict=True, assign=True)`; its constants lie on the CPU from the start.

    Raises:
        ConfigurationError: PtychoPINN builds no such combination.
    """
    _refuse_impossible(spec)
    return GENERATORS[spec.generator](spec)


def _refuse_impossible(spec: ModelSpec) -> None:
    if spec.generator not in spec.rules.networks:
        having = [name for name, era in ERAS.items() if spec.generator in era.networks]
        raise ConfigurationError(
            f"generator {spec.generator!r} in era {spec.era!r}, whose networks are {', '.join(spec.rules.networks)}; "
            f"{spec.generator!r} belongs to era {' or '.join(having)}"
        )
    if spec.generator in ("cnn", "unet"):
        width = 32 * spec.n_filters_scale
        if spec.c_outer >= width:
            raise ConfigurationError(
                f"c_outer is {spec.c_outer}; the last decoder level has {width} channels (32·n_filters_scale), "
                "and at least one must remain for the inner path"
            )
        if spec.output_mode == "amp_phase_logits":
            raise ConfigurationError(f"generator {spec.generator!r} has no output mode 'amp_phase_logits'")
        if spec.generator == "unet" and spec.output_mode != "real_imag":
            raise ConfigurationError(f"the UNet's output mode is 'real_imag'; got {spec.output_mode!r}")
    if spec.generator == "neuralop_uno":
        wanted = {
            "N": 128,
            "gridsize": 1,
            "output_mode": "real_imag",
            "learned_input_channels": 1,
            "input_transform": "none",
        }
        for name, value in wanted.items():
            found = getattr(spec, name)
            if found != value:
                raise ConfigurationError(f"{name} is {found!r}; generator 'neuralop_uno' exists with {value!r} only")
