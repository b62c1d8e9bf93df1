"""Print the table of docs/trust.md: faults put into 5 % of a scan's frames, and into all, against what the verdict sees.

    python tests/runtime/trust_table.py EXPORTED_DEMO.zip

The demo goes through its network. Three simulated samples of other textures and doses have patches as a good network gives them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import simulated

import ptycho_runtime
from ptycho_runtime.image.trust.values import Trust
from ptycho_runtime.scan.scan import Scan

DEMO = Path(__file__).parents[2] / "examples" / "demo" / "scan.npz"
SHARE = 0.05


@dataclass(frozen=True)
class Counts:
    """A scan as counts (n, N, N) at positions (n, 2)."""

    name: str
    counts: np.ndarray
    positions_px: np.ndarray
    probe: np.ndarray


def demo() -> Counts:
    """Return the demo's scan."""
    with np.load(DEMO) as data:
        positions = np.stack([data["xcoords"], data["ycoords"]], axis=1).astype(float)
        counts = np.rint(data["diff3d"].astype(np.float64) ** 2)
        probe = data["probeGuess"]
    return Counts("demo", counts, positions, probe)


def frames_of(counts: Counts, bad: np.ndarray, fault: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Counts:
    """Put a fault into some frames: `fault` takes (those frames, all frames)."""
    found = counts.counts.copy()
    found[bad] = fault(found[bad], counts.counts)
    return replace(counts, counts=found)


def _hot(frames: np.ndarray, every: np.ndarray) -> np.ndarray:
    rng, found = np.random.default_rng(6), frames.copy()
    for frame in found:
        frame[tuple(rng.integers(4, 60, 2))] = frame.max()
    return found


FRAME_FAULTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "shifted 3 px": lambda frames, every: np.roll(frames, 3, axis=2),
    "hot pixel": _hot,
    "beam off": lambda frames, every: np.random.default_rng(6).poisson(0.2, frames.shape).astype(float),
    "double exposure": lambda frames, every: frames + every[: len(frames)],
    "frame of another place": lambda frames, every: np.roll(every, 137, axis=0)[: len(frames)],
    "mirrored": lambda frames, every: np.roll(frames[:, :, ::-1], 1, axis=2),
    "transposed": lambda frames, every: frames.transpose(0, 2, 1),
    "× 100": lambda frames, every: frames * 100,
    "half of the counts": lambda frames, every: (
        np.random.default_rng(6).binomial(frames.astype(int), 0.5).astype(float)
    ),
}
POSITION_FAULTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "position of another": lambda bad, every: every[(bad + 137) % len(every)],
    "position off by (6, 6) px": lambda bad, every: every[bad] + 6,
}
MANY = ("double exposure", "mirrored", "transposed", "× 100", "position of another", "position off by (6, 6) px")
WHOLE: dict[str, Callable[[Counts], Counts]] = {
    "none": lambda scan: scan,
    "x and y exchanged": lambda scan: replace(scan, positions_px=scan.positions_px[:, ::-1].copy()),
    "y mirrored": lambda scan: replace(scan, positions_px=scan.positions_px * [1, -1]),
    "both signs turned": lambda scan: replace(scan, positions_px=-scan.positions_px),
    "positions × 1.2": lambda scan: replace(scan, positions_px=scan.positions_px * 1.2),
    "positions shuffled": lambda scan: replace(
        scan, positions_px=scan.positions_px[np.random.default_rng(5).permutation(len(scan.counts))]
    ),
    "intensities as amplitudes": lambda scan: replace(scan, counts=scan.counts**2),
}


def verdict(model: ptycho_runtime.Reconstructor, scan: Counts) -> Trust:
    """Reconstruct a scan and return its verdict."""
    amplitudes = np.sqrt(scan.counts).astype(np.float32)
    made = Scan(
        scan.name,
        lambda rows: amplitudes[rows],
        np.arange(len(amplitudes)),
        scan.positions_px,
        64,
        "amplitude",
        probe=scan.probe[None].astype(np.complex64),
    )
    return model.reconstruct(made).trust


def main() -> None:
    """Print the tables as Markdown."""
    model = ptycho_runtime.open(sys.argv[1], device="cpu")
    scan = demo()
    bad = np.sort(np.random.default_rng(20).choice(400, round(SHARE * 400), replace=False))
    print(
        f"| fault in {len(bad)} of the demo's 400 frames | flagged | others flagged | by overlap alone | by probe × object alone |"
    )
    print("|---|---|---|---|---|")
    for name, fault in FRAME_FAULTS.items():
        row(name, verdict(model, frames_of(scan, bad, fault)), bad)
    for name, move in POSITION_FAULTS.items():
        positions = scan.positions_px.copy()
        positions[bad] = move(bad, scan.positions_px)
        row(name, verdict(model, replace(scan, positions_px=positions)), bad)
    many(model, scan)
    print("\n| fault in all of the demo | verdict | overlap | probe × object |\n|---|---|---|---|")
    for name, whole in WHOLE.items():
        try:
            trust = verdict(model, whole(scan))
        except ptycho_runtime.ReconstructionError:
            print(f"| {name} | refused | | |")
            continue
        figures = trust.figures
        print(
            f"| {name} | {trust.verdict} | {figures['disagreement_median']:.3f} | {figures['stitched_residual_median']:.3f} |",
            flush=True,
        )
    simulated_samples()


def many(model: ptycho_runtime.Reconstructor, scan: Counts) -> None:
    """Print what is seen where 40 to 60 % of the demo's frames are bad."""
    print("\n| fault in the demo | share | flagged of bad | flagged of others | verdict |\n|---|---|---|---|---|")
    for name in MANY:
        for share in (0.4, 0.5, 0.6):
            bad = np.sort(np.random.default_rng(20).choice(400, round(share * 400), replace=False))
            if name in FRAME_FAULTS:
                spoilt = frames_of(scan, bad, FRAME_FAULTS[name])
            else:
                positions = scan.positions_px.copy()
                positions[bad] = POSITION_FAULTS[name](bad, scan.positions_px)
                spoilt = replace(scan, positions_px=positions)
            trust = verdict(model, spoilt)
            others = np.setdiff1d(np.arange(400), bad)
            print(
                f"| {name} | {100 * share:.0f} % | {trust.flagged[bad].sum()} of {len(bad)} | "
                f"{trust.flagged[others].sum()} of {len(others)} | {trust.verdict} |",
                flush=True,
            )


def row(name: str, trust: Trust, bad: np.ndarray) -> None:
    """Print one fault's row."""
    good = np.setdiff1d(np.arange(len(trust.flagged)), bad)
    figures, scores = trust.figures, trust.scores
    overlap = np.nan_to_num(scores.disagreement[bad]) > figures["disagreement_limit"]
    stitched = np.nan_to_num(scores.stitched_residual[bad]) > figures["stitched_residual_limit"]
    print(
        f"| {name} | {trust.flagged[bad].sum()} | {trust.flagged[good].sum()} | {overlap.sum()} | {stitched.sum()} |",
        flush=True,
    )


def simulated_samples() -> None:
    """Print what is seen in three simulated samples whose patches are right but for noise, at several shares of bad frames."""
    print(
        "\n| simulated sample | fault | share | flagged of bad | flagged of others | verdict |\n|---|---|---|---|---|---|"
    )
    for seed, counts, noise in ((0, 2e5, 0.02), (1, 2e4, 0.03), (2, 2e6, 0.01)):
        made = simulated.simulated(seed, counts, noise)
        for share in (0.0, 0.05, 0.4, 0.5, 0.6):
            bad = np.sort(np.random.default_rng(7).choice(len(made), round(share * len(made)), replace=False))
            good = np.setdiff1d(np.arange(len(made)), bad)
            for name, fault in (
                ("position of another", simulated.with_wrong_positions),
                ("shifted 3 px", simulated.with_shifted_patterns),
            ):
                trust = simulated.assessed(fault(made, bad))
                print(
                    f"| {seed}: {counts:g} counts, noise {noise:g} | {name} | {100 * share:.0f} % | {trust.flagged[bad].sum()} of {len(bad)} | "
                    f"{trust.flagged[good].sum()} of {len(good)} | {trust.verdict} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
