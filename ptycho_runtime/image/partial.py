"""What a core has taken so far as plain arrays: stored, read back, and put together with others' into the very same image.

Sums are exact and figures each pattern's own, so parts of a scan, merged in any order, give the bits of one run over all of it, the
verdict and the maps of deviation included. `PartialState.arrays` hold everything but the patches' middles and the amplitudes, which
are as many megabytes as patterns: these are `Records`, read as they are needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.image.core import Core
from ptycho_runtime.image.trust.overlap import Records

_AT_ONCE = 256  # records copied in one go


@dataclass(frozen=True)
class PartialState:
    """All that a core has taken."""

    made_with: dict[str, Any]
    """What parts of one image must have in common: model, graph, scale, weights, crop, domain, groups a run."""
    arrays: dict[str, np.ndarray]
    """By name: `ids` (n,), `positions_px` (n, 2), figures of each pattern, `members` (n, C) of groups by number (−1 where none),
    canvas `sums` (rows, columns, 5) with `origin` and `level`, `products`, `groups` done, `patch_copies`, `amplitude_copies`."""
    patches: Records
    """(crop, crop) complex64 by number, or by number · C + place in the group; there where `patch_copies` is not 0."""
    amplitudes: Records
    """(N, N) float16 by number; there where `amplitude_copies` is not 0."""

    @property
    def ids_done(self) -> np.ndarray:
        """Ids of the patterns whose own group is done, ascending."""
        found: np.ndarray = np.sort(self.arrays["ids"][np.isfinite(self.arrays["counts"])])
        return found


def made_with(core: Core) -> dict[str, Any]:
    """Return what parts of one image must have in common, as values that JSON holds."""
    setup, export = core.setup, core.export
    return {
        "model": export.sha256,
        "engine": core.session.engine,
        "engine_device": core.session.device,
        "outputs": sorted(core.session.outputs),
        "domain": export.domain,
        "N": export.N,
        "crop_px": core.stitcher.crop_px,
        "input_scale_factor": setup.factor,
        "weights": hashlib.sha256(core.stitcher.weights.tobytes()).hexdigest(),
        "probe": "" if setup.probe is None else hashlib.sha256(np.ascontiguousarray(setup.probe).tobytes()).hexdigest(),
        "object_scales": setup.object_scales,
        "batch": core.graphs.batch,
    }


def state_of(core: Core) -> PartialState:
    """Return what a core has taken so far; its arrays are copies, its records those of the core."""
    evidence = core.evidence
    arrays = {name: values.copy() for name, values in evidence.columns().items()}
    arrays |= core.stitcher.state()
    arrays |= {
        "members": evidence.members.copy(),
        "copies": np.array(evidence.copies),
        "groups": np.array(core.groups),
        "patch_copies": evidence.patches.copies.copy(),
        "amplitude_copies": evidence.amplitudes.copies.copy(),
    }
    if core.scales is not None:
        arrays["products"] = core.scales.products
    return PartialState(made_with(core), arrays, evidence.patches, evidence.amplitudes)


def absorb(core: Core, part: PartialState) -> None:
    """Add a part to a core.

    Args:
        core: made with the same export, graphs and setup.
        part: of another core, none of whose groups this one has.

    Raises:
        ReconstructionError: it was made with something else, or a group is in both.
    """
    _refuse_others(core, part.made_with)
    arrays, evidence = part.arrays, core.evidence
    numbers = core.numbered(arrays["ids"], arrays["positions_px"])
    done = np.isfinite(arrays["counts"])
    both = np.isfinite(evidence.counts[numbers]) & done
    if both.any():
        raise ReconstructionError(
            f"frame {arrays['ids'][both][0]} is in two parts; expected each in one; give each part once"
        )
    for name, values in evidence.columns().items():
        if name not in ("ids", "positions_px"):
            values[numbers[done]] = arrays[name][done]
    C = int(arrays["copies"])
    if C > 1:
        groups = np.flatnonzero(arrays["members"][:, 0] >= 0)
        evidence.keep_groups(numbers[arrays["members"][groups]])
    records = (numbers[:, None] * C + np.arange(C)).reshape(-1)
    for which in _chunks(np.flatnonzero(arrays["patch_copies"][: len(numbers) * C])):
        evidence.keep_patches(records[which], part.patches.get(which))
    for which in _chunks(np.flatnonzero(arrays["amplitude_copies"])):
        evidence.keep_amplitudes(numbers[which], part.amplitudes.get(which))
    _add_sums(core, arrays)
    core.groups += int(arrays["groups"])


def resume(core: Core, made: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Bring a core without any pattern to where another was whose files of patches and amplitudes lie in its own folder.

    Raises:
        ReconstructionError: that one was made with something else.
    """
    _refuse_others(core, made)
    evidence = core.evidence
    numbers = core.numbered(arrays["ids"], arrays["positions_px"])
    for name, values in evidence.columns().items():
        values[numbers] = arrays[name]
    if int(arrays["copies"]) > 1:
        groups = np.flatnonzero(arrays["members"][:, 0] >= 0)
        evidence.keep_groups(arrays["members"][groups])
    evidence.patches.holds(arrays["patch_copies"])
    evidence.amplitudes.holds(arrays["amplitude_copies"])
    _add_sums(core, arrays)
    core.groups = int(arrays["groups"])


def _add_sums(core: Core, arrays: Mapping[str, np.ndarray]) -> None:
    core.stitcher.absorb(core.stitcher.with_state(arrays))
    if core.scales is not None and "products" in arrays:
        core.scales.absorb(arrays["products"])


def _refuse_others(core: Core, made: Mapping[str, Any]) -> None:
    own = json.loads(json.dumps(made_with(core)))
    theirs = json.loads(json.dumps(dict(made)))
    other = [name for name in own if own[name] != theirs.get(name)]
    if other:
        name = other[0]
        raise ReconstructionError(
            f"a part was made with another {name}: {theirs.get(name)}; expected {own[name]}; make all parts with the same bundle and "
            "options"
        )


def _chunks(which: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(which), _AT_ONCE):
        yield which[start : start + _AT_ONCE]
