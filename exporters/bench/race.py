"""The contenders' processes, and rounds in which they take turns: one computes, the others wait for their next order."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporters.bench.case import CannotRun
from exporters.bench.contenders import Contender, thread_environment
from exporters.bench.disturbance import busy_s, disturbance
from ptycho_runtime.closing import Closing

ROUND_S = 0.05  # a round lasts at least this long
WARM_UP_CALLS = 4  # TorchScript's compiler settles after the second
QUIET = 0.1  # of the cores, taken by other processes
PATIENCE = 3
_SETTLE_S = 0.01  # between turns, for thread pools that spin a little after work
_LIMIT_S = 600.0  # for one order; compiling takes tens of seconds


@dataclass(frozen=True)
class Arena:
    """What every process of a run is started with."""

    case: Path
    feed: Path
    threads: int


def child_environment(threads: int, contender: Contender, scratch: str) -> dict[str, str]:
    """Return the environment of a contender's process; caches are empty, for what was compiled or built before is no cold start."""
    caches = dict.fromkeys(("TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME"), scratch)
    return {**thread_environment(threads), **contender.environment, **caches}


def why_ended(code: int, stderr: str) -> str:
    """Return why a process that failed ended: its code, and the last line of what it said that is not indented."""
    lines = reversed(stderr.split("\n"))
    last = next((line.strip() for line in lines if line.strip() and not line.startswith(" ")), "no message")
    return f"its process ended with code {code}: {last[:300]}"


class Child(Closing):
    """One contender's process."""

    def __init__(self, arena: Arena, contender: Contender, device: str) -> None:
        """Start the process; it opens the contender at once."""
        self.contender, self.device = contender, device
        self.scratch = tempfile.TemporaryDirectory(prefix="bench-")
        self.errors = Path(self.scratch.name) / "stderr"
        environment = child_environment(arena.threads, contender, self.scratch.name)
        command = [sys.executable, "-m", "exporters.bench.measure", str(arena.case), str(arena.feed)]
        self.started_s = time.perf_counter()
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*command, contender.key, device, str(arena.threads)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True,
            )  # fmt: skip

    def ask(self, **order: Any) -> dict[str, Any]:
        """Give an order and return the answer; raises `CannotRun` with the process's own reason."""
        assert self.process.stdin is not None and self.process.stdout is not None
        watch = threading.Timer(_LIMIT_S, self.process.kill)
        watch.start()
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = self.process.stdout.readline()  # its reason may still lie there
        finally:
            watch.cancel()
        if not line:
            raise CannotRun(self._why_ended())
        answer: dict[str, Any] = json.loads(line)
        if "cannot" in answer:
            raise CannotRun(answer["cannot"])
        return answer

    def _why_ended(self) -> str:
        return why_ended(self.process.wait(), self.errors.read_text(encoding="utf-8", errors="replace"))

    def close(self) -> None:
        """End the process and remove what it left."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.scratch.cleanup()


@dataclass
class Turns:
    """What one contender took for one batch size."""

    seconds: list[float] = field(default_factory=list)  # per batch, one number a round
    calls: int = 0  # in each round
    idle_cpu_s: float = 0.0  # burnt while waiting, most of any round
    peak_bytes: int = 0
    reason: str = ""  # why it did not run


@dataclass
class Round:
    """One turn of every contender."""

    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    wall_s: float = 0.0
    others_s: float = 0.0  # CPU seconds of processes that were not asked to compute

    def disturbance(self, threads: int) -> float:
        """Return what other processes took of the cores."""
        return disturbance(self.others_s, self.wall_s, threads, os.cpu_count() or threads)


def race(children: dict[str, Child], batch: int, rounds: int, threads: int) -> tuple[dict[str, Turns], list[float]]:
    """Let the children take turns on one batch size.

    Every second round goes in the opposite order, so that none always follows the same neighbour. Rounds in which other
    processes took more than `QUIET` of the cores are repeated, up to `PATIENCE` times as many in all; the quietest count.

    Args:
        children: by contender key; one that cannot go on is closed and removed.
        batch: groups per call.
        rounds: how often each takes a turn that counts.
        threads: of each child.

    Returns:
        (the turns of each child by key, or its reason; what other processes took of the cores in each round that counts).
    """
    found = {key: Turns() for key in children}

    def turn(key: str, calls: int) -> dict[str, Any] | None:
        time.sleep(_SETTLE_S)
        try:
            return children[key].ask(do="run", batch=batch, calls=calls)
        except CannotRun as error:
            found[key] = Turns(reason=str(error))
            children.pop(key).close()
            return None

    for key in list(children):
        if turn(key, WARM_UP_CALLS) is None:
            continue
        trial = turn(key, 1)
        if trial is not None:
            found[key].calls = max(1, math.ceil(ROUND_S / trial["seconds"]))
    done: list[Round] = []
    while len(done) < PATIENCE * rounds and sum(r.disturbance(threads) <= QUIET for r in done) < rounds:
        this = Round()
        for key in list(children) if len(done) % 2 == 0 else list(reversed(children)):
            start, busy = time.perf_counter(), busy_s()
            answer = turn(key, found[key].calls)
            if answer is not None:
                this.answers[key] = answer
                this.wall_s += time.perf_counter() - start
                now = busy_s()
                this.others_s += now - busy - answer["cpu_s"] if now is not None and busy is not None else 0.0
        done.append(this)
    # All contenders keep the same rounds, so that ratios are of turns next to each other.
    kept = sorted(sorted(range(len(done)), key=lambda n: done[n].disturbance(threads))[:rounds])
    for key in children:
        mine = found[key]
        answers = [done[number].answers[key] for number in kept]
        mine.seconds = [answer["seconds"] / mine.calls for answer in answers]
        mine.idle_cpu_s = max(answer["idle_cpu_s"] for answer in answers)
        mine.peak_bytes = answers[-1]["peak_bytes"]
    return found, [done[number].disturbance(threads) for number in kept]


def cold_start(arena: Arena, contender: Contender, device: str) -> tuple[float, int]:
    """Return (seconds from starting a process to its first result of batch 1, its peak memory in bytes).

    Raises `CannotRun` where it gives no result.
    """
    with Child(arena, contender, device) as child:
        answer = child.ask(do="run", batch=1, calls=1)
        return time.perf_counter() - child.started_s, int(answer["peak_bytes"])
