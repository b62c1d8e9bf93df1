"""Which engine, batch size and number of threads are fastest on this host for each graph: measured once, and remembered."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.engine.batching import warmup_feed
from ptycho_runtime.engine.chosen import open_graph
from ptycho_runtime.engine.hardware import usable_threads
from ptycho_runtime.engine.opening import open_session
from ptycho_runtime.engine.openvino import installed_version
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.engine.session import Session
from ptycho_runtime.engine.tuned import Setting, Trial, Tuned, variant_sha256
from ptycho_runtime.engine.variants import open_variant
from ptycho_runtime.errors import CheckFailedError, DeviceUnavailableError, NotExportedError, VariantRefusedError
from ptycho_runtime.export.bundle import Export

BATCHES = (1, 4, 8, 16, 32, 64)
GPU_BATCHES = (16, 64, 256, 1024)
_ROUND_S = 0.05  # a round lasts at least this long, so that the clock's grain and single interruptions do not decide
_PAUSE_S = 0.02  # a moment of quiet, so that none follows hot on the heels of its neighbour
_TRIES = 2  # rounds after which what is far behind has no further turn
_FAR_BEHIND = 0.7  # of the fastest with as many threads

Run = Callable[[], float]


@dataclass
class Measured:
    """What was measured of one graph."""

    device: str
    tuned: Tuned
    left_out: dict[str, str] = field(default_factory=dict)
    """What was not measured, and why."""


def tune(
    export: Export,
    graph: str,
    device: str = "auto",
    batches: Iterable[int] | None = None,
    rounds: int = 7,
    progress: Callable[[str], None] | None = None,
) -> Measured:
    """Measure each setting in interleaved rounds on patterns of noise.

    On the CPU these are onnxruntime, OpenVINO in float32 if it keeps the parity rule on the stored inputs, and the export's variant in
    reduced precision if it keeps its budget on the stored patterns, each with one, half and all usable threads; on a GPU
    onnxruntime alone.

    Args:
        export: what is to be run.
        graph: its name.
        device: see `RunOptions`.
        batches: groups a run; `BATCHES` where None, on a GPU `GPU_BATCHES`.
        rounds: how often each setting has its turn; what is far behind after two of them has no further one.
        progress: called with a short text before each round.

    Raises `DeviceUnavailableError` where the device was asked for by name and cannot be used.
    """
    with open_session(export.graphs[graph], RunOptions(device, 1)) as first:
        found = Measured(first.device, Tuned(()))
    usable = usable_threads()
    on_cpu = found.device == "cpu"
    usual = BATCHES if on_cpu else GPU_BATCHES
    sizes = sorted(set(usual if batches is None else batches))
    counts = sorted({1, max(1, usable // 2), usable}) if on_cpu else [usable]
    settings = [Setting(batch, threads) for threads in counts for batch in sizes]
    if on_cpu:
        ways = ("openvino", False), ("openvino", True)
        settings += [replace(each, engine=engine, reduced=reduced) for engine, reduced in ways for each in settings]
    with ExitStack() as sessions:
        runs: dict[Setting, Run] = {}
        for setting in settings:
            if setting.label in found.left_out:
                continue
            try:
                session = sessions.enter_context(_open(export, graph, found.device, setting))
            except (CheckFailedError, DeviceUnavailableError, NotExportedError, VariantRefusedError) as error:
                if setting.engine == "onnxruntime":
                    raise
                # One batch size that fails is enough: what errs is not a matter of speed.
                found.left_out[setting.label] = str(error)
                runs = {each: run for each, run in runs.items() if each.label != setting.label}
                continue
            runs[setting] = _timed(session, setting.batch)
        rates = _raced(runs, rounds, progress or (lambda text: None), graph)
    versions = {"openvino": installed_version()} if any(each.engine == "openvino" for each in rates) else {}
    variant = variant_sha256(export, graph, found.device) if any(each.reduced for each in rates) else ""
    found.tuned = Tuned(tuple(_trial(setting, each) for setting, each in rates.items()), versions, variant)
    return found


@contextmanager
def _open(export: Export, graph: str, device: str, setting: Setting) -> Iterator[Session]:
    options = RunOptions(device, setting.batch, setting.threads, engine=setting.engine)
    with (
        open_variant(export, graph, options).session if setting.reduced else open_graph(export, graph, options).session
    ) as session:
        yield session


def _raced(
    runs: dict[Setting, Run], rounds: int, progress: Callable[[str], None], graph: str
) -> dict[Setting, list[float]]:
    """Return the groups a second of each setting, one number a round that it took part in."""
    rates: dict[Setting, list[float]] = {setting: [] for setting in runs}
    racing = list(runs)
    began_s, turns = time.monotonic(), 0
    for number in range(rounds):
        left_s = (time.monotonic() - began_s) / max(turns, 1) * (rounds - number) * len(racing)
        left = f", about {left_s:.0f} s left" if turns else ""
        progress(f"{graph}: round {number + 1} of {rounds}, {len(racing)} settings{left}")
        turns += len(racing)
        for setting in racing:
            time.sleep(_PAUSE_S)
            rates[setting].append(runs[setting]())
        if number + 1 == _TRIES:
            best: dict[int, float] = {}
            for setting in racing:
                best[setting.threads] = max(best.get(setting.threads, 0.0), max(rates[setting]))
            racing = [each for each in racing if max(rates[each]) >= _FAR_BEHIND * best[each.threads]]
    return rates


def _timed(session: Session, batch: int) -> Run:
    """Return a function that runs one round and gives its groups a second; warms up and sizes the round first."""
    feed = warmup_feed(session.inputs, batch)
    rng = np.random.default_rng(1)
    feed[contract.DIFFRACTION] = rng.poisson(3.0, feed[contract.DIFFRACTION].shape).astype(np.float32) ** 0.5
    session.run(feed)
    start = time.perf_counter()
    session.run(feed)
    repeats = max(1, round(_ROUND_S / max(time.perf_counter() - start, 1e-6)))

    def run() -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            session.run(feed)
        return batch * repeats / (time.perf_counter() - start)

    return run


def _trial(setting: Setting, rates: list[float]) -> Trial:
    middle = statistics.median(rates)
    low, high = np.percentile(rates, [25, 75])
    return Trial(setting, middle, float(high - low) / middle)
