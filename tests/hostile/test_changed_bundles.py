"""Real bundles with bytes changed anywhere: the outcome is an equal result or a `BundleError`, and nothing else."""

from __future__ import annotations

import tempfile
import time
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pytest
from builders import bundle_members, zip_of
from mutate import mutated, resealed
from sample_bundles import BUNDLES, DEMO, members

from exporters.inspect.audit import scan_file
from ptycho_torch.bundle import BundleRecord, Sentinel, read_bundle
from ptycho_torch.errors import BundleError

# Seeds that once ended in another way.
REGRESSIONS = [("changed", "small", 1_002_915)]  # a directory said to be shorter than it is lost members
SECONDS_PER_CASE = 5.0  # of the processor: what else runs on the host does not count


@cache
def original(kind: str) -> bytes:
    """Return a bundle's bytes: real parameters and manifest throughout; weights as small as the purpose allows."""
    if kind == "checkpoint":
        return (BUNDLES / "ffno-2026-07-n64-g1.ckpt").read_bytes()
    if kind == "bundle":
        return (BUNDLES / "ffno-2026-07-n64-g1.zip").read_bytes()
    if kind == "cnn":
        return (BUNDLES / "cnn-2025-11-n64-g2.zip").read_bytes()
    real = members(DEMO)  # its two large state_dicts replaced by small ones
    small = {**real, **{name: data for name, data in bundle_members() if name.endswith("model.pth")}}
    return zip_of([*small.items(), ("exports.json", b'{"schema": "x", "graphs": {"a": [1, 2.5, null]}}')])


def contents(record: BundleRecord) -> list[Any]:
    """Return what a record says, without where it came from, in a form that can be compared."""
    said = [record.kind, record.manifest, record.params, record.weights, record.metadata, record.checkpoint]
    return [comparable(value) for value in (*said, record.exports, record.members_sha256)]


def comparable(value: Any) -> Any:
    """Return a value as plain data; fail for anything else."""
    if isinstance(value, dict):
        return [(comparable(k), comparable(v)) for k, v in value.items()]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(comparable, value)]
    if isinstance(value, (set, frozenset)):
        return [type(value).__name__, *sorted(map(repr, map(comparable, value)))]
    if isinstance(value, np.ndarray):
        assert value.dtype.kind in "biufcSU"
        return value.dtype.str, value.shape, value.tobytes()
    assert value is None or isinstance(
        value, (bool, int, float, complex, str, bytes, np.generic, PurePath, Sentinel)
    ), type(value)
    return repr(value)


@cache
def expected(kind: str) -> list[Any]:
    """Return what the unchanged bundle holds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name_of(kind)
        path.write_bytes(original(kind))
        return contents(read_bundle(path))


def name_of(kind: str) -> str:
    """Return the same file name for every mutant, because a checkpoint's digest holds its name."""
    return "mutant.ckpt" if kind == "checkpoint" else "mutant.zip"


def check(how: str, kind: str, seed: int, folder: Path) -> str:
    """Read one mutant; raise unless it ends as it may. Returns how it ended."""
    path = folder / name_of(kind)
    path.write_bytes((resealed if how == "resealed" else mutated)(original(kind), seed))
    started = time.process_time()
    try:
        found = read_bundle(path)
    except BundleError as error:
        assert str(error).isprintable(), (how, kind, seed, str(error))
        outcome = type(error).__name__
    else:
        kept = -1 if kind == "checkpoint" else None  # a checkpoint's last item is its own digest
        same = contents(found)[:kept] == expected(kind)[:kept]
        # A sealed archive is a bundle of its own: what is read from it is plain data, and may differ.
        assert same or how == "resealed", (how, kind, seed)
        outcome = "equal" if same else "read"
    assert time.process_time() - started < SECONDS_PER_CASE, (how, kind, seed)
    return outcome


def run(how: str, kind: str, seeds: range, folder: Path) -> dict[str, int]:
    """Return how often each outcome occurred."""
    counts: dict[str, int] = {}
    for seed in seeds:
        outcome = check(how, kind, seed, folder)
        counts[outcome] = counts.get(outcome, 0) + 1
    return counts


QUICK = [("changed", "small", 400), ("changed", "checkpoint", 60), ("changed", "bundle", 15)]
QUICK += [("resealed", "small", 400), ("resealed", "checkpoint", 60), ("resealed", "bundle", 10)]
LONG = [
    ("changed", "small", 10_000),
    ("changed", "checkpoint", 2_000),
    ("changed", "bundle", 500),
    ("changed", "cnn", 200),
]
LONG += [
    ("resealed", "small", 10_000),
    ("resealed", "checkpoint", 2_000),
    ("resealed", "bundle", 300),
    ("resealed", "cnn", 100),
]


@pytest.mark.parametrize(("how", "kind", "count"), QUICK)
def test_a_changed_bundle_is_equal_or_refused(how: str, kind: str, count: int, tmp_path: Path) -> None:
    counts = run(how, kind, range(count), tmp_path)
    assert sum(counts.values()) == count
    assert len(counts) > 1 or count < 50, counts


@pytest.mark.long
@pytest.mark.parametrize(("how", "kind", "count"), LONG)
def test_thousands_of_changed_bundles_are_equal_or_refused(how: str, kind: str, count: int, tmp_path: Path) -> None:
    counts = run(how, kind, range(1_000_000, 1_000_000 + count), tmp_path)
    assert sum(counts.values()) == count


@pytest.mark.parametrize(("how", "kind", "seed"), REGRESSIONS)
def test_seeds_that_once_ended_otherwise(how: str, kind: str, seed: int, tmp_path: Path) -> None:
    check(how, kind, seed, tmp_path)


def test_scan_agrees_on_changed_bundles(tmp_path: Path) -> None:
    path = tmp_path / "mutant.zip"
    for seed in range(150):
        path.write_bytes((resealed if seed % 2 else mutated)(original("small"), seed))
        try:
            read_bundle(path)
        except BundleError as error:
            wanted: tuple[Any, ...] = (2, type(error).__name__, str(error))
        else:
            wanted = (0, None, None)
        found = scan_file(path)
        assert (found.exit_code, found.error_class, found.message) == wanted, seed
        assert not found.text().count("\x1b")
