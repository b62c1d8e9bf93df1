"""What was tuned on this host: settings and their speeds as values, the choice among them, and where they are remembered."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime

from ptycho_runtime.engine.hardware import processor, usable_threads
from ptycho_runtime.engine.options import ENGINES
from ptycho_runtime.errors import OutputError
from ptycho_runtime.export.bundle import Export
from ptycho_runtime.files import cache_folder, write_file

_GOOD_ENOUGH = 0.98  # of the fastest: then what is simpler is worth more
_MOST = 4096  # groups, threads, trials


@dataclass(frozen=True)
class Setting:
    """What runs a graph, how many groups a run takes, and how many CPU threads work on them."""

    batch: int
    threads: int
    engine: str = "onnxruntime"
    """One of `options.ENGINES`."""
    reduced: bool = False
    """In the export's variant in reduced precision, in place of float32."""

    @property
    def label(self) -> str:
        """Name engine and precision."""
        return f"{self.engine} {'reduced' if self.reduced else 'float32'}"


@dataclass(frozen=True)
class Trial:
    """One setting's speed."""

    setting: Setting
    groups_per_s: float
    """Median over the rounds."""
    spread: float
    """Interquartile range over the median."""


@dataclass(frozen=True)
class Wanted:
    """What a choice is left: values that are None are free."""

    batch: int | None = None
    threads: int | None = None
    engine: str | None = None
    reduced: bool | None = False

    def allows(self, setting: Setting) -> bool:
        """Say whether a setting is one that is left."""
        return all(wanted is None or getattr(setting, name) == wanted for name, wanted in asdict(self).items())


@dataclass(frozen=True)
class Tuned:
    """All that was measured of one graph on one device of this host."""

    trials: tuple[Trial, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the engines beside onnxruntime with which it was measured."""
    variant_sha256: str = ""
    """Of the variant in reduced precision that was measured; empty where none was."""


def choose(trials: Iterable[Trial], wanted: Wanted | None = None) -> Setting | None:
    """Return the simplest setting that reaches 98 % of the fastest one's rate; None where none is left to choose from.

    float32 is simpler than reduced precision, onnxruntime than another engine, then the smallest batch, then the fewest threads.
    """
    left = [trial for trial in trials if (wanted or Wanted()).allows(trial.setting)]
    best = max((trial.groups_per_s for trial in left), default=0.0)
    good = [trial.setting for trial in left if trial.groups_per_s >= _GOOD_ENOUGH * best]
    return min(
        good,
        key=lambda setting: (setting.reduced, setting.engine != "onnxruntime", setting.batch, setting.threads),
        default=None,
    )


def remember(export: Export, graph: str, device: str, tuned: Tuned, folder: Path | None = None) -> Path:
    """Keep what was measured for this graph, device, processor and onnxruntime; return the file.

    Raises `OutputError` where the folder cannot be written.
    """
    path = (folder or cache_folder()) / "tuned.json"
    entries = _entries(path)
    entries[key(export, graph, device)] = {
        "trials": [
            {**asdict(trial.setting), "groups_per_s": trial.groups_per_s, "spread": trial.spread}
            for trial in tuned.trials
        ],
        "versions": dict(tuned.versions),
        "variant_sha256": tuned.variant_sha256,
    }
    text = json.dumps(entries, indent=1, sort_keys=True) + "\n"
    write_file(path, text.encode())
    return path


def remembered(export: Export, graph: str, device: str, folder: Path | None = None) -> Tuned | None:
    """Return what was measured for this graph on this host; None where nothing was, or the file says something else.

    Trials of a variant in reduced precision that is not this export's are left out.
    """
    if graph not in export.graphs:
        return None
    try:
        path = (folder or cache_folder()) / "tuned.json"
    except OutputError:
        return None
    found = _tuned(_entries(path).get(key(export, graph, device)))
    if found is None or found.variant_sha256 == variant_sha256(export, graph, device):
        return found
    return Tuned(tuple(trial for trial in found.trials if not trial.setting.reduced), found.versions)


def variant_sha256(export: Export, graph: str, device: str) -> str:
    """Return the digest of a graph's variant in reduced precision; empty where there is none for the device."""
    variant = export.variants.get((graph, device))
    return "" if variant is None else hashlib.sha256(variant.model).hexdigest()


def key(export: Export, graph: str, device: str) -> str:
    """Return what speeds depend on: the graph, the device, the processor and its usable threads, onnxruntime."""
    digest = hashlib.sha256(export.graphs[graph]).hexdigest()[:16]
    return " | ".join(
        (digest, device, processor(), f"{usable_threads()} threads", f"onnxruntime {onnxruntime.__version__}")
    )


def _entries(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _tuned(entry: object) -> Tuned | None:
    """Return an entry as `remember` wrote it, None for anything else."""
    try:
        if not isinstance(entry, dict) or set(entry) != {"trials", "versions", "variant_sha256"}:
            return None
        trials = tuple(_trial(trial) for trial in entry["trials"][:_MOST])
        versions = {str(name): str(number) for name, number in entry["versions"].items()}
    except (TypeError, ValueError, AttributeError, KeyError):
        return None
    return Tuned(trials, versions, str(entry["variant_sha256"])) if trials else None


def _trial(entry: dict[str, Any]) -> Trial:
    values = dict(entry)
    rate, spread = float(values.pop("groups_per_s")), float(values.pop("spread"))
    setting = Setting(**values)
    whole = all(type(number) is int and 1 <= number <= _MOST for number in (setting.batch, setting.threads))
    if not whole or setting.engine not in ENGINES or type(setting.reduced) is not bool:
        raise ValueError("no setting")
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError("no speed")
    return Trial(setting, rate, spread)
