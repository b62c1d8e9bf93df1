"""A whole reconstruction timed: a long scan from compressed HDF5 to the image with its verdict, beside the session alone.

Started as `python -m exporters.bench.end_to_end BUNDLE SCAN PATTERNS`, it prints one JSON object. The process imports nothing that a
beamline host lacks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.bench.contenders import thread_environment
from exporters.bench.race import why_ended

if TYPE_CHECKING:
    from ptycho_runtime.api import Reconstructor
    from ptycho_runtime.image.result import Reconstruction
    from ptycho_runtime.scan.options import ReadOptions
    from ptycho_runtime.scan.scan import Scan

END_TO_END = "end to end"
PATTERNS = 10_000
_ALONE = 512  # patterns that the session alone is timed on, again and again
_ALONE_S = 5.0  # before the reconstruction, and as long after it
_LIMIT_S = 1800.0


@dataclass(frozen=True)
class EndToEnd:
    """Where the seconds of one reconstruction went."""

    patterns: int
    engine: str = ""
    """Engine, precision, groups a run and threads."""
    stored_bytes: int = 0
    """Of the file."""
    look_s: float = 0.0
    """Opening the scan: one pass that checks every pattern."""
    reconstruct_s: float = 0.0
    """From the first pattern read again to the image and its verdict."""
    session_s: float = 0.0
    """Of these, while the session was running."""
    verdict_s: float = 0.0
    """Of these, after the last pattern."""
    alone_per_s: float = 0.0
    """Patterns a second of the same session with nothing beside it, in the same runs of equal size."""
    reason: str = ""
    """Why nothing was measured."""

    @property
    def share(self) -> float:
        """Share of the reconstruction's time in which the session was running."""
        return self.session_s / self.reconstruct_s

    @property
    def share_of_all(self) -> float:
        """The same with the pass that opens the scan."""
        return self.session_s / (self.reconstruct_s + self.look_s)

    @property
    def rate(self) -> float:
        """Patterns a second of the reconstruction over those of the session alone."""
        return self.patterns / self.reconstruct_s / self.alone_per_s

    @property
    def rate_of_all(self) -> float:
        """The same with the pass that opens the scan."""
        return self.patterns / (self.reconstruct_s + self.look_s) / self.alone_per_s


def end_to_end(bundle: str, scan: str | Path, patterns: int, threads: int) -> EndToEnd:
    """Measure in a process of its own.

    Args:
        bundle: exported.
        scan: whose fields are laid side by side, beyond each other's reach, until there are enough patterns.
        patterns: of the long scan.
        threads: of the numeric libraries; the session takes what was tuned, or all.
    """
    command = [sys.executable, "-m", "exporters.bench.end_to_end", bundle, str(scan), str(patterns)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_S, env=thread_environment(threads), check=False
        )
    except subprocess.TimeoutExpired:
        return EndToEnd(patterns, reason=f"it took more than {_LIMIT_S:.0f} s")
    if done.returncode:
        return EndToEnd(patterns, reason=why_ended(done.returncode, done.stderr))
    return EndToEnd(**json.loads(done.stdout))


def measured(bundle: str, scan: Path, patterns: int, folder: Path) -> EndToEnd:
    """Write a long scan into a folder, reconstruct it, and return where the time went.

    Raises what opening the bundle, reading the scan and reconstructing raise.
    """
    import ptycho_runtime
    from ptycho_runtime.image.options import ReconstructOptions

    path = folder / "long.h5"
    with ptycho_runtime.open(bundle, "cpu") as model:
        with ptycho_runtime.read_scan(scan, model.export.N) as short:
            options = write_long(path, short, patterns, model.export.N)
        alone = _alone(model, path, options)
        start = time.perf_counter()
        with ptycho_runtime.read_scan(path, model.export.N, options) as read:
            looked = time.perf_counter()
            result = model.reconstruct(read, ReconstructOptions())
            done = time.perf_counter()
        again = _alone(model, path, options)
    return _of(result, path, (looked - start, done - looked), (alone + again) / 2)


def _of(result: Reconstruction, path: Path, seconds: tuple[float, float], alone_per_s: float) -> EndToEnd:
    timing = result.timing
    return EndToEnd(
        patterns=result.done,
        engine=result.engine,
        stored_bytes=path.stat().st_size,
        look_s=seconds[0],
        reconstruct_s=seconds[1],
        session_s=timing.session_seconds,
        verdict_s=timing.verdict_seconds,
        alone_per_s=alone_per_s,
    )


def write_long(path: Path, scan: Scan, patterns: int, N: int) -> ReadOptions:
    """Write a scan of so many patterns as HDF5, each frame compressed by gzip with shuffled bytes; return how it is read.

    Args:
        path: of the file.
        scan: whose patterns, probe and positions are repeated.
        patterns: in all.
        N: side of a pattern that the model takes, pixels.
    """
    import h5py
    import numpy as np

    from ptycho_runtime.scan.options import ReadOptions

    count = len(scan)
    fields = -(-patterns // count)
    columns = int(np.ceil(np.sqrt(fields)))
    # Fields beyond each other's reach: what one shows does not contradict the next.
    width, height = np.ptp(scan.positions_px, axis=0) + 2 * N
    places = np.array([(number % columns * width, number // columns * height) for number in range(fields)])
    positions = (places[:, None] + scan.positions_px).reshape(-1, 2)[:patterns]
    with h5py.File(path, "w") as file:
        frames = file.create_dataset(
            "diffraction", (patterns, N, N), np.float32, chunks=(1, N, N), compression="gzip", shuffle=True
        )
        for start in range(0, patterns, count):
            which = np.arange(min(count, patterns - start))
            frames[start : start + len(which)] = scan.patterns(which, N, "amplitude")
        file["xcoords"], file["ycoords"] = positions.T
        if scan.probe is not None:
            file["probeGuess"] = scan.probe
    return ReadOptions(domain="amplitude", position_unit="px")


def _alone(model: Reconstructor, path: Path, options: ReadOptions) -> float:
    """Return the patterns a second that the session takes which a reconstruction goes through, with nothing beside it."""
    import numpy as np

    import ptycho_runtime
    from ptycho_runtime.image.core import Core, Setup
    from ptycho_runtime.image.options import ReconstructOptions
    from ptycho_runtime.image.reconstruct import grouped_and_scaled

    export = model.export
    with ptycho_runtime.read_scan(path, export.N, options) as whole:
        how = ReconstructOptions()
        graphs = model.graphs(how, has_probe=whole.probe is not None)
        scan, groups, factor = grouped_and_scaled(
            export, graphs.patches, whole.subset(np.arange(min(_ALONE, len(whole)))), how
        )
        batches = [
            (ids, scan.patterns(ids.reshape(-1), export.N, export.domain).reshape(*ids.shape, export.N, export.N))
            for ids in np.split(groups, range(graphs.batch, len(groups), graphs.batch))
        ]
        with Core(export, graphs, Setup(factor, scan.probe), scan.positions_px) as core:
            core.run(batches[0][0], batches[0][1], scan.positions_px[batches[0][0]])
            core.clock.seconds, taken = 0.0, 0
            while core.clock.seconds < _ALONE_S:
                for ids, patterns in batches:
                    core.run(ids, patterns, scan.positions_px[ids])
                    taken += len(ids)
            return taken / core.clock.seconds


def main() -> None:
    """Measure what the command line names; the folder for the long scan goes with the process."""
    bundle, scan, patterns = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        found = measured(bundle, Path(scan), int(patterns), Path(folder))
    sys.stdout.write(json.dumps(asdict(found)) + "\n")


if __name__ == "__main__":
    main()
