"""Lightning checkpoints: the model and its configuration; the state of the training run stays unread."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from ptycho_runtime.files import printable
from ptycho_torch.bundle.digests import digest_of
from ptycho_torch.bundle.layout import ROLES
from ptycho_torch.bundle.ranges import check_numbers
from ptycho_torch.bundle.record import BundleRecord
from ptycho_torch.bundle.state_dict import usable_weights
from ptycho_torch.bundle.tensors import TensorFile
from ptycho_torch.errors import DamagedBundleError, NotABundleError

# What a model is rebuilt from, and what says where the checkpoint comes from. The rest is optimisers, schedulers, loops,
# callbacks and data modules, whose tensors alone are twice the weights.
_WANTED = frozenset(
    (
        "state_dict",
        "hyper_parameters",
        "hparams_name",
        "ci_statistics",
        "ptychopinn_artifact",
        "epoch",
        "global_step",
        "pytorch-lightning_version",
    )
)


def checkpoint_record(path: Path, name: str, source: BinaryIO | memoryview, sha256: str) -> BundleRecord:
    """Return what a checkpoint holds.

    Args:
        path: the file it comes from.
        name: its own name, for messages.
        source: its content.
        sha256: of its content.

    Raises:
        NotABundleError: a PyTorch file without a state_dict.
        BundleError: as `ptycho_torch.bundle.read.read_bundle` does.
    """
    keys: list[str] = []

    def want(key: Any) -> bool:
        keys.append(str(key))
        return key in _WANTED

    file = TensorFile(source, name, training_state=True)
    whole = file.load(want)
    if not isinstance(whole, dict):
        raise DamagedBundleError(f"{name}: holds {type(whole).__name__}; expected a dictionary with text keys")
    if "state_dict" not in whole:
        raise NotABundleError(_without_state_dict(name, keys))
    stored = whole.pop("state_dict")
    weights, notices = usable_weights(stored, f"{name}: state_dict", file)
    skipped = [printable(f"{module}.{attribute}") for module, attribute in dict.fromkeys(file.findings.skipped_globals)]
    if skipped:
        notices.append(f"{name}: state of the training run is skipped unread ({', '.join(skipped[:5])})")
    check_numbers(whole, name)
    digests = {name: sha256}
    return BundleRecord(
        path=path,
        kind="ckpt",
        sha256=sha256,
        members_sha256=digest_of(digests),
        members=(),
        manifest=None,
        params={},
        weights=dict.fromkeys(ROLES, weights),
        checkpoint=whole,
        notices=tuple(notices),
        _digests=digests,
    )


def _without_state_dict(name: str, keys: list[str]) -> str:
    if any(key.startswith("model.") for key in keys):
        return (
            f"{name}: is a state_dict alone, without the configuration it was trained with; give the wts.h5.zip, or the "
            "checkpoint that Lightning wrote"
        )
    return (
        f"{name}: has no state_dict; expected a Lightning checkpoint (found {printable(', '.join(sorted(keys)[:20]))})"
    )
