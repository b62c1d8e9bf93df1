"""Which batch size and number of threads are fastest on this host: measured once for each model, and remembered."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from ptycho_runtime import contract as c
from ptycho_runtime.engine.hardware import processor, usable_threads
from ptycho_runtime.engine.opening import open_session
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.engine.session import Session
from ptycho_runtime.errors import OutputError
from ptycho_runtime.export.bundle import Export
from ptycho_runtime.files import cache_folder, write_file

BATCHES = (1, 4, 8, 16, 32, 64)
GRAPH = "diffraction_to_obj"
_ROUND_S = 0.05  # a round lasts at least this long, so that the clock's grain and single interruptions do not decide
_PAUSE_S = 0.02  # a moment of quiet, so that none follows hot on the heels of its neighbour
_GOOD_ENOUGH = 0.98  # of the fastest: then fewer patterns in flight and fewer threads are worth more


@dataclass(frozen=True)
class Setting:
    """How many groups a run takes, and how many CPU threads work on them."""

    batch: int
    threads: int


@dataclass(frozen=True)
class Trial:
    """One setting's speed."""

    setting: Setting
    groups_per_s: float  # median over the rounds
    spread: float  # interquartile range over the median


def tune(
    export: Export,
    device: str = "auto",
    batches: Iterable[int] | None = None,
    rounds: int = 7,
    progress: Callable[[str], None] | None = None,
) -> tuple[str, list[Trial]]:
    """Measure each setting in interleaved rounds on patterns of noise.

    Args:
        export: what is to be run.
        device: see `RunOptions`.
        batches: groups a run; `BATCHES` where None.
        rounds: how often each setting has its turn.
        progress: called with a short text before each round.

    Returns:
        (device that was used, trials in the order of the settings).

    Raises `DeviceUnavailableError` where the device was asked for by name and cannot be used.
    """
    sizes = sorted(set(BATCHES if batches is None else batches))
    model = export.graphs[GRAPH]
    with open_session(model, RunOptions(device, sizes[0])) as first:
        device, channels = first.device, first.inputs[c.DIFFRACTION].shape[1]
    usable = usable_threads()
    counts = sorted({1, max(1, usable // 2), usable}) if device == "cpu" else [usable]
    rng = np.random.default_rng(1)
    with ExitStack() as sessions:
        candidates: list[tuple[Setting, Callable[[], float]]] = []
        for threads in counts:
            for batch in sizes:
                session = sessions.enter_context(open_session(model, RunOptions(device, batch, threads)))
                feed = {
                    c.DIFFRACTION: rng.poisson(3.0, (batch, channels, export.N, export.N)).astype(np.float32) ** 0.5,
                    c.INPUT_SCALE: np.full((batch, 1, 1, 1), 0.1, np.float32),
                }
                candidates.append((Setting(batch, threads), _timed(session, feed, batch)))
        rates: dict[Setting, list[float]] = {setting: [] for setting, _ in candidates}
        for number in range(rounds):
            if progress:
                progress(f"round {number + 1} of {rounds}")
            for setting, run in candidates:
                time.sleep(_PAUSE_S)
                rates[setting].append(run())
    return device, [_trial(setting, found) for setting, found in rates.items()]


def _timed(session: Session, feed: dict[str, np.ndarray], batch: int) -> Callable[[], float]:
    """Return a function that runs one round and gives its groups a second; warms up and sizes the round first."""
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


def choose(trials: list[Trial]) -> Setting:
    """Return the smallest batch, then the fewest threads, that reach 98 % of the fastest setting's rate."""
    best = max(trial.groups_per_s for trial in trials)
    good = [trial.setting for trial in trials if trial.groups_per_s >= _GOOD_ENOUGH * best]
    return min(good, key=lambda setting: (setting.batch, setting.threads))


def remember(export: Export, device: str, setting: Setting, folder: Path | None = None) -> Path:
    """Keep a setting for this model, device, processor and onnxruntime; return the file.

    Raises `OutputError` where the folder cannot be written.
    """
    path = (folder or cache_folder()) / "tuned.json"
    entries = _entries(path)
    entries[key(export, device)] = asdict(setting)
    text = json.dumps(entries, indent=1, sort_keys=True) + "\n"
    write_file(path, text.encode())
    return path


def remembered(export: Export, device: str, folder: Path | None = None) -> Setting | None:
    """Return what was tuned for this model on this host; None where nothing was, or the file says something else."""
    if GRAPH not in export.graphs:
        return None
    try:
        path = (folder or cache_folder()) / "tuned.json"
    except OutputError:
        return None
    found = _entries(path).get(key(export, device))
    if not isinstance(found, dict):
        return None
    batch, threads = found.get("batch"), found.get("threads")
    if type(batch) is not int or type(threads) is not int or not (1 <= batch <= 4096 and 1 <= threads <= 4096):
        return None
    return Setting(batch, min(threads, usable_threads()))


def key(export: Export, device: str) -> str:
    """Return what a setting depends on: the model, the device, the processor and its usable threads, onnxruntime."""
    digest = hashlib.sha256(export.graphs[GRAPH]).hexdigest()[:16]
    return " | ".join(
        (digest, device, processor(), f"{usable_threads()} threads", f"onnxruntime {onnxruntime.__version__}")
    )


def _entries(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
