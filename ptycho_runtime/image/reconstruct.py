"""A scan to one object: reader, session and stitcher side by side, with a bounded queue between each two."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ptycho_runtime import contract as c
from ptycho_runtime.engine.session import Session
from ptycho_runtime.engine.variants import OpenedVariant, refuse_beyond
from ptycho_runtime.errors import ReconstructionError, VariantRefusedError
from ptycho_runtime.export.bundle import Export
from ptycho_runtime.image.frc import half_scans
from ptycho_runtime.image.object_scales import ObjectScales, scales_left_open
from ptycho_runtime.image.options import Progress, ReconstructOptions
from ptycho_runtime.image.origin import origin_of
from ptycho_runtime.image.overlapping import Behind, ahead
from ptycho_runtime.image.result import Reconstruction, Timing
from ptycho_runtime.image.stitch import Stitcher, probe_weights
from ptycho_runtime.image.trust.assess import Evidence, assess
from ptycho_runtime.image.trust.residual import probe_parts, residuals
from ptycho_runtime.scan.grouping import group_offsets, grouped
from ptycho_runtime.scan.scale import scale_of_energy
from ptycho_runtime.scan.scan import Scan

_READ_AHEAD = 4  # batches
_STITCH_BEHIND = 2  # batches
_PROOF_GROUPS = 16  # of a scan, on which reduced precision is compared with float32


@dataclass(frozen=True)
class Graphs:
    """The sessions that a scan goes through."""

    patches: Session
    """The `diffraction_to_obj` graph, or the one of its middle."""
    autoencoder: Session | None = None
    """The other graph, for each pattern's residual; needs a probe in the scan. It gives the object as well."""
    variant: OpenedVariant | None = None
    """The graph of `patches` in reduced precision; used if it keeps its budget on patterns of this scan."""
    note: str = ""
    """What is to be said beside the result."""
    batch: int = 16
    """Groups a run."""


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
    patches, whole, note = graphs.patches, graphs.autoencoder, graphs.note
    if options.weighting == "probe" and scan.probe is None:
        raise ReconstructionError(
            f"{scan.name}: has no probe; weight by --weighting window, or name it with --probe-key"
        )
    start = time.perf_counter()
    one_by_one = patches.inputs[c.DIFFRACTION].shape[1] == 1  # gridsize 1, or a model without reassembly
    scan, groups = grouped(scan, 1 if one_by_one else export.C, within_px=export.N)
    factor = (
        options.scale
        or export.scale_value
        or scale_of_energy(export.scale_formula, scan.energy(export.N, export.domain), export.N)
    )
    weights = probe_weights(scan.probe) if scan.probe is not None and options.weighting != "window" else None
    if whole is not None and (scan.probe is None or c.PREDICTED not in whole.outputs):
        whole = None
    probe = probe_parts(whole, scan.probe) if whole is not None and scan.probe is not None else {}
    if graphs.variant is not None:
        patches, note = _proven(patches, graphs.variant, _sample(scan, groups, export, factor))
    baseline = export.record.trust_baseline if export.record else None
    stitcher = Stitcher(scan.positions_px, export.N, weights, options.crop_px)
    fits = scan.probe is not None and scan.probe.shape[-2:] == (export.N, export.N)
    evidence = Evidence(stitcher, scan.positions_px, scan.probe if fits else None, export.domain == "counts")
    open_scales, unscaled = scales_left_open(export, scan.probe) if options.object_scales else (None, "")
    finished = _Finished(export, scan, evidence, open_scales)
    clock = _SessionClock()
    through = 0
    reader = ahead(_batches(scan, groups, export, graphs.batch), _READ_AHEAD, "scan reader")
    stitching = Behind(finished.take, _STITCH_BEHIND, "stitcher")
    try:
        try:
            for members, patterns in reader:
                scales = np.full((len(members), 1, 1, 1), factor, np.float32)
                feed = {c.DIFFRACTION: patterns, c.INPUT_SCALE: scales}
                if whole is None:
                    outputs = clock.run(patches, feed)
                else:
                    feed |= probe
                    feed[c.POSITIONS] = group_offsets(scan.positions_px, members) * np.float32(export.positions_sign)
                    feed[c.OUTPUT_SCALE] = scales
                    feed[c.EXPERIMENT_ID] = np.zeros(len(members), np.int64)
                    outputs = clock.run(whole, feed)
                stitching.put(_Batch(members, patterns, outputs))
                through += len(members)
                if progress:
                    progress(through, len(groups))
            stitching.finish()
        except KeyboardInterrupt:
            stitching.finish()
            if not finished.groups:
                raise
        before = time.perf_counter()
        object_scales = finished.scale_object()
        trust = assess(evidence, baseline, partial=finished.groups < len(groups))
        rings = half_scans(evidence.placed(), stitcher.sums) if options.frc else None
        now = time.perf_counter()
        timing = Timing(now - start, clock.seconds, clock.first_seconds, now - before)
    finally:
        reader.close()
        stitching.close()
        evidence.close()
    return Reconstruction(
        canvas=stitcher.result(),
        scan=scan,
        input_scale_factor=factor,
        groups=len(groups),
        done=finished.groups,
        device=patches.device,
        note="; ".join(filter(None, (note or patches.note, export.domain_note, unscaled))),
        timing=timing,
        trust=trust,
        object_scales=object_scales,
        ring_correlation=rings,
        origin=origin_of(export, scan, options),
    )


class _SessionClock:
    """Adds up the time in which a session was running; runs follow each other, so nothing counts twice."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.first_seconds = 0.0

    def run(self, session: Session, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        before = time.perf_counter()
        outputs = session.run(feed)
        elapsed = time.perf_counter() - before
        self.first_seconds = self.first_seconds or elapsed
        self.seconds += elapsed
        return outputs


@dataclass(frozen=True)
class _Batch:
    """Groups that are through the session."""

    members: np.ndarray  # (b, C) int64
    patterns: np.ndarray  # (b, C, N, N) as fed
    outputs: dict[str, np.ndarray]  # of the graph that gave the object


class _Finished:
    """What has been made of the batches so far; one thread changes it."""

    def __init__(self, export: Export, scan: Scan, evidence: Evidence, scales: ObjectScales | None) -> None:
        self.export, self.scan, self.evidence, self.scales = export, scan, evidence, scales
        self.groups = 0

    def take(self, batch: _Batch) -> None:
        members = batch.members
        real, imag = object_parts(batch.outputs)
        flat = members.reshape(-1) if real.shape[1] == members.shape[1] else members[:, 0]
        evidence = self.evidence
        evidence.stitcher.keep = lambda first, patches: evidence.keep_patches(
            flat[first : first + len(patches)], patches
        )
        evidence.stitcher.add_parts(
            real.reshape(-1, *real.shape[2:]), imag.reshape(-1, *imag.shape[2:]), self.scan.positions_px[flat]
        )
        # A group's first pattern: each pattern is the first of one group.
        first, patterns = members[:, 0], batch.patterns[:, 0]
        evidence.keep_patterns(first, patterns)
        if self.scales is not None:
            self.scales.add(real[:, 0].astype(np.float64), imag[:, 0].astype(np.float64), patterns)
        if c.PREDICTED in batch.outputs:
            evidence.residual[first] = residuals(patterns, batch.outputs[c.PREDICTED][:, 0], self.export)
        self.groups += len(members)

    def scale_object(self) -> tuple[float, float] | None:
        """Multiply the object's parts by what was left open, and return these factors; None where nothing was."""
        if self.scales is None:
            return None
        found = self.scales.fit()
        self.evidence.stitcher.scale_parts(*found)
        self.evidence.object_scales = found
        return found


def object_parts(outputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return real and imaginary part of the object patches, (b, C or 1, S, S), from what any of the graphs gives."""
    if c.OBJECT_REAL in outputs:
        real, imag = outputs[c.OBJECT_REAL], outputs[c.OBJECT_IMAG]
    else:
        amplitude, phase = outputs[c.AMPLITUDE], outputs[c.PHASE]
        real, imag = amplitude * np.cos(phase), amplitude * np.sin(phase)
    return np.broadcast_to(real, imag.shape), imag


def _sample(scan: Scan, groups: np.ndarray, export: Export, factor: float) -> dict[str, np.ndarray]:
    """Return a few groups from all over a scan as a feed."""
    members = groups[np.unique(np.linspace(0, len(groups) - 1, _PROOF_GROUPS).round().astype(int))]
    patterns = scan.patterns(members.reshape(-1), export.N, export.domain)
    return {
        c.DIFFRACTION: patterns.reshape(*members.shape, export.N, export.N),
        c.INPUT_SCALE: np.full((len(members), 1, 1, 1), factor, np.float32),
    }


def _proven(float32: Session, variant: OpenedVariant, feed: dict[str, np.ndarray]) -> tuple[Session, str]:
    """Return (session, note): the variant if it keeps its budget on patterns of the scan, float32 and why not otherwise."""
    try:
        found = refuse_beyond(variant, feed, float32.run(feed), "patterns of this scan")
    except VariantRefusedError as error:
        return float32, f"float32 in place of reduced precision: {error}"
    return (
        variant.session,
        f"{variant.variant.label}; on {len(feed[c.DIFFRACTION])} groups of this scan it errs {found}",
    )


def _batches(scan: Scan, groups: np.ndarray, export: Export, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (group members (b, C), patterns (b, C, N, N))."""
    for start in range(0, len(groups), batch):
        members = groups[start : start + batch]
        patterns = scan.patterns(members.reshape(-1), export.N, export.domain)
        yield members, patterns.reshape(*members.shape, export.N, export.N)
