"""A graph under the engine that suits this host: as asked for, else as tuned, and only if it has passed the parity rule here.

onnxruntime is what an export was proven with, and `check` proves it on this host. Another engine is proven each time it is opened,
on the stored inputs, in runs of the size to come: what was asked for by name and fails is an error, and what was merely tuned gives
way to onnxruntime, which is said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ptycho_runtime.engine import openvino
from ptycho_runtime.engine.hardware import usable_threads
from ptycho_runtime.engine.judging import judged, raise_unless_passed
from ptycho_runtime.engine.opening import open_engine
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.engine.session import Session
from ptycho_runtime.engine.tuned import Setting, Tuned, Wanted, choose, remembered
from ptycho_runtime.errors import CheckFailedError, DeviceUnavailableError, NotExportedError
from ptycho_runtime.export.bundle import Export, load_golden


@dataclass(frozen=True)
class Opened:
    """A graph that is open, and what was tuned for it; None where nothing was, or the options left nothing open."""

    session: Session
    tuned: Setting | None


def open_graph(export: Export, graph: str, options: RunOptions) -> Opened:
    """Return a graph in float32, under the engine that the options name, or that was tuned for it on this host.

    Args:
        export: which has the graph.
        graph: its name.
        options: how; engine, batch and threads that they leave open are those that were tuned, among what they leave.

    Raises:
        DeviceUnavailableError: a device or an engine that was asked for by name cannot be used.
        CheckFailedError: an engine that was asked for by name computes something else than was exported.
        NotExportedError: the export has no stored inputs to prove such an engine on.
        DamagedExportError: onnxruntime refuses the graph.
    """
    model, choice = export.graphs[graph], Choice(export, graph)
    try:
        session = _proven(export, graph, open_engine(model, options, choice.fit))
    except (DeviceUnavailableError, CheckFailedError, NotExportedError) as error:
        if options.engine is not None or choice.setting is None or choice.setting.engine == "onnxruntime":
            raise
        choice.without = str(error)
        session = open_engine(model, options, choice.fit)
    if choice.without:
        instead = f"{graph} runs under onnxruntime, and not under the engine that was tuned: {choice.without}"
        session.note = "; ".join(filter(None, (session.note, instead)))
    return Opened(session, choice.setting)


def tuned_variant(export: Export, graph: str, options: RunOptions) -> tuple[RunOptions | None, str]:
    """Return (options for a graph's variant in reduced precision, ""), or (None, why float32 is better).

    Args:
        export: which has the variant.
        graph: its name.
        options: how; batch and threads that they leave open are those that were tuned.
    """
    tuned = remembered(export, graph, options.device)
    every = () if tuned is None else tuned.trials
    wanted = replace(_left(options), engine=None, reduced=None)
    if not any(trial.setting.reduced for trial in every if wanted.allows(trial.setting)):
        return options, ""
    setting = choose(every, wanted)
    if setting is None or not setting.reduced:
        return None, "float32 in place of reduced precision, which is no faster on this host as tuned"
    return replace(options, batch=setting.batch, threads=setting.threads), ""


class Choice:
    """What was tuned of a graph, for the device that is opened."""

    def __init__(self, export: Export, graph: str) -> None:
        """Take the graph; nothing is chosen yet."""
        self.export, self.graph = export, graph
        self.setting: Setting | None = None
        """That was chosen; None where nothing was tuned that the options leave."""
        self.without = ""
        """Why the engine that was tuned is not used."""

    def fit(self, options: RunOptions) -> RunOptions:
        """Return options with what was tuned in the places that they leave open."""
        tuned = remembered(self.export, self.graph, options.device)
        self.setting = None
        if tuned is None:
            return options
        wanted = _left(options)
        if options.device != "cpu":
            # What was tuned for the CPU stands under another key; this is for a file that was written by hand.
            wanted = replace(wanted, engine="onnxruntime")
        elif wanted.engine is None:
            best = choose(tuned.trials, wanted)
            if best is not None and best.engine != "onnxruntime":
                self.without = self.without or _other_version(best.engine, tuned)
            if self.without:
                wanted = replace(wanted, engine="onnxruntime")
        self.setting = choose(tuned.trials, wanted)
        if self.setting is None:
            return options
        return replace(options, batch=self.setting.batch, threads=self.setting.threads, engine=self.setting.engine)


def _left(options: RunOptions) -> Wanted:
    """Return what options leave open, with no more threads than there are."""
    threads = None if options.threads is None else min(options.threads, usable_threads())
    return Wanted(options.batch, threads, options.engine)


def _other_version(engine: str, tuned: Tuned) -> str:
    """Return why an engine is not the one that was measured; empty where it is."""
    measured, here = tuned.versions.get(engine, "unknown"), openvino.installed_version()
    if not here:
        return f"{engine} is not installed any more; {openvino.FIX}, or tune again"
    return "" if here == measured else f"{engine} {measured} was measured, and {here} is installed; tune again"


def _proven(export: Export, graph: str, session: Session) -> Session:
    """Return a session that keeps the parity rule on the stored inputs; onnxruntime's is what `check` proves.

    Raises `CheckFailedError` where it does not, and `NotExportedError` where there is nothing to prove it on.
    """
    if session.engine == "onnxruntime":
        return session
    try:
        raise_unless_passed(judged(session, graph, load_golden(export), export.path.name), export.path.name)
    except BaseException:
        session.close()
        raise
    return session
