"""What the runtimes are compared on: real patterns where a scan is given, simulated ones otherwise, and the edges.

All inputs are in general position, so that each of them is told apart: factors differ in every group and from each other,
positions lie on no grid, the probe has several modes and no symmetry, datasets are mixed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.scan.grouping import group_neighbours, group_offsets
from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import read_scan
from ptycho_runtime.scan.scale import pattern_energy, scale_of_energy
from ptycho_runtime.scan.scan import Scan
from ptycho_torch.spec import ModelSpec

SEED = 20260
PHOTONS = 1e6
EDGES = ("all zero", "one photon", "saturated", "wide range")
MODES = 3  # of the probe, where the model takes several
REACH_PX = (
    12.0  # positions go as far: four nearest neighbours of an irregular scan lie up to about 7 px from their mean
)
WHOLE_PIXELS = 1 + EDGES.index("wide range")  # the group with whole positions: there rounding decides what is covered
FARTHEST = 1 + EDGES.index("one photon")  # the group whose farthest position lies where positions end
_LARGEST_COUNT = 65535.0  # of a 16-bit detector
_PER_PROBE = (contract.PROBE_REAL, contract.PROBE_IMAG)


@dataclass(frozen=True)
class Source:
    """What a pool is made of beside the model's sizes."""

    scale_formula: contract.InputScaleFormula = "half_n_over_rms"
    scale_value: float | None = None  # frozen by the bundle
    scan: Scan | None = None

    @property
    def has_positions(self) -> bool:
        """Say whether the scan knows where its patterns were taken."""
        return self.scan is not None and bool(np.isfinite(self.scan.positions_px).all())


class Pool:
    """One set of groups on which every runtime is tried; batches are slices of it."""

    def __init__(self, feed: dict[str, np.ndarray], kinds: list[str], origin: str = "", positions: str = "") -> None:
        """Take inputs by contract name, (groups, …) but for the probe, what each group is, and where the patterns are from.

        Args:
            feed: inputs by name.
            kinds: what each group is.
            origin: where patterns are from, in words.
            positions: where positions are from, in words.
        """
        self.feed = feed
        self.kinds = kinds
        self.origin = origin
        self.positions = positions

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.kinds)

    def slice(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the feed of some of the groups; beyond the last they start anew."""
        rows = self.rows(start, stop)
        return {k: v if k in _PER_PROBE else v[rows] for k, v in self.feed.items()}

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return which groups a slice holds."""
        return np.arange(start, stop) % len(self)

    def take(self, rows: np.ndarray) -> Pool:
        """Return the pool with some of its groups."""
        feed = {k: v if k in _PER_PROBE else v[rows] for k, v in self.feed.items()}
        return Pool(feed, [self.kinds[i] for i in rows], self.origin, self.positions)

    def only(self, names: set[str]) -> Pool:
        """Return the pool with some of its inputs."""
        return Pool({k: v for k, v in self.feed.items() if k in names}, self.kinds, self.origin, self.positions)

    def sha256(self) -> str:
        """Return a digest of all inputs: errors on other inputs cannot be compared."""
        digest = hashlib.sha256()
        for name, value in self.feed.items():
            digest.update(f"{name} {value.dtype} {value.shape} ".encode() + np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    def kind(self, start: int, stop: int) -> str:
        """Return in words what a slice holds."""
        return ", ".join(dict.fromkeys(self.kinds[i] for i in self.rows(start, stop)))


def open_scan(path: Path, spec: ModelSpec, options: ReadOptions | None = None) -> Scan:
    """Return a scan for a proof: whatever the runtime reads, and patterns that came without positions too.

    Args:
        path: the file.
        spec: what the model is.
        options: what the file leaves open.

    Raises:
        FileNotFoundError: nothing is there.
        ScanError: the file cannot be read without guessing.
    """
    return read_scan(path, spec.N, replace(options or ReadOptions(), positions_optional=True))


def make_pool(spec: ModelSpec, groups: int, source: Source | None = None, seed: int = SEED) -> Pool:
    """Return `groups` groups of patterns with positions, probe and scales, the same for the same arguments.

    Args:
        spec: what the model is; gives sizes and the domain of patterns.
        groups: how many, at least 5: the edges are among them.
        source: the bundle's scale and a scan; patterns are simulated where it has none.
        seed: of all that is drawn.

    Raises `ScanError` for a scan with fewer patterns than a group has, or one that cannot be read to its end.
    """
    source = source or Source()
    random = np.random.default_rng(seed)
    counts = spec.measurement_domain == "counts"
    probe = make_probe(spec.N, 1 if spec.single_probe_mode else MODES)
    if source.scan is None:
        x, factor = _simulated_groups(random, spec, groups, probe[0], source)
        kind = "simulated"
    else:
        x, factor = _scan_groups(source.scan, spec, groups, source)
        kind = "scan"
        probe = _with_scan_probe(source.scan, probe)
    kinds = [kind] * groups
    for number, name in enumerate(EDGES, start=1):
        x[number] = _edge(name, x[number], random, counts)
        kinds[number] = name
    feed: dict[str, np.ndarray] = {
        contract.DIFFRACTION: x,
        contract.INPUT_SCALE: factor * _spread(random, groups, first=1.0),
        contract.POSITIONS: _positions(random, spec, groups, source),
        contract.PROBE_REAL: probe.real.astype(np.float32),
        contract.PROBE_IMAG: probe.imag.astype(np.float32),
        contract.OUTPUT_SCALE: factor * _spread(random, groups, first=0.7),
        contract.EXPERIMENT_ID: random.permutation(np.arange(groups) % spec.num_datasets).astype(np.int64),
    }
    feed[contract.INPUT_SCALE] = feed[contract.INPUT_SCALE].astype(np.float32)
    feed[contract.OUTPUT_SCALE] = feed[contract.OUTPUT_SCALE].astype(np.float32)
    where = source.scan.name if source.scan is not None else "simulated"
    return Pool(feed, kinds, where, where if source.has_positions and spec.C > 1 else "simulated")


def _spread(random: np.random.Generator, groups: int, first: float) -> np.ndarray:
    """Return a factor for each group, (groups, 1, 1, 1) float64, from 0.6 to 1.7, no two alike."""
    factors = np.exp(random.uniform(-0.5, 0.5, (groups, 1, 1, 1)))
    factors[0] = first
    return factors


def _positions(random: np.random.Generator, spec: ModelSpec, groups: int, source: Source) -> np.ndarray:
    """Return offsets (groups, C, 1, 2) float32 as the graphs take them: near ones and far ones in turn, or a scan's own."""
    near = max(spec.max_neighbor_distance_px, 1.0)
    reach = np.where(np.arange(groups) % 2 == 0, max(REACH_PX, near), near)
    found = random.uniform(-1.0, 1.0, (groups, spec.C, 1, 2)) * reach[:, None, None, None]
    found = found.astype(np.float32)
    farthest = found[FARTHEST].copy()
    if source.has_positions and spec.C > 1 and source.scan is not None:
        members = _chosen(group_neighbours(source.scan.positions_px, spec.C), groups)
        offsets = group_offsets(source.scan.positions_px, members) * np.float32(spec.rules.positions_sign)
        found[::2] = offsets[::2]
    found[FARTHEST] = farthest * (reach[FARTHEST] / np.abs(farthest).max())
    found[WHOLE_PIXELS] = np.round(found[WHOLE_PIXELS])
    return found


def _chosen(all_groups: np.ndarray, groups: int) -> np.ndarray:
    """Return so many groups from all over a scan; some repeat where it has fewer."""
    chosen: np.ndarray = all_groups[np.linspace(0, len(all_groups) - 1, groups).round().astype(int)]
    return chosen


def _scan_groups(scan: Scan, spec: ModelSpec, groups: int, source: Source) -> tuple[np.ndarray, float]:
    """Return (patterns (groups, channels, N, N), input scale factor) of a scan, grouped as the runtime groups them."""
    channels = spec.in_channels
    if source.has_positions:
        members = _chosen(group_neighbours(scan.positions_px, channels), groups)
    else:
        members = np.linspace(0, len(scan) - 1, groups * channels).round().astype(int).reshape(groups, channels)
    patterns = scan.patterns(members.reshape(-1), spec.N, spec.measurement_domain)
    factor = source.scale_value or scale_of_energy(
        source.scale_formula, scan.energy(spec.N, spec.measurement_domain), spec.N
    )
    return np.array(patterns.reshape(*members.shape, spec.N, spec.N), np.float32), factor


def _simulated_groups(
    random: np.random.Generator, spec: ModelSpec, groups: int, illumination: np.ndarray, source: Source
) -> tuple[np.ndarray, float]:
    counts = spec.measurement_domain == "counts"
    photons = simulated(random, groups * spec.in_channels, illumination)
    found = photons if counts else np.sqrt(photons)
    factor = scale_of_energy(source.scale_formula, pattern_energy(found), spec.N)
    if source.scale_value is not None:
        # As bright as the patterns for which the frozen factor was made.
        found = found * (factor / source.scale_value)
        factor = source.scale_value
    return found.astype(np.float32).reshape(groups, spec.in_channels, spec.N, spec.N), factor


def make_probe(size_px: int, modes: int) -> np.ndarray:
    """Return a probe without symmetry, (modes, N, N) complex128: a tilted Gaussian and its first derivatives."""
    axis = (np.arange(size_px) - size_px / 2) / size_px
    y, x = axis[:, None], axis[None, :]
    envelope = np.exp(-((x / 0.15) ** 2 + (y / 0.2) ** 2 + x * y / 0.06) / 2)
    first = envelope * np.exp(1j * (18.0 * (x**2 + 1.3 * y**2) + 9.0 * x * y + 3.0 * x - 2.0 * y))
    second = first * (x / 0.15 + 0.3j * y / 0.2) * 0.5
    third = first * (y / 0.2 - 0.2j + 0.4 * x / 0.15) * 0.4
    return np.stack([first, second, third][:modes])


def _with_scan_probe(scan: Scan, own: np.ndarray) -> np.ndarray:
    """Return the scan's probe, with further modes where it has fewer than the model can take."""
    if scan.probe is None or not np.abs(scan.probe).any():
        return own
    measured = np.asarray(scan.probe, np.complex128)
    if len(own) == 1:
        return measured[:1]
    largest = np.abs(measured).max() / np.abs(own).max()
    return np.concatenate([measured, own[len(measured) :] * largest])


def simulated(
    random: np.random.Generator, count: int, illumination: np.ndarray, photons: float = PHOTONS
) -> np.ndarray:
    """Return photons a pixel of random samples, (count, N, N) float64 whole numbers.

    Args:
        random: draws samples and noise.
        count: of patterns.
        illumination: (N, N) complex.
        photons: mean of a pattern's sum.
    """
    size = illumination.shape[-1]
    low = random.normal(size=(2, count, 9, 9))
    fine = np.repeat(np.repeat(low, -(-size // 9), -2), -(-size // 9), -1)[..., :size, :size]
    sample = (1.0 + 0.2 * np.tanh(fine[0])) * np.exp(0.6j * np.tanh(fine[1]))
    far = np.fft.fftshift(np.fft.fft2(sample * illumination), (-2, -1))
    intensity = np.abs(far) ** 2
    intensity *= photons / intensity.sum((-2, -1), keepdims=True)
    return random.poisson(intensity).astype(np.float64)


def _edge(name: str, like: np.ndarray, random: np.random.Generator, counts: bool) -> np.ndarray:
    if name == "all zero":
        return np.zeros_like(like)
    if name == "one photon":
        single = np.zeros_like(like)
        single[..., like.shape[-2] // 2, like.shape[-1] // 2] = 1.0
        return single
    if name == "saturated":
        largest = _LARGEST_COUNT if counts else np.sqrt(_LARGEST_COUNT)
        return np.minimum(like * (16.0 if counts else 4.0), np.float32(largest))
    return (like * 10.0 ** random.uniform(-3, 1, like.shape)).astype(np.float32)
