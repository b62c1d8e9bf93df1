"""The fastest way of running the object graphs on this host's CPU that keeps a budget on held-back patterns."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Literal, cast

import numpy as np
import onnxruntime
import torch

from exporters.errors import BudgetNotKeptError, ExportError
from exporters.options import Progress, silent
from exporters.parity.inputs import Pool
from exporters.parity.runners import EagerRunner
from exporters.parity.trials import in_chunks
from exporters.reduced.half import half, kept_in_float32, magnitudes
from exporters.reduced.layers import build, plan_layers, sensitivities
from exporters.reduced.patterns import Patterns, scan_patterns
from exporters.reduced.pools import as_pools
from exporters.reduced.quantize import run
from exporters.stored.exports_json import stored_file
from ptycho_runtime import contract
from ptycho_runtime.engine.devices import why_not
from ptycho_runtime.engine.hardware import processor, usable_threads
from ptycho_runtime.engine.opening import open_session
from ptycho_runtime.engine.openvino import OpenVinoSession, has_bfloat16
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.engine.session import Session
from ptycho_runtime.engine.variants import precision_errors
from ptycho_runtime.export.precision import Budget, PrecisionErrors, variant_precision
from ptycho_runtime.export.record import InputScale, PatternSet, StoredFile, StoredVariant
from ptycho_runtime.scan.scan import Scan
from ptycho_torch.bundle.write import npz_bytes
from ptycho_torch.models.module import PtychoModel

WHOLE = "diffraction_to_obj"
PRECISIONS = ("auto", "bfloat16", "int8", "float16")
ROUNDS = 15
WORTH = 1.05  # times as fast as float32 under onnxruntime; below, a variant is not worth its errors
_PAUSE_S = 0.003
# Of the budget: other plans are raced beside the one that fills it, so that the report shows what more or less of it would buy.
_OTHER_BUDGETS = (0.3, 2.0, 5.0)


@dataclass(frozen=True)
class Way:
    """One way of running a graph: under OpenVINO on the CPU, or in float16 under onnxruntime on CUDA."""

    graph: str
    precision: str
    model: bytes
    int8_layers: tuple[str, ...] = ()
    to_show: bool = False
    """Raced for the report alone: its layers were chosen for another budget."""

    @property
    def engine(self) -> Literal["openvino", "onnxruntime"]:
        """The engine."""
        return "onnxruntime" if self.precision == "float16" else "openvino"

    @property
    def label(self) -> str:
        """Name engine and precision."""
        return f"{self.engine} {variant_precision(self.precision, len(self.int8_layers))}"

    def open(self) -> Session:
        """Return a session on this host; float16 without CUDA is emulated on the CPU, which rounds every value alike."""
        if self.engine == "openvino":
            return OpenVinoSession(self.model, RunOptions("cpu"), precision=self.precision)
        return open_session(self.model, RunOptions(float16_device()))


def float16_device() -> str:
    """Return where float16 is judged: on CUDA, and where there is none on the CPU."""
    return "cpu" if why_not("cuda") else "cuda"


@dataclass(frozen=True)
class Tried:
    """A way with what was measured: its errors on the held-back patterns, and its speed."""

    way: Way
    errors: PrecisionErrors
    allowed: bool
    times_as_fast: float | None  # None where it cannot be measured here

    def __str__(self) -> str:
        """Return the finding in one line."""
        verdict = "within the budget" if self.allowed else "beyond the budget"
        speed = (
            "speed not measured (no CUDA device)"
            if self.times_as_fast is None
            else f"{self.times_as_fast:.2f} × onnxruntime float32"
        )
        return f"{self.way.graph}: {self.way.label}: {speed}, {self.errors}: {verdict}"

    @property
    def worth(self) -> float:
        """Return what ways are compared by."""
        return float("inf") if self.times_as_fast is None else self.times_as_fast


@dataclass
class Choice:
    """What was tried and what is stored of it."""

    budget: Budget
    tried: list[Tried] = field(default_factory=list)
    variants: list[StoredVariant] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)  # members by name
    patterns: StoredFile | None = None

    def lines(self) -> list[str]:
        """Return what was tried and chosen, a line each."""
        chosen: dict[str, str] = {
            entry.graph: variant_precision(entry.precision, len(entry.int8_layers)) for entry in self.variants
        }
        lines = [str(one) for one in self.tried]
        engines: dict[str, str] = {entry.graph: entry.engine for entry in self.variants}
        for graph in dict.fromkeys(one.way.graph for one in self.tried):
            what = chosen.get(graph)
            lines.append(
                f"{graph}: {f'stored: {engines[graph]} {what}' if what else 'float32 under onnxruntime is the fastest'}"
            )
        return lines


@dataclass(frozen=True)
class VariantRequest:
    """What is asked of variants in reduced precision."""

    budget: Budget
    """What the object may err."""
    precision: str = "auto"
    """`auto` tries all, the others of `PRECISIONS` one."""
    progress: Progress = silent
    """Called with a short text at each step."""


def choose_variants(
    model: PtychoModel,
    artifacts: Mapping[str, Mapping[str, bytes]],
    scan: Scan,
    scale: InputScale,
    request: VariantRequest,
) -> Choice:
    """Return the variants to store beside a model's exports.

    Args:
        model: the eager model.
        artifacts: the exported files by graph and format, already proven in float32.
        scan: whose patterns are calibrated on, and others of which judge.
        scale: how its input scale factor is made.
        request: budget and precision.

    Raises:
        BudgetNotKeptError: nothing tried keeps the budget, or float32 itself does not.
        DeviceUnavailableError: OpenVINO is not installed, or this processor lacks the precision that was asked for.
        ScanError, BundleError: the scan leaves something open or is too short.
    """
    budget, precision, say = request.budget, request.precision, request.progress
    if precision not in PRECISIONS:
        raise ExportError(f"precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    rest = "float32"
    if precision != "float16" and (has_bfloat16() or precision == "bfloat16"):
        rest = "bfloat16"
    say("patterns")
    calibration, held_back = scan_patterns(scan, model.spec, scale)
    with EagerRunner(model, WHOLE, dtype=torch.float64) as eager:
        reference = in_chunks(eager, Pool(held_back.feed, ["scan"] * len(held_back)))
    whole = artifacts[WHOLE]["onnx"]
    float32 = precision_errors(run(whole, held_back.feed), reference)
    if not budget.allows(float32):
        raise BudgetNotKeptError(f"float32 itself errs {float32} on held-back patterns; the budget is {budget}")
    plans: list[dict[str, float]] = []
    if precision in ("auto", "int8"):
        plans = _plans(whole, calibration, budget, rest, say)
    choice = Choice(budget)
    for graph in (WHOLE, contract.CENTRE):
        if graph not in artifacts:
            continue
        shown = plans if graph == WHOLE else plans[:1]
        ways = _ways(graph, artifacts[graph]["onnx"], precision, rest, shown, calibration)
        middle = contract.centre(model.spec.N) if graph == contract.CENTRE else slice(None)
        wanted = {name: value[..., middle, middle] for name, value in reference.items()}
        say(f"{graph}: {len(ways)} ways side by side")
        tried = _try(ways, artifacts[graph]["onnx"], held_back, wanted, budget)
        choice.tried += tried
        fit = [one for one in tried if one.allowed and not one.way.to_show]
        if not fit and precision != "auto":
            break
        fast = [one for one in fit if one.worth >= WORTH]
        if fast:
            _store(choice, max(fast, key=lambda one: one.worth), calibration, held_back)
    if precision != "auto" and not choice.variants:
        found = "; ".join(map(str, choice.tried)) or "no layer bears int8"
        raise BudgetNotKeptError(f"{precision} does not keep the budget of {budget}, or gains nothing: {found}")
    if choice.variants:
        data = npz_bytes({**held_back.feed, **{name: value.astype(np.float32) for name, value in reference.items()}})
        choice.files[contract.VARIANT_NPZ] = data
        choice.patterns = stored_file(contract.VARIANT_NPZ, data)
    return choice


def _plans(whole: bytes, calibration: Patterns, budget: Budget, rest: str, say: Progress) -> list[dict[str, float]]:
    """Return the layers that bear int8, each with the evenness of its input's channels: as many as the budget has room for.

    Behind that plan, which may be empty, stand those of other budgets.
    """
    reference = run(whole, calibration.feed)
    options = RunOptions("cpu")
    with OpenVinoSession(whole, options, precision=rest) as session:
        other = precision_errors(session.run(calibration.feed), reference)
    found = sensitivities(whole, calibration.feed, say)
    plan = plan_layers(found, budget, other)
    gain = {one.layer: one for one in found}
    while plan:
        with OpenVinoSession(build(whole, plan, calibration.feed), options, precision=rest) as session:
            planned = precision_errors(session.run(calibration.feed), reference)
        if budget.allows(planned):
            break
        # Effects did not add up as expected: the layer that buys the least speed for its error goes first.
        plan.pop(max(plan, key=lambda layer: gain[layer].errors.phase_rad / gain[layer].multiply_adds))
    plans = [plan]
    for share in _OTHER_BUDGETS:
        other_plan = plan_layers(found, Budget(share * budget.phase_rad, share * budget.amplitude_rel), other)
        if all(set(other_plan) != set(known) for known in (*plans, {})):
            plans.append(other_plan)
    return plans


def _ways(
    graph: str, model: bytes, precision: str, rest: str, plans: Sequence[Mapping[str, float]], calibration: Patterns
) -> list[Way]:
    if precision == "float16":
        return [Way(graph, precision, half(as_pools(model), kept_in_float32(magnitudes(model, calibration.feed))))]
    ways = []
    if precision == "auto":
        ways.append(Way(graph, "float32", model))
    if precision in ("auto", "bfloat16") and rest == "bfloat16":
        ways.append(Way(graph, "bfloat16", model))
    for number, layers in enumerate(plans):
        if layers:
            ways.append(Way(graph, rest, build(model, layers, calibration.feed), tuple(layers), to_show=number > 0))
    return ways


def _try(
    ways: Sequence[Way],
    float32: bytes,
    held_back: Patterns,
    wanted: Mapping[str, np.ndarray],
    budget: Budget,
) -> list[Tried]:
    device = float16_device() if any(way.precision == "float16" for way in ways) else "cpu"
    emulated = device == "cpu" and any(way.precision == "float16" for way in ways)
    found = []
    with ExitStack() as opened:
        options = RunOptions(device)
        sessions: list[Session] = [opened.enter_context(open_session(float32, options))]
        sessions += [opened.enter_context(way.open()) for way in ways]
        # A GPU is as fast in float32 at small batches, where it waits for its orders.
        feed = held_back.batch(options.groups)
        ratios: list[float | None] = [None] * len(ways) if emulated else [*race(sessions, feed)[1:]]
        for way, session, ratio in zip(ways, sessions[1:], ratios, strict=True):
            errors = precision_errors(session.run(held_back.feed), wanted)
            found.append(Tried(way, errors, budget.allows(errors), ratio))
    return found


def race(sessions: Sequence[Session], feed: Mapping[str, np.ndarray], rounds: int = ROUNDS) -> list[float]:
    """Return how many times as fast each session is as the first: the median over rounds in which all take turns."""
    times: list[list[float]] = [[] for _ in sessions]
    for session in sessions:
        session.run(feed)
    for _ in range(rounds):
        for session, found in zip(sessions, times, strict=True):
            time.sleep(_PAUSE_S)
            start = time.perf_counter()
            session.run(feed)
            found.append(time.perf_counter() - start)
    return [statistics.median(a / b for a, b in zip(times[0], found, strict=True)) for found in times]


def _store(choice: Choice, best: Tried, calibration: Patterns, held_back: Patterns) -> None:
    way = best.way
    path = contract.int8_member(way.graph) if way.int8_layers else contract.onnx_member(way.graph)
    path = contract.float16_member(way.graph) if way.precision == "float16" else path
    if path != contract.onnx_member(way.graph):
        choice.files[path] = way.model
    choice.variants.append(
        StoredVariant(
            graph=cast(contract.GraphName, way.graph),
            engine=way.engine,
            precision=way.precision,
            int8_layers=way.int8_layers,
            file=stored_file(path, way.model),
            budget=choice.budget,
            errors=best.errors,
            calibration=PatternSet(calibration.sha256, len(calibration)),
            held_back=PatternSet(held_back.sha256, len(held_back)),
            times_as_fast=None if best.times_as_fast is None else round(best.times_as_fast, 2),
            made_on={
                "processor": processor(),
                "threads": str(usable_threads()),
                "platform": platform.machine(),
                **_engine_version(way.engine),
            },
        )
    )


def _engine_version(engine: str) -> dict[str, str]:
    return {"onnxruntime": onnxruntime.__version__} if engine == "onnxruntime" else {"openvino": version("openvino")}
