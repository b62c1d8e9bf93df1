"""One bundle or checkpoint as it lies on disk, as plain values and numpy arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ptycho_runtime.files import printable
from ptycho_torch.bundle.members import Members
from ptycho_torch.bundle.state_dict import is_foreign
from ptycho_torch.bundle.tensors import StateDict
from ptycho_torch.errors import DamagedBundleError


@dataclass(frozen=True)
class Sentinel:
    """What a training run leaves in place of one role's weights: a marker, no numbers."""

    value: str


@dataclass(frozen=True)
class BundleRecord:
    """One bundle or checkpoint as it lies on disk."""

    path: Path
    kind: str  # "zip", "folder" or "ckpt"
    sha256: str  # of the file; of the members for a folder
    members_sha256: str  # of PtychoPINN's own members, whatever archive they sit in
    members: tuple[tuple[str, int], ...]  # (name, size in bytes), in the archive's order
    manifest: dict[str, Any] | None
    params: dict[str, dict[str, Any]]
    weights: dict[str, StateDict | Sentinel]
    metadata: dict[str, Any] | None = None
    checkpoint: dict[str, Any] | None = None
    exports: dict[str, Any] | None = None
    architecture: dict[str, Any] | None = None
    notices: tuple[str, ...] = ()
    """What was passed over or converted while reading."""
    _content: Members | None = field(default=None, repr=False, compare=False)
    _digests: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)  # of PtychoPINN's own members

    @property
    def own_digests(self) -> Mapping[str, str]:
        """Return the sha256 of PtychoPINN's own members as they were read, by name."""
        return self._digests

    def read_member(self, name: str) -> bytes:
        """Return the content of a listed member; raises `DamagedBundleError` if the bundle lacks it or it changed."""
        if self._content is None or name not in self._content:
            raise DamagedBundleError(f"{self.path}: has no member {printable(ascii(name))}")
        data = self._content[name]
        if name in self._digests and hashlib.sha256(data).hexdigest() != self._digests[name]:
            raise DamagedBundleError(f"{self.path}: member {name!r} changed since the bundle was read; start again")
        return data


def without_foreign(record: BundleRecord) -> BundleRecord:
    """Return a record without what its state_dicts hold beside the model; a notice names it."""
    weights: dict[str, StateDict | Sentinel] = {}
    foreign: dict[str, None] = {}
    for role, state in record.weights.items():
        if isinstance(state, Sentinel):
            weights[role] = state
            continue
        here = [key for key in state if is_foreign(key)]
        if len(here) == len(state):
            here = []
        foreign.update(dict.fromkeys(here))
        # Roles that share one state_dict go on sharing it.
        same = next((role_ for role_, other in record.weights.items() if other is state and role_ in weights), None)
        weights[role] = weights[same] if same is not None else {k: v for k, v in state.items() if k not in foreign}
    if not foreign:
        return record
    names = [printable(name) for name in foreign]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    notice = f"{record.path.name}: left out of the state_dict: {', '.join(names[:5])}{more}"
    return replace(record, weights=weights, notices=(*record.notices, notice))
