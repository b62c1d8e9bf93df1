"""A scan to one object: reader, session and stitcher side by side, with a bounded queue between them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import numpy as np

from ptycho_runtime import contract as c
from ptycho_runtime.bundle import Export
from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.grouping import group_neighbours, group_offsets
from ptycho_runtime.quality import Quality, residuals
from ptycho_runtime.scale import scale_of_energy
from ptycho_runtime.scans import Scan
from ptycho_runtime.session import GraphSession
from ptycho_runtime.stitch import Canvas, Stitcher, probe_weights

_QUEUE = 4  # batches read ahead

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Reconstruction:
    """The stitched object and what is known of it."""

    canvas: Canvas
    scan: Scan
    input_scale_factor: float
    groups: int
    done: int  # groups that are in the object; fewer than `groups` when stopped
    device: str
    note: str
    seconds: float
    session_seconds: float
    quality: Quality | None = None
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def object(self) -> np.ndarray:
        """The object, (rows, columns) complex64; 0 where nothing was measured."""
        return self.canvas.object

    @property
    def partial(self) -> bool:
        """Say whether it was stopped before all patterns were in."""
        return self.done < self.groups


def reconstruct(
    export: Export,
    patches: GraphSession,
    scan: Scan,
    *,
    autoencoder: GraphSession | None = None,
    scale: float | None = None,
    batch: int = 16,
    crop_px: int | None = None,
    weighting: str = "auto",
    progress: Progress | None = None,
) -> Reconstruction:
    """Return the object of a scan.

    Args:
        export: what the graphs are.
        patches: the `diffraction_to_obj` graph.
        scan: patterns and positions.
        autoencoder: the other graph, for each pattern's residual; needs a probe in the scan.
        scale: `input_scale_factor`; the frozen value, else the release's formula over this scan where None.
        batch: groups a run.
        crop_px: side of a patch's middle that is used; N/2 by default.
        weighting: `probe` (its intensity), `window`, or `auto`: the probe where the scan has one.
        progress: called with (groups done, groups in all).

    KeyboardInterrupt ends the reading; what is finished is returned, marked partial.
    """
    if weighting == "probe" and scan.probe is None:
        raise ReconstructionError(
            f"{scan.name}: has no probe; weight by --weighting window, or name it with --probe-key"
        )
    start = time.perf_counter()
    factor = (
        scale
        or export.scale_value
        or scale_of_energy(export.scale_formula, scan.energy(export.N, export.domain), export.N)
    )
    one_by_one = patches.inputs[c.DIFFRACTION].shape[1] == 1  # gridsize 1, or a model without reassembly
    groups = group_neighbours(scan.positions_px, 1 if one_by_one else export.C)
    weights = probe_weights(scan.probe) if scan.probe is not None and weighting != "window" else None
    stitcher = Stitcher(scan.positions_px, export.N, weights, crop_px)
    found = np.full(len(scan), np.nan) if autoencoder is not None and scan.probe is not None else None
    done, in_session = 0, 0.0
    reader = _read_ahead(scan, groups, export, batch)
    try:
        for members, patterns in reader:
            before = time.perf_counter()
            scales = np.full((len(members), 1, 1, 1), factor, np.float32)
            feed = {c.DIFFRACTION: patterns, c.INPUT_SCALE: scales}
            outputs = patches.run(feed)
            if found is not None and autoencoder is not None:
                offsets = group_offsets(scan.positions_px, members) * np.float32(export.positions_sign)
                found[members[:, 0]] = residuals(autoencoder, feed, offsets, scan.probe, export)
            in_session += time.perf_counter() - before
            object_ = outputs[c.OBJECT_REAL] + 1j * outputs[c.OBJECT_IMAG]
            flat = members.reshape(-1) if object_.shape[1] == members.shape[1] else members[:, 0]
            stitcher.add(object_.reshape(-1, export.N, export.N), scan.positions_px[flat])
            done += len(members)
            if progress:
                progress(done, len(groups))
    except KeyboardInterrupt:
        if not done:
            raise
    finally:
        reader.close()
    return Reconstruction(
        canvas=stitcher.result(),
        scan=scan,
        input_scale_factor=factor,
        groups=len(groups),
        done=done,
        device=patches.device,
        note=patches.note,
        seconds=time.perf_counter() - start,
        session_seconds=in_session,
        quality=None if found is None else Quality.of(found),
    )


def _read_ahead(
    scan: Scan, groups: np.ndarray, export: Export, batch: int
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Yield (group members (b, C), patterns (b, C, N, N)) read by a thread that stays a few batches ahead."""
    ready: queue.Queue[tuple[np.ndarray, np.ndarray] | Exception | None] = queue.Queue(_QUEUE)
    stop = threading.Event()

    def put(item: tuple[np.ndarray, np.ndarray] | Exception | None) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def read() -> None:
        try:
            for start in range(0, len(groups), batch):
                if stop.is_set():
                    return
                members = groups[start : start + batch]
                patterns = scan.patterns(members.reshape(-1), export.N, export.domain)
                put((members, patterns.reshape(*members.shape, export.N, export.N)))
            put(None)
        except (OSError, ValueError, RuntimeError) as error:
            put(error)

    thread = threading.Thread(target=read, name="scan reader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
