"""One table of what each era of PtychoPINN does: everything that depends on an era stands in its row.

An era is a span of releases whose modules compute the same. Nothing else in the project asks which era it has; it reads
the field that it needs, by `ERAS[name]` or `ModelSpec.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, cast, get_args

from ptycho_runtime.contract import InputScaleFormula

# Oldest first.
EraName = Literal["A", "A2", "B", "V", "U", "U2", "J0", "J"]
Physics = Literal["amplitude", "rectangular"]
Weighting = Literal["central_mask", "probe", "uniform"]

SPECTRAL_GENERATORS: Final = ("ffno", "fno", "fno_vanilla", "neuralop_uno")
ALPHA_BETA: Final = frozenset({"alpha", "beta"})
RECT_SCALER: Final = frozenset({"rect_scaler.s1", "rect_scaler.s2"})

# What a model_config holds, by the release that wrote it: names that the release added, the newest first.
CONFIG_MARKS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "layout": ("use_legacy_decoder_channel_override", "rect_s1s2_init", "object_layout"),
        "learned": ("learned_input_channels",),
        "architecture": ("architecture",),
        "first": (),
    }
)


@dataclass(frozen=True, kw_only=True)
class Era:
    """What the modules and the bundles of one era have, and what its modules compute."""

    name: EraName
    note: str
    # -- how its state_dicts and records are known
    networks: tuple[str, ...]
    physics_keys: frozenset[str] = frozenset()
    """Names stored under `model.forward_model.`."""
    supervised: bool = True
    """Whether the era trains models without physics, too."""
    config_marks: tuple[str, ...]
    """Which of `CONFIG_MARKS` its model_config can have."""
    params_mark: str | None = None
    """The key of params.dill that this era added; None where another era has the same params."""
    metadata: Literal["none", "without layout", "with layout"] = "none"
    """What its bundles carry as `torch_scaling_metadata.pt`."""
    # -- what its networks compute
    border_mask: bool = False
    """Whether the outer path of the last stage is cut out of the central half."""
    probe_big_unsure: bool = False
    """Whether its training may have had `probe_big` off whatever params say."""
    real_imag_cnn: bool = False
    """Whether its CNN can give real and imaginary parts."""
    # -- what its physics computes
    physics: tuple[Physics, ...]
    """Detector models it can have; a single one is certain."""
    weighting: tuple[Weighting, ...]
    """Weights in the reassembly that it can have, the default first; a single one is certain."""
    positions_sign: Literal[1, -1]
    """Patches move by this many times their offset from the group's centre, and `positions` is fed times it."""
    reassembly: Literal["floored", "plain", "weighted"]
    """Sum over the sum of weights, at least 1; sum over the sum of weights; weighted mean."""
    canvas_jitter: bool
    """Whether `max_position_jitter` widens the canvas."""
    rectangular_probe_divided: bool = True
    """Whether rectangular physics divides the probe by `probe_scale`, as amplitude physics always does."""
    coherent_modes: bool = False
    """Whether rectangular physics adds the probe modes as waves and not as intensities."""
    probe_scale: float
    """What PtychoPINN's reload of a bundle without metadata divides the probe by."""
    disk_probe_mask: bool = False
    """Whether `probe_mask: True` is a soft disk."""
    own_scale: Literal["replaces factors", "ignored", "unknown"] = "replaces factors"
    """What a trainable `intensity_scale` does."""
    reload_copies_scale: bool = False
    """Whether PtychoPINN's reload makes the `intensity_scale` of params part of the module, which training did not."""
    # -- what a scan is fed as
    input_scale_formula: InputScaleFormula = "half_n_over_rms"

    @property
    def has_alpha_beta(self) -> bool:
        """Whether the physics stores `alpha` and `beta`."""
        return self.physics_keys >= ALPHA_BETA

    @property
    def has_rect_scaler(self) -> bool:
        """Whether the physics stores `rect_scaler.s1` and `.s2`."""
        return self.physics_keys >= RECT_SCALER


_ROWS = (
    Era(
        name="A",
        note="2025-11: plain CNN, amplitude physics",
        networks=("cnn",),
        config_marks=("first",),
        params_mark="",
        probe_big_unsure=True,
        physics=("amplitude",),
        weighting=("central_mask",),
        positions_sign=1,
        reassembly="floored",
        canvas_jitter=True,
        probe_scale=1.0,
        input_scale_formula="n_over_rms",
    ),
    Era(
        name="A2",
        note="2025-11 to 2026-01: CNN with CBAM encoder, alpha/beta, central-mask reassembly on a padded canvas",
        networks=("cnn",),
        physics_keys=ALPHA_BETA,
        config_marks=("first",),
        physics=("amplitude",),
        weighting=("central_mask",),
        positions_sign=1,
        reassembly="floored",
        canvas_jitter=True,
        probe_scale=1.0,
    ),
    Era(
        name="B",
        note="2026-02: CNN as A2, reassembly without padding",
        networks=("cnn",),
        physics_keys=ALPHA_BETA,
        config_marks=("architecture",),
        params_mark="architecture",
        physics=("amplitude",),
        weighting=("central_mask",),
        positions_sign=1,
        reassembly="plain",
        canvas_jitter=False,
        probe_scale=4.0,
        reload_copies_scale=True,
    ),
    Era(
        name="V",
        note="2026-06, varpro branch: rectangular physics and a padded canvas, probe or uniform weights",
        networks=("cnn", "unet"),
        physics_keys=RECT_SCALER,
        supervised=False,
        config_marks=("first", "architecture", "learned"),
        physics=("rectangular",),
        weighting=("probe", "uniform"),
        positions_sign=-1,
        reassembly="weighted",
        canvas_jitter=True,
        rectangular_probe_divided=False,
        probe_scale=1.0,
        own_scale="unknown",
    ),
    Era(
        name="U",
        note="2026-04: UNet, real/imaginary heads, rectangular physics, coherent probe modes",
        networks=("unet",),
        physics_keys=RECT_SCALER,
        supervised=False,
        config_marks=("first",),
        physics=("rectangular",),
        weighting=("probe",),
        positions_sign=1,
        reassembly="weighted",
        canvas_jitter=True,
        coherent_modes=True,
        probe_scale=1.0,
    ),
    Era(
        name="U2",
        note="2026-04 to 2026-07: as U, incoherent probe modes",
        networks=("unet",),
        physics_keys=RECT_SCALER,
        supervised=False,
        config_marks=("first", "architecture", "learned"),
        physics=("rectangular",),
        weighting=("probe",),
        positions_sign=1,
        reassembly="weighted",
        canvas_jitter=True,
        probe_scale=1.0,
        own_scale="ignored",
    ),
    Era(
        name="J0",
        note="2026-07: skip-free CNN and spectral generators, no border mask",
        networks=("cnn", *SPECTRAL_GENERATORS),
        physics_keys=ALPHA_BETA | RECT_SCALER,
        config_marks=("learned",),
        params_mark="learned_input_channels",
        metadata="without layout",
        real_imag_cnn=True,
        physics=("amplitude", "rectangular"),
        weighting=("central_mask", "probe", "uniform"),
        positions_sign=-1,
        reassembly="weighted",
        canvas_jitter=False,
        rectangular_probe_divided=False,
        probe_scale=4.0,
        disk_probe_mask=True,
        reload_copies_scale=True,
    ),
    Era(
        name="J",
        note="2026-07 and later: as J0, border mask and component-wise outer path",
        networks=("cnn", *SPECTRAL_GENERATORS),
        physics_keys=ALPHA_BETA | RECT_SCALER,
        config_marks=("layout",),
        params_mark="object_layout",
        metadata="with layout",
        border_mask=True,
        real_imag_cnn=True,
        physics=("amplitude", "rectangular"),
        weighting=("central_mask", "probe", "uniform"),
        positions_sign=-1,
        reassembly="weighted",
        canvas_jitter=False,
        rectangular_probe_divided=False,
        probe_scale=4.0,
        disk_probe_mask=True,
        reload_copies_scale=True,
    ),
)

ERA_NAMES: Final = cast("tuple[EraName, ...]", get_args(EraName))
ERAS: Final[Mapping[str, Era]] = MappingProxyType({row.name: row for row in _ROWS})
NEWEST: Final[EraName] = "J"


def config_mark(model_config: Mapping[str, object]) -> str:
    """Return which of `CONFIG_MARKS` a model_config has: the newest of which it holds a name."""
    return next(
        mark for mark, names in CONFIG_MARKS.items() if not names or any(name in model_config for name in names)
    )
