"""One part of a scan: some of its groups through the session, and everything that the whole image needs of them in one file."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ptycho_runtime.errors import OutputError, ReconstructionError
from ptycho_runtime.files import replacing
from ptycho_runtime.image.core import Core, Setup
from ptycho_runtime.image.options import Progress
from ptycho_runtime.image.origin import changed, versions
from ptycho_runtime.image.reconstruct import put_through
from ptycho_runtime.many.hdf5 import Room, opened, seal, write_hdf5
from ptycho_runtime.many.plan import Plan, slice_of

if TYPE_CHECKING:
    from ptycho_runtime.api import Reconstructor

KIND = "part"
FIGURES = ("counts", "peaks", "hot", "residual", "moments")
_AT_ONCE = 256  # records that are copied to the file

Records = Literal["patches", "amplitudes"]


@dataclass(frozen=True)
class Which:
    """One of several parts of a plan."""

    number: int
    """From 1."""
    count: int

    def __post_init__(self) -> None:
        """Refuse what is no part."""
        if not 1 <= self.number <= self.count:
            raise ReconstructionError(
                f"part {self.number}/{self.count} is none; expected 1/{self.count} to {self.count}/{self.count}"
            )

    def groups(self, plan: Plan) -> tuple[int, int]:
        """Return (first group, the one after the last)."""
        if self.count > plan.groups:
            raise ReconstructionError(
                f"{plan.path.name} has {plan.groups} groups; expected no more parts than that, not {self.count}"
            )
        return plan.groups * (self.number - 1) // self.count, plan.groups * self.number // self.count

    def __str__(self) -> str:
        """Return `7/64`."""
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class PartHeader:
    """What a part says of itself."""

    path: Path
    plan: Path
    plan_sha256: str
    which: Which
    first: int
    stop: int
    """Groups that are in it, as `Which.groups` has them."""
    device: str
    engine: str
    how: str
    """Engine, device, batch, threads and versions on which the last bits depend."""
    seconds: float
    session_seconds: float
    first_run_seconds: float
    note: str
    """What is to be said beside the result."""


def run_part(
    plan: Plan,
    which: Which,
    model: Reconstructor,
    out: Path,
    scan: Path | None = None,
    progress: Progress | None = None,
) -> PartHeader:
    """Put a part's groups through the session and write what the whole image needs of them.

    Args:
        plan: of the scan.
        which: part of it.
        model: the exported model, opened with `plan.run`, on whatever device.
        out: the part's file.
        scan: the scan's file on this host; where the plan says it is where None.
        progress: called with (groups done, groups of this part).

    Memory does not grow with the length of the scan, nor with that of the part, but for a hundred bytes a pattern.

    Raises:
        ReconstructionError: bundle, scan or engine is not the one that was planned for.
        ScanError: the scan cannot be read.
        OutputError: the part, or the temporary files beside it, cannot be written.
    """
    start = time.perf_counter()
    first, stop = which.groups(plan)
    plan.refuse_other_bundle(model.export.path, model.export.sha256)
    cut = slice_of(plan, first, stop, plan.scan_path if scan is None else scan)
    with cut.scan as part:
        image = plan.image
        setup = Setup(plan.factor, part.probe, image.weighting, image.crop_px, image.object_scales)
        graphs = model.graphs(image, has_probe=part.probe is not None)
        with Core(model.export, graphs, setup) as core:
            plan.refuse_other_engine(core.session.engine)
            put_through(core, part, cut.groups, cut.ids, progress)
            if core.evidence.lost:
                raise OutputError(core.evidence.lost)
            seconds = time.perf_counter() - start
            attributes = {
                "plan": str(plan.path),
                "plan_sha256": plan.sha256,
                "bundle_sha256": plan.bundle_sha256,
                "options": json.dumps({"scan": changed(plan.read), "image": changed(plan.image)}, default=str),
                "number": which.number,
                "count": which.count,
                "first": first,
                "stop": stop,
                "device": graphs.patches.device,
                "engine": core.session.engine,
                "how": f"{core.engine} on {core.session.device}, {_versions(core.session.engine)}",
                "seconds": seconds,
                "session_seconds": core.clock.seconds,
                "first_run_seconds": core.clock.first_seconds,
                "note": core.note,
            }
            _write(core, first, stop, attributes, out)
    return read_header(out)


def _versions(engine: str) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions().items() if name.startswith((engine, "numpy")))


def _write(core: Core, first: int, stop: int, attributes: Mapping[str, Any], out: Path) -> None:
    evidence = core.evidence
    order = np.argsort(evidence.ids, kind="stable")
    # Of each group its first pattern, by the number that the evidence has for it.
    numbers = order[np.searchsorted(evidence.ids[order], np.arange(first, stop))]
    copies = (numbers[:, None] * evidence.copies + np.arange(evidence.copies)).reshape(-1)
    stores = {"patches": (evidence.patches, copies)}
    if evidence.probe is not None:
        stores["amplitudes"] = (evidence.amplitudes, numbers)
    arrays = {"ids": np.arange(first, stop)}
    arrays |= {name: getattr(evidence, name)[numbers] for name in FIGURES}
    arrays |= core.stitcher.state()
    if core.scales is not None:
        arrays["products"] = core.scales.products
    rooms = {name: ((len(which), *store.shape), store.dtype) for name, (store, which) in stores.items()}
    with replacing(out) as file:
        places: dict[str, Room] = write_hdf5(file, KIND, attributes, arrays, rooms)
        for name, (store, which) in stores.items():
            for start in range(0, len(which), _AT_ONCE):
                places[name].write(start, store.get(which[start : start + _AT_ONCE]))
        seal(file)


def read_header(path: Path) -> PartHeader:
    """Return what a part says of itself.

    Raises:
        FileNotFoundError: nothing is there.
        ReconstructionError: it is no part, or damaged.
    """
    with opened(path, KIND) as file:
        said = dict(file.attrs)
        return PartHeader(
            path=path,
            plan=Path(said["plan"]),
            plan_sha256=str(said["plan_sha256"]),
            which=Which(int(said["number"]), int(said["count"])),
            first=int(said["first"]),
            stop=int(said["stop"]),
            device=str(said["device"]),
            engine=str(said.get("engine", "onnxruntime")),
            how=str(said["how"]),
            seconds=float(said["seconds"]),
            session_seconds=float(said["session_seconds"]),
            first_run_seconds=float(said["first_run_seconds"]),
            note=str(said["note"]),
        )


def is_done(path: Path, plan: Plan, which: Which) -> bool:
    """Say whether a part of this very plan lies at a path, whole."""
    try:
        header = read_header(path)
    except (OSError, ReconstructionError):
        return False
    return (header.plan_sha256, header.which) == (plan.sha256, which)
