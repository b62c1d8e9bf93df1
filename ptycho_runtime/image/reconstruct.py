"""A scan to one object: reader, session and stitcher side by side, with a bounded queue between each two."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.engine.session import Session
from ptycho_runtime.engine.variants import OpenedVariant, refuse_beyond
from ptycho_runtime.errors import ReconstructionError, VariantRefusedError
from ptycho_runtime.export.bundle import Export
from ptycho_runtime.image.core import Core, Graphs, Setup
from ptycho_runtime.image.options import Progress, ReconstructOptions
from ptycho_runtime.image.origin import origin_of
from ptycho_runtime.image.result import Reconstruction, Timing
from ptycho_runtime.scan.grouping import grouped
from ptycho_runtime.scan.scale import scale_of_energy
from ptycho_runtime.scan.scan import Scan
from ptycho_runtime.threads import Behind, ahead

_READ_AHEAD = 4  # batches
_STITCH_BEHIND = 2  # batches
_PROOF_GROUPS = 16  # of a scan, on which reduced precision is compared with float32


def reconstruct(
    export: Export,
    graphs: Graphs,
    scan: Scan,
    options: ReconstructOptions | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Return the object of a scan.

    Args:
        export: what the graphs are.
        graphs: sessions that are open.
        scan: patterns and positions.
        options: how; what `ReconstructOptions` says where None.
        progress: called with (groups that are through the session, groups in all).

    Reading, the session and stitching overlap. The stitcher takes batches one by one in the scan's order, so the object does
    not depend on timing. An error in any of the three is raised here. KeyboardInterrupt ends the reading; what is through the
    session is stitched and returned, marked partial.

    Raises:
        ReconstructionError: weights by a probe that the scan lacks; a crop that the model's patches do not hold.
        ScanError: the scan cannot be read to its end, or is too short for a group.
    """
    options = options or ReconstructOptions()
    patches, note = graphs.patches, graphs.note
    if options.weighting == "probe" and scan.probe is None:
        raise ReconstructionError(
            f"{scan.name}: has no probe; weight by --weighting window, or name it with --probe-key"
        )
    start = time.perf_counter()
    scan, groups, factor = grouped_and_scaled(export, patches, scan, options)
    if graphs.variant is not None:
        patches, note = _proven(patches, graphs.variant, _sample(scan, groups, export, factor))
    setup = Setup(factor, scan.probe, options.weighting, options.crop_px, options.object_scales)
    core = Core(export, replace(graphs, patches=patches), setup, scan.positions_px)
    try:
        try:
            put_through(core, scan, groups, progress=progress)
        except KeyboardInterrupt:
            if not core.groups:
                raise
        before = time.perf_counter()
        assembled = core.finish(partial=core.groups < len(groups), frc=options.frc)
        now = time.perf_counter()
        timing = Timing(now - start, core.clock.seconds, core.clock.first_seconds, now - before)
    finally:
        core.close()
    return Reconstruction(
        canvas=assembled.canvas,
        scan=scan,
        input_scale_factor=factor,
        groups=len(groups),
        done=core.groups,
        device=core.session.device,
        note="; ".join(filter(None, (note or core.session.note, export.domain_note, core.note))),
        engine=core.engine,
        timing=timing,
        trust=assembled.trust,
        object_scales=assembled.object_scales,
        ring_correlation=assembled.rings,
        origin=origin_of(export, scan, options, f"{core.engine} on {core.session.device}"),
    )


def grouped_and_scaled(
    export: Export, patches: Session, scan: Scan, options: ReconstructOptions
) -> tuple[Scan, np.ndarray, float]:
    """Return (the scan without patterns that no group takes, its groups (n, C), `input_scale_factor`).

    Args:
        export: what the graphs are.
        patches: the session of object patches.
        scan: patterns and positions.
        options: may bring the factor.

    Raises:
        ScanError: the scan is too short for a group.
    """
    one_by_one = patches.inputs[contract.DIFFRACTION].shape[1] == 1  # gridsize 1, or a model without reassembly
    scan, groups = grouped(scan, 1 if one_by_one else export.C, within_px=export.N)
    factor = (
        options.scale
        or export.scale_value
        or scale_of_energy(export.scale_formula, scan.energy(export.N, export.domain), export.N)
    )
    return scan, groups, factor


def put_through(
    core: Core, scan: Scan, groups: np.ndarray, ids: np.ndarray | None = None, progress: Progress | None = None
) -> None:
    """Read groups, put them through the session and stitch them, each beside the others.

    Args:
        core: takes them.
        scan: patterns and positions.
        groups: (n, C) indices into the scan.
        ids: (n, C) by which the core knows these patterns; the indices where None.
        progress: called with (groups that are through the session, groups in all).

    Raises:
        KeyboardInterrupt: in the calling thread; what is through the session is stitched by then.
        ScanError: the scan cannot be read to its end.
    """
    ids = groups if ids is None else ids
    through = 0
    reader = ahead(_batches(scan, groups, core.export, core.graphs.batch), _READ_AHEAD, "scan reader")
    stitching = Behind(core.take, _STITCH_BEHIND, "stitcher")
    try:
        try:
            for members, patterns in reader:
                named = ids[through : through + len(members)]
                stitching.put(core.run(named, patterns, scan.positions_px[members]))
                through += len(members)
                if progress:
                    progress(through, len(groups))
        except KeyboardInterrupt:
            stitching.finish()
            raise
        stitching.finish()
    finally:
        reader.close()
        stitching.close()


def _sample(scan: Scan, groups: np.ndarray, export: Export, factor: float) -> dict[str, np.ndarray]:
    """Return a few groups from all over a scan as a feed."""
    members = groups[np.unique(np.linspace(0, len(groups) - 1, _PROOF_GROUPS).round().astype(int))]
    patterns = scan.patterns(members.reshape(-1), export.N, export.domain)
    return {
        contract.DIFFRACTION: patterns.reshape(*members.shape, export.N, export.N),
        contract.INPUT_SCALE: np.full((len(members), 1, 1, 1), factor, np.float32),
    }


def _proven(float32: Session, variant: OpenedVariant, feed: dict[str, np.ndarray]) -> tuple[Session, str]:
    """Return (session, note): the variant if it keeps its budget on patterns of the scan, float32 and why not otherwise."""
    try:
        found = refuse_beyond(variant, feed, float32.run(feed), "patterns of this scan")
    except VariantRefusedError as error:
        return float32, f"float32 in place of reduced precision: {error}"
    return (
        variant.session,
        f"{variant.variant.label}; on {len(feed[contract.DIFFRACTION])} groups of this scan it errs {found}",
    )


def _batches(scan: Scan, groups: np.ndarray, export: Export, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (group members (b, C), patterns (b, C, N, N))."""
    for start in range(0, len(groups), batch):
        members = groups[start : start + batch]
        patterns = scan.patterns(members.reshape(-1), export.N, export.domain)
        yield members, patterns.reshape(*members.shape, export.N, export.N)
