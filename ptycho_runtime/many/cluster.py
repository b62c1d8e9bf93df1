"""Scans, or parts of one, on a Dask cluster: plain tasks, and a model that each process keeps open.

Workers read scans and write results themselves, on a file system that all of them see; what travels are names and figures. A task
whose worker dies is run again elsewhere, by Dask itself, and gives the same bits; what is written is not made again.
"""

from __future__ import annotations

import functools
import importlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ptycho_runtime.closing import Closing
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.errors import PackageMissingError, PtychoExportError, ReconstructionError
from ptycho_runtime.image.options import Progress, ReconstructOptions
from ptycho_runtime.many.one_scan import Open, Task, Work, record_of, run_scan, sharing_threads
from ptycho_runtime.many.parts import Which, is_done, run_part
from ptycho_runtime.many.plan import Plan, open_plan, prepare
from ptycho_runtime.many.records import EXIT_BUG, EXIT_INPUT, Fingerprint, ScanRecord
from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import read_scan

LOCAL = "local:"
_ROUNDS = 5  # in which tasks are submitted again that a restarted scheduler has forgotten
_CONNECT_S = 30

_opened = Open()
"""The model of this process: a worker's, from one task to the next."""


class Cluster(Closing):
    """A connection to a scheduler; a context manager. It runs scans as `workers.Workers` does."""

    def __init__(self, address: str, work: Work | None = None) -> None:
        """Connect.

        Args:
            address: of a scheduler, `tcp://host:8786`; or `local:N` for N processes on this host, which end with this.
            work: what is done with every scan that `run` is given.

        Raises:
            PackageMissingError: Dask is not installed.
            ReconstructionError: nobody answers at the address, or it is none.
        """
        try:
            distributed: Any = importlib.import_module("distributed")
        except ModuleNotFoundError as error:
            raise PackageMissingError(
                f"the package {error.name} is not installed here; pip install 'ptycho-export[dask]'"
            ) from error
        # What it says while processes come and go is for its own developers.
        logging.getLogger("distributed").setLevel(logging.ERROR)
        self.work = work
        self._local: Any = None
        try:
            if address.startswith(LOCAL):
                # Memory is not watched: a mapped file counts as memory there, and its reader would be killed.
                self._local = distributed.LocalCluster(
                    n_workers=local_workers(address),
                    threads_per_worker=1,
                    dashboard_address="127.0.0.1:0",
                    memory_limit=0,
                )
                self.client: Any = distributed.Client(self._local)
            else:
                self.client = distributed.Client(address, timeout=_CONNECT_S)
        except (OSError, ValueError) as error:
            self.close()
            raise ReconstructionError(
                f"--dask {address}: no scheduler can be reached there ({' '.join(str(error).split())}); look whether it runs"
            ) from error

    def close(self) -> None:
        """Give up what is not done, and disconnect; processes that were started for this end."""
        for each in (getattr(self, "client", None), self._local):
            if each is not None:
                each.close()
        self._local = None

    def results(self, tasks: Mapping[str, tuple[Callable[..., Any], tuple[Any, ...]]]) -> Iterator[tuple[str, Any]]:
        """Run tasks by name, each (function, arguments); yield (name, what it returned or raised) as they are done.

        Tasks that the scheduler has forgotten, as after its restart, are submitted again.

        Raises:
            ReconstructionError: the scheduler is gone, or forgets tasks again and again.
        """
        as_completed: Any = importlib.import_module("distributed").as_completed
        left = dict(tasks)
        for _ in range(_ROUNDS):
            if self.client.status != "running":
                break
            futures = {
                self.client.submit(work, *arguments, pure=False): name for name, (work, arguments) in left.items()
            }
            for future in as_completed(futures):
                if future.status == "finished":
                    result: Any = future.result()
                elif future.status == "error":
                    result = future.exception()
                else:
                    continue
                name = futures[future]
                del left[name]
                yield name, result
                future.release()
            if not left:
                return
        raise ReconstructionError(
            f"the Dask scheduler was lost with {len(left)} of {len(tasks)} tasks to do; start it and run this again: what is done is kept "
            "(batch: --resume)"
        )

    def result(self, name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run one task and return what it returns; raises what it raises."""
        ((_, found),) = self.results({name: (work, arguments)})
        return _value(found)

    def run(self, tasks: Iterable[Task]) -> Iterator[ScanRecord]:
        """Yield the record of each scan as it is done; its files, and the record among them, are written by then.

        Raises:
            ReconstructionError: the scheduler is gone.
            OutputError: the record of a scan whose workers died cannot be written.
        """
        work = self.work
        assert work is not None
        by_name = {task.name: task for task in tasks}
        submitted = {name: (_scan, (work, task)) for name, task in by_name.items()}
        for name, result in self.results(submitted):
            if isinstance(result, ScanRecord):
                yield result
                continue
            record = record_of(work, by_name[name], *_ending(result))
            record.write(work.folder)
            yield record


def local_workers(address: str) -> int:
    """Return N of `local:N`; raises `ReconstructionError` for anything else."""
    text = address.removeprefix(LOCAL)
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= 1024):
        raise ReconstructionError(
            f"--dask {address}: no scheduler can be reached there ({text} processes); expected local:N with N from 1 to 1024"
        )
    return int(text)


def share_of_threads(address: str, run: RunOptions) -> RunOptions:
    """Return options whose threads several processes of this host share; as they are for other hosts, or where threads were given."""
    return sharing_threads(run, local_workers(address)) if address.startswith(LOCAL) else run


def _ending(error: BaseException) -> tuple[int, str]:
    if type(error).__name__ == "KilledWorker":
        return EXIT_INPUT, "the workers that were at it died, again and again; was there too little memory?"
    if isinstance(error, PtychoExportError):
        return error.exit_code, str(error)
    return EXIT_BUG, f"{type(error).__name__}: {error}"


def _scan(work: Work, task: Task) -> ScanRecord:
    return run_scan(work, task, _opened)


@dataclass(frozen=True)
class PartsWork:
    """One scan that is to be reconstructed in parts."""

    bundle: Path
    bundle_sha256: str
    scan: Path
    folder: Path
    """Of the plan and the parts."""
    patterns: int
    """Groups of patterns a task."""
    model_domain: str | None = None
    run: RunOptions = field(default_factory=RunOptions)
    read: ReadOptions = field(default_factory=ReadOptions)
    image: ReconstructOptions = field(default_factory=ReconstructOptions)

    @property
    def plan(self) -> Path:
        """Where the plan lies."""
        return self.folder / "plan.h5"

    def part(self, which: Which) -> Path:
        """Return where a part lies."""
        return self.folder / f"part-{which.number}-of-{which.count}.h5"

    def made_for(self, plan: Plan) -> bool:
        """Say whether a plan is of this very scan, bundle and options."""
        run = replace(
            self.run,
            batch=self.run.batch or plan.run.batch,
            threads=self.run.threads or plan.run.threads,
            engine=self.run.engine or plan.run.engine,
            device=plan.run.device,
        )
        asked = (
            self.bundle_sha256,
            self.model_domain,
            self.read,
            self.image,
            run,
            Fingerprint.of(self.scan),
            self.scan.absolute(),
        )
        known = (
            plan.bundle_sha256,
            plan.model_domain,
            plan.read,
            plan.image,
            plan.run,
            plan.scan_fingerprint,
            plan.scan_path,
        )
        return asked == known


def run_parts(cluster: Cluster, work: PartsWork, progress: Progress | None = None) -> list[Path]:
    """Prepare a scan and do its parts on a cluster; returns the parts' files. What lies there of an earlier run is kept.

    Args:
        cluster: connected.
        work: scan and options.
        progress: called with (groups done, groups in all).

    Raises:
        ReconstructionError: the scheduler is gone; and whatever `prepare` and `run_part` raise.
    """
    groups: int = cluster.result("prepare", _prepare, work)
    count = math.ceil(groups / work.patterns)
    plan = open_plan(work.plan)
    every = [Which(number, count) for number in range(1, count + 1)]
    left = {str(which): which for which in every if not is_done(work.part(which), plan, which)}
    done = groups - sum(_size(which, plan) for which in left.values())
    for name, result in cluster.results({name: (_part, (work, which)) for name, which in left.items()}):
        _value(result)
        done += _size(left[name], plan)
        if progress:
            progress(done, groups)
    return [work.part(which) for which in every]


def _size(which: Which, plan: Plan) -> int:
    first, stop = which.groups(plan)
    return stop - first


def _value(result: Any) -> Any:
    if isinstance(result, BaseException):
        code, message = _ending(result)
        raise result if isinstance(result, PtychoExportError) or code == EXIT_BUG else ReconstructionError(message)
    return result


def _prepare(work: PartsWork) -> int:
    """Write the plan where there is none for just this; returns its groups."""
    if work.plan.exists():
        try:
            plan = open_plan(work.plan)
            if work.made_for(plan):
                return plan.groups
        except ReconstructionError:
            pass
    opened = _opened.model(
        Work(work.bundle, work.bundle_sha256, work.folder, model_domain=work.model_domain, run=work.run)
    )
    with read_scan(work.scan, opened.export.N, work.read) as scan:
        return prepare(opened, scan, work.image, work.plan).groups


def _part(work: PartsWork, which: Which) -> None:
    path = work.plan
    plan = _plan(path, Fingerprint.of(path))
    run = replace(plan.run, device=work.run.device)
    opened = _opened.model(Work(work.bundle, work.bundle_sha256, work.folder, model_domain=work.model_domain, run=run))
    run_part(plan, which, opened, work.part(which))


@functools.lru_cache(maxsize=4)
def _plan(path: Path, mark: Fingerprint) -> Plan:
    """Return a plan, read once a process for as long as its file stays the same."""
    return open_plan(path)
