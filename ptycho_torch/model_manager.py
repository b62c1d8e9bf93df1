"""The names users of PtychoPINN know: load, save and create models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ptycho_torch import params as params_module
from ptycho_torch.architecture import Architecture, detect
from ptycho_torch.build import build_models, bundle_params, require_torch, spec_from_params, with_params
from ptycho_torch.bundle import ROLES, read_bundle
from ptycho_torch.errors import ConfigurationError, EvidenceConflictError, MissingModelsError
from ptycho_torch.metadata import AMPLITUDE_PAIR, COUNTS_PAIR

if TYPE_CHECKING:
    from torch import nn

    from ptycho_torch.models.module import PtychoModel

Role = Literal["autoencoder", "diffraction_to_obj"]


def load_torch_bundle(
    base_path: str | Path,
    model_name: str | None = None,
    *,
    architecture: Architecture | None = None,
    params_cfg: Mapping[str, Any] | str | Path | None = None,
    ignore_extra: bool = False,
) -> tuple[dict[str, PtychoModel], dict[str, Any]]:
    """Load both models of a bundle, weights strictly, and apply its parameters to `params.cfg`.

    Args:
        base_path: PtychoPINN's base path (`{base_path}.zip` is read), a zip, an unpacked folder, a run directory or a `.ckpt`.
        model_name: as in PtychoPINN, both models are returned whatever it says. Where the physics is undecided,
            `diffraction_to_obj` is returned alone if it is named here; without, that is refused.
        architecture: fields that settle what the bundle leaves open (a dictionary, a `ModelSpec`, or a JSON file).
        params_cfg: parameters for what a checkpoint lacks (a dictionary or a JSON file).
        ignore_extra: leave out what a state_dict holds beside the model, such as averaged weights or metrics.

    Returns:
        ({name: module in eval mode, float32, on the CPU}, the bundle's parameters).

    Raises:
        FileNotFoundError: nothing is there.
        BundleError: the bundle is refused; `params.cfg` is then exactly as it was.
        TorchMissingError: PyTorch is not installed.

    Examples:
        >>> from ptycho_torch import load_torch_bundle
        >>> models, params = load_torch_bundle("wts.h5")
        >>> sorted(models), params["N"]
        (['autoencoder', 'diffraction_to_obj'], 64)
    """
    require_torch("load_torch_bundle")
    if model_name is not None and model_name not in ROLES:
        raise MissingModelsError(f"no model is called {model_name!r}; a bundle holds {' and '.join(ROLES)}")
    record = with_params(read_bundle(base_path, ignore_extra=ignore_extra), params_cfg)
    with params_module.restored_on_failure() as cfg:
        detections = {role: detect(record, role, architecture) for role in ROLES}
        refusal = detections["autoencoder"].autoencoder_refusal
        if refusal is not None:
            if model_name != "diffraction_to_obj":
                raise refusal
            del detections["autoencoder"]
        values = bundle_params(record, detections["diffraction_to_obj"])
        params_module.update_legacy_dict(cfg, values)
        models = build_models(record, detections)
    return models, values


def load_inference_bundle_torch(
    bundle_dir: str | Path,
    model_name: str = "diffraction_to_obj",
    *,
    scale_contract_version: str | None = None,
    measurement_domain: str | None = None,
) -> tuple[dict[str, PtychoModel], dict[str, Any]]:
    """Load a training run's bundle for inference.

    Args:
        bundle_dir: the run's directory holding `wts.h5.zip`, or anything `load_torch_bundle` takes.
        model_name: as in `load_torch_bundle`.
        scale_contract_version: `legacy_v1` or `ci_intensity_v2`; PtychoPINN asks for it where a bundle has no metadata. Here
            it is compared with what the bundle implies.
        measurement_domain: `normalized_amplitude` or `count_intensity`; likewise.

    Returns:
        ({name: module in eval mode}, the bundle's parameters).

    Raises:
        ConfigurationError: a pair that PtychoPINN does not have.
        EvidenceConflictError: a pair that is not the model's; `params.cfg` is then exactly as it was.
        BundleError: as `load_torch_bundle` does.

    Examples:
        >>> from ptycho_torch import load_inference_bundle_torch
        >>> models, params = load_inference_bundle_torch(".")
        >>> models["diffraction_to_obj"].training
        False
    """
    given = (scale_contract_version, measurement_domain)
    pairs = [
        pair for pair in (AMPLITUDE_PAIR, COUNTS_PAIR) if all(g in (None, p) for g, p in zip(given, pair, strict=True))
    ]
    if not pairs:
        raise ConfigurationError(
            f"scale_contract_version {given[0]!r} with measurement_domain {given[1]!r}; expected "
            f"{' with '.join(map(repr, AMPLITUDE_PAIR))}, or {' with '.join(map(repr, COUNTS_PAIR))}"
        )
    with params_module.restored_on_failure():
        models, values = load_torch_bundle(bundle_dir, model_name)
        for model in models.values():
            wanted = COUNTS_PAIR if model.spec.measurement_domain == "counts" else AMPLITUDE_PAIR
            if wanted not in pairs:
                raise EvidenceConflictError(
                    f"{bundle_dir}: {' and '.join(g for g in given if g)} was asked for, but the model takes "
                    f"{wanted[1]} ({wanted[0]})"
                )
            if given != (None, None):
                model.data_config.scale_contract_version, model.data_config.measurement_domain = wanted
    return models, values


def create_torch_model_with_gridsize(
    gridsize: int, N: int, params_dict: Mapping[str, Any] | None = None
) -> PtychoModel:
    """Return a freshly initialised model of the current era for a group size and a pattern size (px).

    Args:
        gridsize: patterns along each side of a group; C = gridsize².
        N: side of a pattern, 64, 128 or 256 px.
        params_dict: legacy parameters or `ModelSpec` fields that differ from the defaults.

    Raises:
        ConfigurationError: sizes or values that PtychoPINN does not have.
        TorchMissingError: PyTorch is not installed.

    Examples:
        >>> from ptycho_torch import create_torch_model_with_gridsize
        >>> model = create_torch_model_with_gridsize(2, 64)
        >>> model.spec.in_channels
        4
    """
    require_torch("create_torch_model_with_gridsize")
    from ptycho_torch.models.module import PtychoModel

    return PtychoModel(spec_from_params(gridsize, N, params_dict or {})).eval()


def save_torch_bundle(
    models_dict: Mapping[str, nn.Module | Mapping[str, Any]],
    base_path: str | Path,
    config: Any,
    intensity_scale: float | None = None,
) -> Path:
    """Write models and their configuration as `{base_path}.zip`, in PtychoPINN's layout.

    A module built here is described in `architecture.json` too, for what params and weights do not say. Modules of the
    newer eras get `torch_scaling_metadata.pt`, with the fields that they came with or those of their era.

    Args:
        models_dict: `autoencoder` and `diffraction_to_obj`: modules, state_dicts or `{"_sentinel": name}`.
        base_path: where to write, without `.zip`; parent folders are made.
        config: a configuration dataclass or legacy dictionary; values that are None are left out.
        intensity_scale: stored with the parameters; `params.cfg`'s, else 1.0, where None.

    Returns:
        The path written.

    Raises:
        MissingModelsError: one of the two models is absent.
        ConfigurationError: a probe mask that the era's bundles cannot hold.
        OutputError: the folder cannot be written; an older file stays as it was.
        TorchMissingError: PyTorch is not installed.

    Examples:
        >>> from ptycho_torch import create_torch_model_with_gridsize, save_torch_bundle
        >>> model = create_torch_model_with_gridsize(1, 64)
        >>> save_torch_bundle({"autoencoder": model, "diffraction_to_obj": model}, "new/wts.h5", {"N": 64, "gridsize": 1}).name
        'wts.h5.zip'
    """
    require_torch("save_torch_bundle")
    from ptycho_torch.save import save_bundle

    return save_bundle(models_dict, base_path, config, intensity_scale)
