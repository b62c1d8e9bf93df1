"""Save → detect gives the same architecture back, or the refusal lists it; what is silently assumed is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from spec_strategies import MASK, hyper_parameters, record, release_params, specs  # noqa: E402

from ptycho_torch import load_torch_bundle, read_bundle, save_torch_bundle  # noqa: E402
from ptycho_torch.architecture import Detection, detect  # noqa: E402
from ptycho_torch.bundle import ROLES  # noqa: E402
from ptycho_torch.errors import AmbiguousArchitectureError, ConfigurationError  # noqa: E402
from ptycho_torch.metadata import spec_metadata  # noqa: E402
from ptycho_torch.models.module import PtychoModel  # noqa: E402
from ptycho_torch.spec import ModelSpec  # noqa: E402

QUICK = settings(max_examples=16, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
LONG = settings(QUICK, max_examples=1000)


def buildable(spec: ModelSpec) -> ModelSpec:
    """Skip what the drawn numbers make impossible (the outer path needs fewer channels than there are)."""
    try:
        with torch.device("meta"):
            PtychoModel(spec, MASK if spec.probe_mask == "tensor" else None)
    except ConfigurationError:
        assume(False)
    return spec


def same(spec: ModelSpec) -> None:
    spec = buildable(spec)
    found = record(spec, architecture=spec.to_json())
    for role in ROLES:
        assert detect(found, role).spec == spec


def same_from_metadata(spec: ModelSpec) -> None:
    spec = buildable(spec)
    metadata = spec_metadata(spec, MASK if spec.probe_mask == "tensor" else None)
    found = detect(record(spec, metadata=metadata))
    assert found.spec == spec, differences(spec, found.spec)
    if spec.probe_mask == "tensor":
        assert np.array_equal(found.probe_mask, MASK)


def refused_or_assumed(spec: ModelSpec) -> None:
    spec = buildable(spec)
    try:
        found = detect(record(spec, params=release_params(spec)))
    except AmbiguousArchitectureError as error:
        assert f'"{spec.era}"' in str(error) or "parity_scale_mode" in str(error)
        return
    silent = silently_other(spec, found)
    # One probe mode is exported where the two eras that add modes differently cannot be told apart.
    assert silent <= ({"era"} if found.notices else set()), (silent, found.notices)


def refused_or_assumed_from_checkpoint(spec: ModelSpec) -> None:
    spec = buildable(spec)
    try:
        found = detect(record(spec, kind="ckpt", checkpoint={"hyper_parameters": hyper_parameters(spec)}))
    except AmbiguousArchitectureError:
        return
    silent = silently_other(spec, found)
    one_network = spec.supervised and {spec.era, found.spec.era} == {"A", "A2"}  # they differ in their physics alone
    assert silent <= ({"era"} if found.notices or one_network else set()), (
        differences(spec, found.spec),
        found.notices,
    )


def silently_other(spec: ModelSpec, found: Detection) -> set[str]:
    """Return the fields that came out otherwise though nothing says that they are assumed."""
    # What a disk is like is no question of its own where it is assumed that there is none.
    of_the_disk = {"probe_mask_sigma_px", "probe_mask_diameter_px"} if "probe_mask" in found.assumed else set()
    return set(differences(spec, found.spec)) - set(found.assumed) - of_the_disk


def differences(first: ModelSpec, second: ModelSpec) -> dict[str, tuple[Any, Any]]:
    return {k: (v, second.to_json()[k]) for k, v in first.to_json().items() if v != second.to_json()[k]}


@given(specs())
@QUICK
def test_saved_bundle_gives_its_spec_back(spec: ModelSpec) -> None:
    same(spec)


@given(specs(("J0", "J")))
@QUICK
def test_metadata_alone_gives_the_spec_back(spec: ModelSpec) -> None:
    same_from_metadata(spec)


@given(specs())
@QUICK
def test_without_metadata_what_differs_is_refused_or_reported_as_assumed(spec: ModelSpec) -> None:
    refused_or_assumed(spec)


@given(specs())
@QUICK
def test_a_checkpoint_gives_its_spec_back_or_says_what_it_leaves_open(spec: ModelSpec) -> None:
    refused_or_assumed_from_checkpoint(spec)


@pytest.mark.long
@pytest.mark.parametrize(
    ("check", "drawn"),
    [
        (same, specs()),
        (same_from_metadata, specs(("J0", "J"))),
        (refused_or_assumed, specs()),
        (refused_or_assumed_from_checkpoint, specs()),
    ],
)
def test_the_same_for_many_more(check: Any, drawn: Any) -> None:
    LONG(given(drawn)(check))()


@pytest.mark.parametrize(
    "values",
    [
        {"era": "A", "n_filters_scale": 1},
        {"era": "A2", "n_filters_scale": 1, "encoder_attention": "cbam", "max_neighbor_distance_px": 5.0},
        {"era": "U2", "generator": "unet", "n_filters_scale": 1, "physics": "rectangular", "patch_weighting": "probe", "output_mode": "real_imag"},
        {"era": "J", "n_filters_scale": 1, "amp_channels": 4, "c_outer": 4, "border_mask": True, "supervised": True},
        {"era": "J", "generator": "fno", "fno_width": 4, "fno_modes": 3, "output_mode": "amp_phase_logits", "num_datasets": 2},
    ],
    ids=lambda v: f"{v['era']} {v.get('generator', 'cnn')}",
)  # fmt: skip
def test_round_trip_over_the_disk(values: dict[str, Any], tmp_path: Path) -> None:
    spec = ModelSpec(**{"generator": "cnn", "N": 64, "gridsize": 2, **values})
    torch.manual_seed(1)
    models = {role: PtychoModel(spec) for role in ROLES}
    path = save_torch_bundle(models, tmp_path / "w", {"N": 64, "gridsize": 2})
    assert detect(read_bundle(path)).spec == spec
    loaded, _ = load_torch_bundle(path)
    for role, model in models.items():
        assert all(torch.equal(v, loaded[role].state_dict()[k]) for k, v in model.state_dict().items())
