"""One scan of many to one result, in a process that keeps the model open for the next one."""

from __future__ import annotations

import functools
import hashlib
import math
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ptycho_runtime.engine.hardware import usable_threads
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.errors import PtychoExportError, exit_code_of
from ptycho_runtime.image.options import ReconstructOptions
from ptycho_runtime.many.records import EXIT_BUG, EXIT_INPUT, Fingerprint, ScanRecord
from ptycho_runtime.scan.options import ReadOptions


@dataclass(frozen=True)
class Work:
    """What all scans of a batch share."""

    bundle: Path
    bundle_sha256: str
    """What the file has to have; any where empty."""
    folder: Path
    """Of the results."""
    suffix: str = ".h5"
    """Names the format of the products."""
    model_domain: str | None = None
    run: RunOptions = field(default_factory=RunOptions)
    read: ReadOptions = field(default_factory=ReadOptions)
    image: ReconstructOptions = field(default_factory=ReconstructOptions)
    exclude_flagged: bool = False
    """Make each image again without the patterns that a first one flags."""
    strict: bool = False
    """Exit with 5 where an image is not trusted."""
    force: bool = False
    """Overwrite files that are no earlier results."""

    @functools.cached_property
    def options_sha256(self) -> str:
        """Digest of all that decides what comes out; files that are read beside the scans count as they lie there now."""
        beside = [path for path in (self.read.positions_file, self.read.mask_file) if path is not None]
        marks = [str(Fingerprint.of(path)) if path.exists() else "absent" for path in beside]
        # How a run is shared among threads, and under which of the engines that are proven alike, changes rounding alone.
        run = replace(self.run, batch=None, threads=None, engine=None)
        asked = (self.suffix, self.model_domain, run, self.read, self.image, self.exclude_flagged, marks)
        return hashlib.sha256(repr(asked).encode()).hexdigest()


def sharing_threads(run: RunOptions, processes: int) -> RunOptions:
    """Return options with which so many processes share this host's threads; as they are where threads were given."""
    if run.threads is not None:
        return run
    return replace(run, threads=max(usable_threads() // processes, 1))


@dataclass(frozen=True)
class Task:
    """One scan, and the name that its files get."""

    scan: Path
    name: str


def record_of(work: Work, task: Task, exit_code: int, message: str = "", **known: Any) -> ScanRecord:
    """Return the record of a scan; `known` are further fields of it."""
    if "fingerprint" not in known:
        known["fingerprint"] = Fingerprint.if_any(task.scan)
    document = {
        "bundle_sha256": work.bundle_sha256,
        "options_sha256": work.options_sha256,
        **known,
    }
    return ScanRecord(scan=str(task.scan), name=task.name, exit_code=exit_code, message=message, **document)


class Open:
    """The model that this process has open, for as long as the work stays the same."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._key: tuple[object, ...] | None = None
        self._model: Any = None
        self._lock = threading.Lock()

    def model(self, work: Work) -> Any:
        """Return the `Reconstructor` of a work, opened when it is first asked for."""
        from ptycho_runtime.api import open as open_model

        key = (work.bundle, work.bundle_sha256, work.model_domain, work.run)
        if self._key != key:
            self.close()
            self._model = open_model(
                work.bundle, work.run, model_domain=work.model_domain, sha256=work.bundle_sha256 or None
            )
            self._key = key
        return self._model

    def close(self) -> None:
        """Close it."""
        if self._model is not None:
            self._model.close()
        self._key = self._model = None


def run_scan(work: Work, task: Task, opened: Open) -> ScanRecord:
    """Reconstruct one scan, write its product and then its record, and return that; whatever goes wrong is in it.

    Args:
        work: what is done with it.
        task: which scan.
        opened: keeps the model open from one scan to the next.

    Raises:
        OutputError: the record cannot be written.
    """
    start = time.perf_counter()
    # As it was when it was read: who goes on writing to it makes another scan of it.
    mark = Fingerprint.if_any(task.scan)
    try:
        known = _reconstructed(work, task, opened)
        code = exit_code_of(known["verdict"], strict=work.strict)
        message = known.pop("reasons")
    except PtychoExportError as error:
        known, code, message = {}, error.exit_code, str(error)
    except OSError as error:
        known, code, message = {}, EXIT_INPUT, str(error)
    except Exception as error:  # one scan's end is not the others'
        known, code, message = {}, EXIT_BUG, f"{type(error).__name__}: {error}; this is a bug in ptycho-runtime"
    seconds = time.perf_counter() - start
    record = record_of(work, task, code, " ".join(message.split()), fingerprint=mark, seconds=seconds, **known)
    record.write(work.folder)
    return record


def _reconstructed(work: Work, task: Task, opened: Open) -> dict[str, Any]:
    """Write a scan's product; return fields of its record, and `reasons`."""
    from ptycho_runtime.image.products.target import check_target
    from ptycho_runtime.image.products.write import write_product
    from ptycho_runtime.scan.read import read_scan

    inputs = {
        "bundle": work.bundle,
        "scan": task.scan,
        "positions file": work.read.positions_file,
        "mask": work.read.mask_file,
    }
    target = check_target(work.folder / f"{task.name}{work.suffix}", inputs, force=work.force)
    model = opened.model(work)
    with read_scan(task.scan, model.export.N, work.read) as scan:
        result = model.reconstruct(scan, work.image)
        flagged = result.scan.frames[result.trust.flagged]
        if work.exclude_flagged and len(flagged):
            result = model.reconstruct(result.scan.without(flagged, "flagged in a first image"), work.image)
    written = write_product(result, target)
    trust = result.trust
    disagreement = trust.figures["disagreement_median"]
    return {
        "reasons": "; ".join(trust.reasons),
        "verdict": trust.verdict,
        "files": tuple(path.name for path in written),
        "patterns": len(result.scan),
        "flagged": int(trust.flagged.sum()),
        "input_scale_factor": result.input_scale_factor,
        "disagreement": disagreement if math.isfinite(disagreement) else None,
    }
