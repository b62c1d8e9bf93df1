"""One series of frames to one image."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_runtime.api import Reconstructor
from ptycho_runtime.errors import PtychoExportError, ScanError
from ptycho_runtime.image.core import Core, Setup
from ptycho_runtime.image.options import ReconstructOptions
from ptycho_runtime.image.origin import origin_of
from ptycho_runtime.image.result import Reconstruction, Timing
from ptycho_runtime.live.inbox import Inbox, Work
from ptycho_runtime.live.journal import Journal
from ptycho_runtime.live.rolling import Snapshot, snapshot
from ptycho_runtime.live.scale import Scale, scale_of_window
from ptycho_runtime.live.values import FaultError, Frame
from ptycho_runtime.scan.detector import Detector
from ptycho_runtime.scan.options import Domain, Fit
from ptycho_runtime.scan.scale import pattern_energy, scale_of_energy
from ptycho_runtime.scan.scan import Scan
from ptycho_runtime.threads import Behind

DEAD = "dead frames (all zero)"
_BEHIND = 2  # batches that wait for the stitcher
_SETTLE_S = 1.0  # after the end was said, for what is still under way
_MOST_MISSING = 100_000  # ids that are listed as never come


@dataclass(frozen=True)
class LiveOptions:
    """How a live run goes."""

    image: ReconstructOptions = field(default_factory=ReconstructOptions)
    scale: Scale | None = None
    """Known before the first frame; of a first window where None."""
    window: int = 64
    """Frames of that first window."""
    batch_window_s: float = 0.1
    """How long a frame waits for others to share a run of the session."""
    frames: int | None = None
    """That the scan has."""
    idle_s: float = 10.0
    """Without any frame or position: the scan is over."""
    domain: Domain | None = None
    """Of the frames; told by the stream, or by their type, where None."""
    fit: Fit | None = None
    centre: tuple[int, int] | None = None
    bad: np.ndarray | None = None
    """(rows, columns) bool: pixels that no frame can be believed in."""
    probe: np.ndarray | None = None
    """(modes, N, N) complex."""
    pixel_size_m: float = 0.0
    name: str = "live"
    journal_s: float = 5.0

    def check(self, frame: Frame) -> str:
        """Say why a frame is of no use: see `Inbox`."""
        values, bad = frame.values, self.bad
        if bad is not None and bad.shape == values.shape:
            values = np.where(bad, np.zeros((), values.dtype), values)
        highest = float(values.max())
        if not np.isfinite(highest) or (values.dtype.kind == "f" and not np.isfinite(values.sum())):
            raise FaultError(f"frame {frame.id} holds NaN or infinity; give its bad pixels with --mask")
        if values.dtype.kind != "u" and float(values.min()) < 0:
            raise FaultError(
                f"frame {frame.id} holds negative values; correct the background first, or give the bad pixels with --mask"
            )
        return "" if highest else DEAD


@dataclass(frozen=True)
class Outcome:
    """What came of a series."""

    result: Reconstruction | None
    """None where no frame was placed."""
    account: dict[str, Any]
    scale: Scale | None
    whole_scale: float | None
    """The factor of all frames that were placed."""
    fault: Exception | None
    stopped: bool


class Series:
    """Takes work from an inbox until the scan is over, and makes the image."""

    def __init__(
        self, model: Reconstructor, inbox: Inbox, options: LiveOptions, journal: Journal | None = None
    ) -> None:
        """Take what the run needs; `run` does the rest."""
        self.model, self.inbox, self.options, self.journal = model, inbox, options, journal
        self.core: Core | None = None
        self.scale = options.scale
        self.stop = threading.Event()
        self._lock = threading.Lock()  # of the core, against snapshots
        self._energy: list[np.ndarray] = []
        self._journalled = time.monotonic()
        self._detector: Detector | None = None
        self._domain: Domain = "intensity"
        self._finished = False
        self.fetch_probe: Callable[[str], np.ndarray] | None = None
        """Gets the probe that a stream names."""

    def run(self, resume: bool = False, say: Callable[[str], None] = lambda text: None) -> Outcome:
        """Return the image once the scan is over, a fault ends it, or `stop` is set."""
        start = time.perf_counter()
        remembered = self.journal.read() if self.journal is not None and resume else None
        if remembered is not None:
            self.inbox.known(dict(remembered.checksums))
            factor = float(remembered.made_with["input_scale_factor"])
            self.scale = Scale(factor, "as before")
        elif self.journal is not None:
            self.journal.begin()
        fault: Exception | None = None
        stitching: Behind[tuple[Work, Any, np.ndarray]] | None = None
        try:
            if self._settle():
                core = self.core = self._core()
                if self.journal is not None and remembered is not None:
                    self.journal.go_on(core, remembered)
                say(f"{core.engine} on {core.session.device}")
                if core.session.note:
                    say(core.session.note)
                say(str(self.scale))
                if self.options.probe is None:
                    say(
                        "no probe is known: patches are weighted by a window, and patterns have no residual; give --probe FILE for both"
                    )
                stitching = Behind(self._stitch, _BEHIND, "stitcher")
                self._work(core, stitching)
                stitching.finish()
        except (PtychoExportError, OSError) as error:
            fault = error
            if stitching is not None:
                with contextlib.suppress(PtychoExportError, OSError):
                    stitching.finish()
        except BaseException:
            if self.core is not None:
                self.core.close()
            raise
        finally:
            if stitching is not None:
                stitching.close()
        return self._outcome(fault or self.inbox.error, start)

    def look(self) -> tuple[Snapshot | None, dict[str, Any]]:
        """Return the image of this moment, None where nothing was placed, and the account."""
        with self._lock:
            core = self.core
            record = self.model.export.record
            baseline = record.trust_baseline if record else None
            found = None if core is None or not core.groups or self._finished else snapshot(core, baseline)
        return found, self.inbox.account(trusted=found is not None and found.verdict == "trusted")

    def _settle(self) -> bool:
        """Wait for what must be known before the first run; False where no frame came."""
        while self.inbox.first_frame is None:
            if self._over():
                return False
            self.stop.wait(0.02)
        first = self.inbox.first_frame
        self._domain = self._settled_domain(first)
        self._settle_probe(first)
        options, N = self.options, self.model.export.N
        detector = Detector((first.values.shape[0], first.values.shape[1]), options.fit, options.centre, options.bad)
        if not detector.is_plain(N):
            if options.fit is None and detector.shape != (N, N):
                raise FaultError(
                    f"frames are {detector.shape[0]} × {detector.shape[1]} pixels, the model takes {N} × {N}; give --crop, --pad or --bin"
                )
            detector.fitted(np.zeros((1, *detector.shape)), N)
        self._detector = detector
        while self.scale is None:
            over = self._over()
            wanted = self.options.window if not over else max(min(self.options.window, self.inbox.ready), 1)
            stored = self.inbox.wait_for(wanted, 0.05)
            if stored is not None:
                self.scale = scale_of_window(self.model.export, pattern_energy(self._fed(stored)))
            elif over:
                return False
        return True

    def _settle_probe(self, frame: Frame) -> None:
        """Take the probe that the stream names, where none was given and it is one of the model's grid."""
        said = frame.attributes.get("probe")
        if self.options.probe is not None or self.fetch_probe is None or not isinstance(said, str) or self.options.fit:
            return
        probe = self.fetch_probe(said)
        if probe.shape[-1] == self.model.export.N:
            self.options = replace(self.options, probe=probe)

    def _settled_domain(self, frame: Frame) -> Domain:
        if self.options.domain is not None:
            return self.options.domain
        said = frame.attributes.get("domain")
        if said in ("amplitude", "intensity"):
            return "amplitude" if said == "amplitude" else "intensity"
        if frame.values.dtype.kind in "ui":
            return "intensity"
        raise FaultError(f"frames are {frame.values.dtype}: amplitudes or intensities? give --amplitude or --intensity")

    def _fed(self, stored: np.ndarray) -> np.ndarray:
        assert self._detector is not None
        return self._detector.as_fed(stored, self.model.export.N, self._domain, self.model.export.domain)

    def _core(self) -> Core:
        assert self.scale is not None
        image, probe = self.options.image, self.options.probe
        folder = None if self.journal is None else self.journal.folder
        setup = Setup(self.scale.factor, probe, image.weighting, image.crop_px, image.object_scales, folder)
        return Core(self.model.export, self.model.graphs(image, has_probe=probe is not None), setup)

    def _work(self, core: Core, stitching: Behind[tuple[Work, Any, np.ndarray]]) -> None:
        flushed = False
        while True:
            work = self.inbox.take(core.graphs.batch, 0.0 if flushed else self.options.batch_window_s)
            if self.inbox.error is not None and work is None:
                return
            if work is None:
                if flushed:
                    return
                if self._over():
                    self.inbox.flush()
                    flushed = True
                continue
            rows, columns = work.values.shape[-2:]
            try:
                patterns = self._fed(work.values.reshape(-1, rows, columns))
                patterns = patterns.reshape(*work.ids.shape, *patterns.shape[1:])
                batch = core.run(work.ids, patterns, work.xy_px)
            except PtychoExportError:
                self.inbox.failed(work.ids)
                raise
            stitching.put((work, batch, pattern_energy(patterns[:, 0])))

    def _stitch(self, done: tuple[Work, Any, np.ndarray]) -> None:
        work, batch, energy = done
        core = self.core
        assert core is not None
        try:
            with self._lock:
                core.take(batch)
        except BaseException:
            self.inbox.failed(work.ids)
            raise
        self._energy.append(energy)
        self.inbox.placed(work.ids)
        if self.journal is not None and time.monotonic() - self._journalled > self.options.journal_s:
            self._write_journal(core)

    def _write_journal(self, core: Core) -> None:
        assert self.journal is not None
        evidence = core.evidence
        done = evidence.ids[np.isfinite(evidence.counts)].tolist()
        self.journal.write(core, self.inbox.checksums(done))
        self._journalled = time.monotonic()

    def _over(self) -> bool:
        """Say whether no frame will come any more that would change the image."""
        inbox = self.inbox
        if self.stop.is_set() or inbox.error is not None or inbox.restarted:
            return True
        idle_s = time.monotonic() - inbox.last_arrival
        account = inbox.ledger
        if inbox.first_frame is None and not inbox.end_said:
            return False
        if self.options.frames is not None and account.seen >= self.options.frames and not account.waiting_position:
            return True
        return idle_s > (min(_SETTLE_S, self.options.idle_s) if inbox.end_said else self.options.idle_s)

    def _outcome(self, fault: Exception | None, start: float) -> Outcome:
        core, ledger = self.core, self.inbox.ledger
        result, whole = None, None
        if self.journal is not None and core is not None and core.groups and (fault or not ledger.complete):
            self._write_journal(core)
        if core is not None:
            try:
                if core.groups:
                    with self._lock:
                        self._finished = True
                        result = self._result(core, start)
            except PtychoExportError as error:
                fault = fault or error
            finally:
                core.close()
        if self._energy:
            export = self.model.export
            whole = scale_of_energy(export.scale_formula, np.concatenate(self._energy), export.N)
        trusted = result is not None and result.trust.trusted
        account = self.inbox.account(trusted=trusted)
        return Outcome(result, account, self.scale, whole, fault, self.stop.is_set())

    def _result(self, core: Core, start: float) -> Reconstruction:
        ledger, options, export = self.inbox.ledger, self.options, self.model.export
        before = time.perf_counter()
        assembled = core.finish(partial=not ledger.complete, frc=options.image.frc)
        now = time.perf_counter()
        known = core.evidence.in_order()
        skipped = {reason: sorted(ids) for reason, ids in ledger.dropped.items()}
        missing = self._missing()
        if missing:
            skipped["frames that never came"] = missing
        first = self.inbox.first_frame
        pixel_m = options.pixel_size_m or float(first.attributes.get("pixel_size_m", 0.0) if first else 0.0)
        scan = Scan(
            name=options.name,
            read=_gone,
            frames=core.evidence.ids[known.order],
            positions_px=known.positions_px,
            size_px=export.N,
            domain=self._domain,
            probe=options.probe,
            pixel_size_m=pixel_m,
            skipped=skipped,
            fit=options.fit,
            source=options.name,
            energy_of_row={},
        )
        return Reconstruction(
            canvas=assembled.canvas,
            scan=scan,
            input_scale_factor=core.setup.factor,
            groups=max(ledger.seen + ledger.missing, core.groups),
            done=core.groups,
            device=core.session.device,
            note="; ".join(filter(None, (core.graphs.note or core.session.note, export.domain_note, core.note))),
            engine=core.engine,
            timing=Timing(now - start, core.clock.seconds, core.clock.first_seconds, now - before),
            trust=assembled.trust,
            ring_correlation=assembled.rings,
            object_scales=assembled.object_scales,
            origin=origin_of(export, scan, options.image, f"{core.engine} on {core.session.device}"),
        )

    def _missing(self) -> list[int]:
        """Return the ids of gaps, where they are few enough to be listed."""
        ledger = self.inbox.ledger
        if ledger.lowest is None or ledger.highest is None or not 0 < ledger.missing <= _MOST_MISSING:
            return []
        came = self.inbox.ids_seen()
        return [number for number in range(ledger.lowest, ledger.highest + 1) if number not in came]


def _gone(rows: np.ndarray) -> np.ndarray:
    raise ScanError("frames of a stream are not kept; reconstruct the file that the detector wrote")


def series_path(out: Path, number: int) -> Path:
    """Return where the image of a series goes: the first one's name, then NAME-2.SUFFIX and so on."""
    return out if number == 1 else out.with_name(f"{out.stem}-{number}{out.suffix}")
