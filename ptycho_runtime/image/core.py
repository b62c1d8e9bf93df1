"""Ids, patterns and positions to one image: the way that scans on disk, parts of them and live streams all go.

Nothing in the result depends on the order in which patterns come, on how they share runs of the session, or on how they were split
among several cores whose state was put together: runs have one size, sums are exact, figures are each pattern's own, and what is
compared in the end is taken by ascending ids.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.closing import Closing
from ptycho_runtime.engine.hardware import usable_threads
from ptycho_runtime.engine.session import Session
from ptycho_runtime.engine.variants import OpenedVariant
from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.export.bundle import Export
from ptycho_runtime.image.frc import RingCorrelation, half_scans
from ptycho_runtime.image.object_scales import scales_left_open
from ptycho_runtime.image.options import Weighting
from ptycho_runtime.image.stitch import Canvas, Stitcher, holds_crop, probe_weights
from ptycho_runtime.image.trust.assess import assess_kept
from ptycho_runtime.image.trust.evidence import Evidence
from ptycho_runtime.image.trust.residual import probe_parts, residuals
from ptycho_runtime.image.trust.values import Trust
from ptycho_runtime.scan.grouping import offsets_within


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
    tuned: bool = False
    """Engine, groups a run or threads are those that were tuned on this host."""

    @property
    def leading(self) -> Session:
        """The session that patterns go through, where they have a probe to be compared by and reduced precision proves right."""
        if self.autoencoder is not None:
            return self.autoencoder
        return self.patches if self.variant is None else self.variant.session

    @property
    def said(self) -> list[str]:
        """What is to be said of the sessions before patterns go through them, a line each."""
        session = self.leading
        text = f"{session.engine} on {session.device}, batch {self.batch}, {session.options.threads or 'all'} threads"
        notes = (self.patches.note, session.note, self.note)
        return [*dict.fromkeys(filter(None, notes)), text + ", as tuned on this host" * self.tuned]


@dataclass(frozen=True)
class Setup:
    """What has to be known before the first pattern."""

    factor: float
    """`input_scale_factor`, the same for all patterns."""
    probe: np.ndarray | None = None
    """(modes, N, N) complex: for weights, residuals and the verdict."""
    weighting: Weighting = "auto"
    crop_px: int | None = None
    """Side of a patch's middle that is used; `stitch.default_crop_px` where None."""
    object_scales: bool = True
    """Fit the two factors that a model of counts leaves open, where there is a probe."""
    folder: Path | None = None
    """Where patches and amplitudes are kept for good; in temporary files where None."""


@dataclass(frozen=True)
class Batch:
    """Groups that are through the session."""

    ids: np.ndarray
    """(b, C) int64."""
    positions_px: np.ndarray
    """(b, C, 2) (x, y) float64."""
    patterns: np.ndarray
    """(b, C, N, N) float32 as fed."""
    outputs: dict[str, np.ndarray]
    """Of the graph that gave the object."""


@dataclass(frozen=True)
class Assembled:
    """What all patterns together give."""

    canvas: Canvas
    trust: Trust
    """Its arrays go by ascending ids."""
    object_scales: tuple[float, float] | None
    rings: RingCorrelation | None


class Core(Closing):
    """Patterns to one image: `run` in one thread, `take` and all else in another or the same.

    Examples:
        >>> core = Core(export, graphs, Setup(factor=0.03))  # doctest: +SKIP
        >>> core.take(core.run(ids, patterns, positions_px))  # doctest: +SKIP
        >>> core.finish().canvas.object  # doctest: +SKIP
    """

    def __init__(
        self,
        export: Export,
        graphs: Graphs,
        setup: Setup,
        positions_px: np.ndarray | None = None,
    ) -> None:
        """Begin without any pattern.

        Args:
            export: what the graphs are.
            graphs: sessions that are open; of these, the ones that patterns go through are settled here.
            setup: what holds for all patterns.
            positions_px: (n, 2) (x, y) of patterns that will have the ids 0 to n − 1, where they are known: the canvas then takes
                no more memory than it needs, and patterns that never come are `not reached` in the result.

        Raises:
            ReconstructionError: weights by a probe that there is none of; a probe of another size; a crop that does not fit.
        """
        probe, N = setup.probe, export.N
        if setup.weighting == "probe" and probe is None:
            raise ReconstructionError("there is no probe to weight by; weight by --weighting window, or give a probe")
        self.export, self.graphs, self.setup = export, graphs, setup
        if probe is not None and probe.shape[-2:] != (N, N):
            raise ReconstructionError(
                f"the probe is of {probe.shape[-2]} × {probe.shape[-1]} pixels, the model's patterns of {N} × {N}; give one of that size, "
                "or none"
            )
        weights = None if probe is None or setup.weighting == "window" else probe_weights(probe)
        known = np.zeros((0, 2)) if positions_px is None else positions_px
        self.stitcher = Stitcher(known, N, weights, setup.crop_px)
        self.evidence = Evidence(self.stitcher, known, probe, export.domain == "counts", folder=setup.folder)
        self.clock = SessionClock()
        self.groups = 0
        """That were taken."""
        whole = graphs.autoencoder
        self._whole = whole if probe is not None and whole is not None and contract.PREDICTED in whole.outputs else None
        self._probe_parts = probe_parts(self._whole, probe) if self._whole is not None and probe is not None else {}
        self.scales, self.note = scales_left_open(export, probe) if setup.object_scales else (None, "")
        # Of an object in amplitude and phase only the part that is stitched is worth its sines.
        needed = self.scales is None and holds_crop(N // 2, N, setup.crop_px)
        self._middle = contract.centre(N) if needed else slice(None)
        self._laid_out = len(known)
        self._numbers: dict[int, int] = {}  # by id, beyond those that were laid out

    @property
    def session(self) -> Session:
        """The one that patterns go through."""
        return self.graphs.patches if self._whole is None else self._whole

    @property
    def engine(self) -> str:
        """What patterns go through, in words: `onnxruntime float32, batch 16, 2 threads`."""
        session, variant = self.session, self.graphs.variant
        label = (
            f"{session.engine} float32" if variant is None or session is not variant.session else variant.variant.label
        )
        return f"{label}, batch {self.graphs.batch}, {session.options.threads or 'all'} threads"

    def run(self, ids: np.ndarray, patterns: np.ndarray, positions_px: np.ndarray) -> Batch:
        """Put groups through the session.

        Args:
            ids: (b, C) int64; each pattern is the first of one group at the most.
            patterns: (b, C, N, N) float32, amplitudes or counts as the model takes them.
            positions_px: (b, C, 2) (x, y).

        Raises:
            ReconstructionError: the session fails, or gives what is no finite number.
        """
        count = len(ids)
        # A pattern's patch depends on the size of its run in the last bits, and on nothing else that shares it.
        size = max(self.graphs.batch, count)
        padded = _repeated(patterns, size)
        scales = np.full((size, 1, 1, 1), self.setup.factor, np.float32)
        feed = {contract.DIFFRACTION: padded, contract.INPUT_SCALE: scales}
        if self._whole is not None:
            feed |= self._probe_parts
            offsets = offsets_within(positions_px) * np.float32(self.export.positions_sign)
            feed[contract.POSITIONS] = _repeated(offsets, size)
            feed[contract.OUTPUT_SCALE] = scales
            feed[contract.EXPERIMENT_ID] = np.zeros(size, np.int64)
        outputs = {name: values[:count] for name, values in self.clock.run(self.session, feed).items()}
        finite = np.ones(count, bool)
        for values in outputs.values():
            finite &= np.isfinite(values.reshape(count, -1)).all(1)
        if not finite.all():
            bad = ids[~finite, 0].tolist()
            raise ReconstructionError(
                f"the network gives numbers that are not finite for frame {', '.join(map(str, bad[:5]))}; expected an object; look at "
                "its pattern and at input_scale_factor, or leave it out with --exclude"
            )
        return Batch(ids, positions_px, patterns, outputs)

    def take(self, batch: Batch) -> None:
        """Stitch groups and keep what the verdict needs of them.

        Raises:
            ReconstructionError: patches that do not hold the crop; a canvas that would be too large.
        """
        real, imag = object_parts(batch.outputs, self._middle)
        members = self.numbered(batch.ids, batch.positions_px)
        first = members[:, 0]
        in_group = real.shape[1] > 1
        records = self.evidence.keep_groups(members).reshape(-1) if in_group else first
        positions = batch.positions_px if in_group else batch.positions_px[:, :1]
        evidence = self.evidence
        self.stitcher.keep = lambda at, patches: evidence.keep_patches(records[at : at + len(patches)], patches)
        self.stitcher.add_parts(
            real.reshape(-1, *real.shape[2:]), imag.reshape(-1, *imag.shape[2:]), positions.reshape(-1, 2)
        )
        # A group's first pattern: each pattern is the first of one group.
        patterns = batch.patterns[:, 0]
        evidence.keep_patterns(first, patterns)
        if self.scales is not None:
            self.scales.add(real[:, 0].astype(np.float64), imag[:, 0].astype(np.float64), patterns)
        if contract.PREDICTED in batch.outputs:
            evidence.residual[first] = residuals(patterns, batch.outputs[contract.PREDICTED][:, 0], self.export)
        self.groups += len(members)

    def finish(self, *, partial: bool = False, frc: bool = False) -> Assembled:
        """Return the image with its verdict; nothing is taken afterwards.

        Args:
            partial: patterns are missing.
            frc: compare the images of the even and the odd patterns.
        """
        found = None
        if self.scales is not None:
            found = self.scales.fit()
            self.stitcher.scale_parts(*found)
            self.evidence.object_scales = found
        baseline = self.export.record.trust_baseline if self.export.record else None
        # The session is idle by now.
        known = replace(self.evidence.in_order(), threads=self.session.options.threads or usable_threads())
        trust = assess_kept(known, baseline, partial=partial)
        rings = half_scans(known.placed(), self.stitcher.sums) if frc else None
        return Assembled(self.stitcher.result(), trust, found, rings)

    def close(self) -> None:
        """Give the files of patches and amplitudes back."""
        self.evidence.close()

    def numbered(self, ids: np.ndarray, positions_px: np.ndarray) -> np.ndarray:
        """Return the evidence's numbers of ids of any shape, which are made known with their positions (…, 2) where they are new."""
        flat = ids.reshape(-1)
        if self._laid_out and (flat < self._laid_out).all():
            return ids
        new: list[int] = []
        places: list[int] = []
        for place, each in enumerate(flat.tolist()):
            if each not in self._numbers:
                self._numbers[each] = len(self.evidence) + len(new)
                new.append(each)
                places.append(place)
        self.evidence.extend(np.array(new, np.int64), positions_px.reshape(-1, 2)[places])
        numbers = np.array([self._numbers[each] for each in flat.tolist()], np.int64)
        return numbers.reshape(ids.shape)


class SessionClock:
    """Adds up the time in which a session was running; runs follow each other, so nothing counts twice."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.seconds = 0.0
        self.first_seconds = 0.0

    def run(self, session: Session, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what the session gives for a feed."""
        before = time.perf_counter()
        outputs = session.run(feed)
        elapsed = time.perf_counter() - before
        self.first_seconds = self.first_seconds or elapsed
        self.seconds += elapsed
        return outputs


def object_parts(outputs: Mapping[str, np.ndarray], middle: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
    """Return real and imaginary part of the object patches, (b, C or 1, S, S), from what any of the graphs gives.

    Args:
        outputs: of the graph.
        middle: rows and columns of a whole patch that are enough where the object comes as amplitude and phase.
    """
    if contract.OBJECT_REAL in outputs:
        real, imag = outputs[contract.OBJECT_REAL], outputs[contract.OBJECT_IMAG]
    else:
        amplitude, phase = (outputs[name][..., middle, middle] for name in (contract.AMPLITUDE, contract.PHASE))
        real, imag = amplitude * np.cos(phase), amplitude * np.sin(phase)
    return np.broadcast_to(real, imag.shape), imag


def _repeated(values: np.ndarray, size: int) -> np.ndarray:
    """Return values with the last one repeated up to a size."""
    if len(values) == size:
        return values
    return np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])
