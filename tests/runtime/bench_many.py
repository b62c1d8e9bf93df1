"""What many patterns cost, as ratios: `make bench-many` prints tables, and the figures themselves as JSON.

Times are the processor's, so other work on the host counts little; those of two workers are the clock's. Two models: a flat one,
whose network costs nothing, so that all else stands out; and the demo's, as real as a small network is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from one_layer import N, write_model

import ptycho_runtime
from ptycho_runtime import demo
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.image.options import ReconstructOptions
from ptycho_runtime.many.merge import gathered, merge
from ptycho_runtime.many.parts import Which, run_part
from ptycho_runtime.many.plan import open_plan, prepare
from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import read_scan

READ = ReadOptions(
    domain="intensity", x_key="x", y_key="y", position_unit="px", position_sign=1, patterns_key="diffraction"
)
WITH_PROBE = replace(READ, probe_key="probe")
RUN = RunOptions("cpu", threads=1, batch=16)
STEP_PX = 5.0


def write_long_scan(path: Path, count: int, block: np.ndarray) -> None:
    """Write a raster of `count` patterns, which are those of a block (k, side, side) again and again."""
    side = int(np.ceil(count**0.5))
    jitter = np.random.default_rng(0).uniform(-0.7, 0.7, (2, count))
    number = np.arange(count)
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("diffraction", (count, *block.shape[1:]), np.uint16, chunks=(16, *block.shape[1:]))
        for start in range(0, count, len(block)):
            stored[start : start + len(block)] = block[: count - start]
        file["x"] = STEP_PX * (number % side) + jitter[0] + 40
        file["y"] = STEP_PX * (number // side) + jitter[1] + 40


def write_tiles(path: Path, count: int) -> None:
    """Write the demo's own scan, with its probe, side by side so often that there are `count` patterns: an image that is trusted."""
    with np.load(demo.SCAN) as data:
        patterns, x, y = (data[name] for name in ("diff3d", "xcoords", "ycoords"))
        probe = data["probeGuess"]
    which, tile = np.arange(count) % len(x), np.arange(count) // len(x)
    columns = int(np.ceil((count / len(x)) ** 0.5))
    with h5py.File(path, "w") as file:
        file["diffraction"] = patterns.astype(np.uint16)[which]
        file["x"] = x[which] + (np.ptp(x) + 40) * (tile % columns)
        file["y"] = y[which] + (np.ptp(y) + 40) * (tile // columns)
        file["probe"] = probe


def one(what: str, model: Path, scan: Path, folder: Path, number: str) -> None:
    """Do one thing in this process and print its cost."""
    options = WITH_PROBE if model == demo.MODEL else READ
    with ptycho_runtime.open(model, RUN) as opened:
        before = time.process_time()
        if what == "whole":
            with read_scan(scan, opened.export.N, options) as read:
                opened.reconstruct(read)
        elif what == "prepare":
            with read_scan(scan, opened.export.N, options) as read:
                prepare(opened, read, ReconstructOptions(), folder / "plan.h5")
        elif what == "parts":
            plan = open_plan(folder / "plan.h5")
            count = int(number)
            # The first run waits for memory and plans, which a worker does once.
            opened.warmup()
            before = time.process_time()
            for k in range(1, count + 1):
                run_part(plan, Which(k, count), opened, folder / f"{k}of{count}.h5")
        elif what == "part":
            run_part(open_plan(folder / "plan.h5"), Which(1, int(number)), opened, folder / "first.h5")
        else:
            merge(gathered(sorted(folder.glob(f"*of{number}.h5"))))
        cpu_s = time.process_time() - before
    peak_kb = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    print(json.dumps({"cpu_s": cpu_s, "peak_mb": peak_kb / 1000}))


def cost(what: str, model: Path, scan: Path, folder: Path, number: object = "") -> dict[str, float]:
    """Return what one thing costs in a process of its own."""
    command = [sys.executable, __file__, "--one", what, str(model), str(scan), str(folder), str(number)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def growth(folder: Path, model: Path, counts: list[int], block: np.ndarray) -> dict[str, Any]:
    """Return costs of whole runs, and of a part of a thousand groups, by length of the scan."""
    found: dict[str, Any] = {}
    for count in counts:
        place = folder / str(count)
        place.mkdir()
        scan = place / "scan.h5"
        write_long_scan(scan, count, block)
        found[str(count)] = {
            "whole": cost("whole", model, scan, place),
            "prepare": cost("prepare", model, scan, place),
            "part of 1000": cost("part", model, scan, place, count // 1000),
            "plan_bytes": (place / "plan.h5").stat().st_size,
        }
        say(f"{count} patterns: {found[str(count)]}")
    return found


def division(folder: Path, model: Path, scan: Path, counts: list[int]) -> dict[str, Any]:
    """Return costs of all parts in one process and of their merge, by number of parts."""
    found = {}
    for count in counts:
        parts = cost("parts", model, scan, folder, count)
        size = sum(path.stat().st_size for path in folder.glob(f"*of{count}.h5"))
        found[str(count)] = {"parts": parts, "merge": cost("merge", model, scan, folder, count), "bytes": size}
        say(f"{count} parts: {found[str(count)]}")
        for path in folder.glob(f"*of{count}.h5"):
            path.unlink()
    return found


def workers(folder: Path, model: Path, scan: Path, chunk: int) -> dict[str, float]:
    """Return wall seconds of all parts on one and on two processes, which are started before."""
    from ptycho_runtime.many.cluster import Cluster, PartsWork, run_parts

    found = {}
    for count in (1, 2):
        with Cluster(f"local:{count}") as cluster, ptycho_runtime.open(model, RUN) as opened:
            work = PartsWork(model, opened.export.sha256, scan, folder / f"on{count}", chunk, run=RUN, read=WITH_PROBE)
            # Every process has the model open before the clock starts.
            warm = PartsWork(model, opened.export.sha256, scan, folder / f"warm{count}", 64, run=RUN, read=WITH_PROBE)
            run_parts(cluster, warm)
            start = time.perf_counter()
            run_parts(cluster, work)
            found[str(count)] = time.perf_counter() - start
    say(f"workers: {found}")
    return found


def say(text: str) -> None:
    """Print what is going on."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--patterns", type=int, nargs="+", default=[1000, 10_000, 100_000], help="lengths of scans")
    parser.add_argument(
        "--parts", type=int, nargs="+", default=[1, 4, 16, 64], help="numbers of parts, of 10,000 patterns"
    )
    parser.add_argument("--real", type=int, default=2048, help="patterns for the demo's model, in tasks of 256")
    parser.add_argument("--no-workers", action="store_true", help="leave out what takes two processors")
    parser.add_argument("--only-workers", action="store_true", help="and nothing else")
    given = parser.parse_args()
    if given.one:
        what, *paths, number = given.one
        one(what, *map(Path, paths), number)
        return
    rng = np.random.default_rng(0)
    k = np.arange(N) - N // 2
    block = rng.poisson(300 * np.exp(-(k[:, None] ** 2 + k**2) / 40), (256, N, N)).astype(np.uint16)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not given.only_workers:
            flat = write_model(folder / "flat.onnx", flat=True)
            found["growth"] = growth(folder, flat, given.patterns, block)
            middle = folder / str(sorted(given.patterns)[len(given.patterns) // 2])
            found["division"] = division(middle, flat, middle / "scan.h5", given.parts)
        real = folder / "real"
        real.mkdir()
        write_tiles(real / "scan.h5", given.real)
        if not given.only_workers:
            found["real prepare"] = cost("prepare", demo.MODEL, real / "scan.h5", real)
            found["real"] = division(real, demo.MODEL, real / "scan.h5", [1, given.real // 256])
        if not given.no_workers:
            found["workers"] = workers(real, demo.MODEL, real / "scan.h5", 256)
    print(json.dumps(found, indent=1), *tables(found), sep="\n")


def tables(found: dict[str, Any]) -> list[str]:
    """Return the figures as ratios to the first of their kind, a line each."""
    lines = []
    for kind in ("growth", "division", "real"):
        rows = {count: dict(_flat(row)) for count, row in found.get(kind, {}).items()}
        first = next(iter(rows.values()), {})
        for count, row in rows.items():
            lines.append(f"{kind} {count:>7s}: " + ", ".join(f"{name} {row[name] / first[name]:.2f}" for name in first))
    seconds = found.get("workers")
    if seconds:
        lines.append(f"two workers take {seconds['2'] / seconds['1']:.2f} of the time of one")
    return lines


def _flat(row: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the figures of a row by name."""
    pairs = []
    for name, value in row.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        pairs += [(f"{name} {unit}".strip(), float(figure)) for unit, figure in inner]
    return pairs


if __name__ == "__main__":
    main()
