"""What the runtimes are compared on: real patterns where a scan is given, simulated ones otherwise, and the edges."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ptycho_runtime import contract as c
from ptycho_torch.errors import BundleError
from ptycho_torch.spec import ModelSpec

SEED = 20260
PHOTONS = 1e6
EDGES = ("all zero", "one photon", "saturated", "wide range")


class Pool:
    """One set of groups on which every runtime is tried; batches are slices of it."""

    def __init__(self, feed: dict[str, np.ndarray], kinds: list[str], origin: str = "") -> None:
        """Take inputs by contract name, (groups, …) but for the probe, what each group is, and where the patterns are from."""
        self.feed = feed
        self.kinds = kinds
        self.origin = origin

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.kinds)

    def slice(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the feed of some of the groups."""
        return {k: v if k in (c.PROBE_REAL, c.PROBE_IMAG) else v[start:stop] for k, v in self.feed.items()}

    def sha256(self) -> str:
        """Return a digest of all inputs: errors on other inputs cannot be compared."""
        digest = hashlib.sha256()
        for name, value in self.feed.items():
            digest.update(f"{name} {value.dtype} {value.shape} ".encode() + np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    def kind(self, start: int, stop: int) -> str:
        """Return in words what a slice holds."""
        found = list(dict.fromkeys(self.kinds[start:stop]))
        return ", ".join(found)


def make_pool(spec: ModelSpec, groups: int, scan: Path | None = None) -> Pool:
    """Return `groups` groups of patterns with positions, probe and scales, the same for the same arguments.

    Args:
        spec: what the model is; gives sizes.
        groups: how many, at least 5: the edges are among them.
        scan: a PtychoPINN `.npz` with `diff3d` (n, N, N) amplitudes and `probeGuess`; simulated where None.

    Raises:
        FileNotFoundError: the scan is not there.
        BundleError: the scan is no NPZ, has no such arrays, another pattern size, or values that are no amplitudes.
    """
    random = np.random.default_rng(SEED)
    size = spec.N
    probe = _probe(size, 1 if spec.single_probe_mode else 2)
    count = groups * spec.in_channels
    patterns, kind = _simulated(random, count, size, probe[0]), "simulated"
    if scan is not None:
        patterns, probe = _from_scan(scan, size, count)
        kind = "scan"
    x = patterns.reshape(groups, spec.in_channels, size, size).astype(np.float32)
    scale = np.float32(np.sqrt((size / 2) ** 2 / np.mean(np.sum(x.astype(np.float64) ** 2, (-2, -1)))))
    kinds = [kind] * groups
    for offset, name in enumerate(EDGES):
        x[1 + offset] = _edge(name, x[1 + offset], random)
        kinds[1 + offset] = name
    reach = spec.max_neighbor_distance_px
    positions = (
        np.round(random.uniform(-reach, reach, (groups, spec.C, 1, 2)) * 4) / 4
    )  # quarters, so whole shifts occur
    positions[0] = 0.0
    if spec.C == 1:
        positions[: groups // 2] = 0.0
    feed: dict[str, np.ndarray] = {
        c.DIFFRACTION: x,
        c.INPUT_SCALE: np.full((groups, 1, 1, 1), scale, np.float32),
        c.POSITIONS: positions.astype(np.float32),
        c.PROBE_REAL: probe.real.astype(np.float32),
        c.PROBE_IMAG: probe.imag.astype(np.float32),
        c.OUTPUT_SCALE: np.full((groups, 1, 1, 1), scale, np.float32),
        c.EXPERIMENT_ID: (np.arange(groups) % spec.num_datasets).astype(np.int64),
    }
    return Pool(feed, kinds, "simulated" if scan is None else scan.name)


def _probe(size: int, modes: int) -> np.ndarray:
    axis = np.arange(size) - size / 2
    radius2 = (axis[:, None] ** 2 + axis[None, :] ** 2) / (size / 6) ** 2
    first = np.exp(-radius2 / 2 + 0.7j * radius2)
    second = 0.3 * first * (axis[None, :] / (size / 6))
    return np.stack([first, second][:modes])


def _simulated(random: np.random.Generator, count: int, size: int, probe: np.ndarray) -> np.ndarray:
    low = random.normal(size=(2, count, 9, 9))
    fine = np.repeat(np.repeat(low, -(-size // 9), -2), -(-size // 9), -1)[..., :size, :size]
    sample = (1.0 + 0.2 * np.tanh(fine[0])) * np.exp(0.6j * np.tanh(fine[1]))
    far = np.fft.fftshift(np.fft.fft2(sample * probe), (-2, -1))
    intensity = np.abs(far) ** 2
    intensity *= PHOTONS / intensity.sum((-2, -1), keepdims=True)
    return np.sqrt(random.poisson(intensity))


def _from_scan(scan: Path, size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    if not scan.is_file():
        raise FileNotFoundError(f"{scan}: no such scan; expected a PtychoPINN .npz")
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(scan) as archive:
            present = [name.removesuffix(".npy") for name in archive.namelist()]
        if not {"diff3d", "probeGuess"} <= set(present):
            raise BundleError(f"{scan}: has {', '.join(present)}; parity needs diff3d and probeGuess")
        with np.load(scan, allow_pickle=False) as data:
            arrays = {name: data[name] for name in ("diff3d", "probeGuess")}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise BundleError(f"{scan}: cannot be read ({error}); expected a PtychoPINN .npz") from error
    except ValueError as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(
            f"{scan}: holds no plain arrays ({error}); expected numbers in diff3d and probeGuess"
        ) from error
    patterns, probe = arrays["diff3d"], arrays["probeGuess"]
    if patterns.ndim != 3 or patterns.shape[1:] != (size, size) or not len(patterns):
        raise BundleError(f"{scan}: diff3d has shape {patterns.shape}; the model takes (n, {size}, {size})")
    if probe.ndim < 2 or probe.shape[-2:] != (size, size) or not probe.size:
        raise BundleError(f"{scan}: probeGuess has shape {probe.shape}; the model takes (modes, {size}, {size})")
    if patterns.dtype.kind not in "fiu" or probe.dtype.kind not in "cfiu":
        raise BundleError(
            f"{scan}: diff3d is {patterns.dtype} and probeGuess {probe.dtype}; expected real amplitudes and a complex probe"
        )
    chosen = patterns[np.linspace(0, len(patterns) - 1, count).round().astype(int)]
    if not np.isfinite(chosen).all() or not np.isfinite(probe).all():
        raise BundleError(f"{scan}: diff3d or probeGuess holds NaN or infinity; mask or remove such patterns")
    if chosen.min() < 0:
        raise BundleError(f"{scan}: diff3d holds negative values, the least {chosen.min():.3g}; expected amplitudes")
    if not chosen.any() or not probe.any():
        raise BundleError(
            f"{scan}: diff3d or probeGuess is zero everywhere; expected measured patterns and their probe"
        )
    return chosen, probe.reshape(-1, size, size)


def _edge(name: str, like: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if name == "all zero":
        return np.zeros_like(like)
    if name == "one photon":
        single = np.zeros_like(like)
        single[..., like.shape[-2] // 2, like.shape[-1] // 2] = 1.0
        return single
    if name == "saturated":
        return np.minimum(like * 4.0, np.float32(np.sqrt(65535.0)))
    return (like * 10.0 ** random.uniform(-3, 1, like.shape)).astype(np.float32)
