"""One contender's process: takes orders from standard input, a JSON object a line, and answers on standard output.

Started as `python -m exporters.bench.measure CASE FEED KEY DEVICE THREADS`. It computes only while an order is open.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from exporters.bench.case import CannotRun, Case, Engine
from exporters.bench.contenders import find
from exporters.bench.memory import peak_bytes


class Measured:
    """An opened contender with the inputs of a run."""

    def __init__(self, case: Case, feed: Path, key: str, device: str, threads: int) -> None:
        """Open the contender; raises `CannotRun`."""
        self.engine: Engine = find(key).open(case, device, threads)
        with np.load(feed, allow_pickle=False) as data:
            self.feed = dict(data)
        self.ready: tuple[int, Callable[[], Any]] | None = None  # batch size and its call

    def slice(self, prefix: str, start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the inputs of some groups: `timed.` for speed, `pool.` for accuracy."""
        names = {key.removeprefix(prefix): key for key in self.feed if key.startswith(prefix)}
        return {name: np.ascontiguousarray(self.feed[key][start:stop]) for name, key in names.items()}

    def run(self, batch: int, calls: int) -> dict[str, Any]:
        """Return the seconds that `calls` runs of one batch took together."""
        if self.ready is None or self.ready[0] != batch:
            self.ready = None  # a size is never gone back to, and what it holds is a GPU's memory
            self.ready = batch, self.engine.prepare(self.slice("timed.", 0, batch))
        _, call = self.ready
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return {"seconds": time.perf_counter() - start}

    def outputs(self, batch: int, path: str) -> dict[str, Any]:
        """Run the whole pool in batches and write the outputs."""
        groups = len(next(value for key, value in self.feed.items() if key.startswith("pool.")))
        parts = []
        self.ready = None
        for start in range(0, groups, batch):
            parts.append(self.engine.arrays(self.engine.prepare(self.slice("pool.", start, start + batch))()))
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        np.savez(path, allow_pickle=False, **arrays)
        return {}

    def answer(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order."""
        if order["do"] == "run":
            return self.run(order["batch"], order["calls"])
        if order["do"] == "outputs":
            return self.outputs(order["batch"], order["path"])
        return {}


def serve(arguments: list[str], orders: IO[str], answers: IO[str]) -> None:
    """Open the contender and carry out orders until the parent closes the line."""

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    case, feed, key, device, threads = arguments
    try:
        measured = Measured(Case.read(Path(case)), Path(feed), key, device, int(threads))
    except CannotRun as error:
        say({"cannot": str(error)})
        return
    idle = time.perf_counter(), time.process_time()
    for line in orders:
        # What a thread pool burns while others compute would be theirs.
        waited = {"idle_s": time.perf_counter() - idle[0], "idle_cpu_s": time.process_time() - idle[1]}
        before = time.process_time()
        answer = measured.answer(json.loads(line))
        spent = {"cpu_s": time.process_time() - before, "peak_bytes": peak_bytes()}
        say({**answer, **waited, **spent})
        idle = time.perf_counter(), time.process_time()


def main() -> None:
    """Keep standard output for answers; whatever libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.argv[1:], sys.stdin, answers)


if __name__ == "__main__":
    main()
