"""Where the shared bundles are, what PtychoPINN itself computed from them, and how to look into an archive."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
BUNDLES = ROOT / "tests" / "data" / "bundles"
DEMO = ROOT / "examples" / "demo" / "wts.h5.zip"
CNN_NAMES = (
    "cnn-2025-11-n64-g2",
    "cnn-2026-02-n64-g1",
    "cnn-2026-02-n64-g2",
    "cnn-2026-07-n64-g2",
    "cnn-2026-07-n64-g1-demo",
)
NAMES = (*CNN_NAMES, "ffno-2026-07-n64-g1")
# Their eager models are held against PtychoPINN's numbers in every run; an export with its proof takes half a minute each. Of the
# Fourier networks, one that is exported in half of that is looked at in every run (`shared_exports.TINY`).
LONG_NAMES = ("cnn-2025-11-n64-g2", "cnn-2026-02-n64-g1", "cnn-2026-02-n64-g2", "ffno-2026-07-n64-g1")


def each(names: Iterable[str]) -> list[object]:
    """Return parameters of a test that exports bundles: those of `LONG_NAMES` are run by `make test-all` alone."""
    return [pytest.param(name, marks=pytest.mark.long) if name in LONG_NAMES else name for name in names]


def bundle_path(name: str) -> Path:
    """Return the path of a shared bundle; the demo lies with the examples."""
    return DEMO if name.endswith("demo") else BUNDLES / f"{name}.zip"


def golden(name: str) -> dict[str, np.ndarray]:
    """Return what PtychoPINN's own eager model gave for a bundle."""
    with np.load(BUNDLES / f"{name}.golden.npz") as data:
        return dict(data)


def relative_l2(found: np.ndarray, expected: np.ndarray) -> float:
    """Return ‖found − expected‖ / ‖expected‖."""
    return float(np.linalg.norm((found - expected).ravel()) / np.linalg.norm(expected.ravel()))


def members(path: Path) -> dict[str, bytes]:
    """Return the members of a zip by name, in order."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(source: Path, target: Path, new: dict[str, bytes | None]) -> Path:
    """Copy a zip with some members replaced or added, or left out where None."""
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in {**members(source), **new}.items():
            if data is not None:
                archive.writestr(name, data)
    return target
