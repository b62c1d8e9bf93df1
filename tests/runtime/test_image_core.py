"""One core: whatever the order, the batches or the parts, the image has the same bits, and so has its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from simulated import N, Simulated, simulated

from ptycho_runtime import ReconstructionError, contract
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.export.bundle import Export
from ptycho_runtime.image.core import Assembled, Core, Graphs, Setup
from ptycho_runtime.image.partial import absorb, made_with, resume, state_of
from ptycho_runtime.scan.grouping import group_neighbours

EXPORT = Export(Path("stand-in"), {}, N, 1, "amplitude", "half_n_over_rms", None, "J", -1.0)


class Session:
    """A session whose patch of a pattern is made of that pattern alone."""

    engine, device, note, options = "onnxruntime", "cpu", "", RunOptions()
    outputs = (contract.OBJECT_REAL, contract.OBJECT_IMAG)

    def __init__(self, C: int = 1) -> None:
        self.sizes: set[int] = set()
        self.inputs = {contract.DIFFRACTION: SimpleNamespace(shape=["batch", C, N, N])}

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        x = feed[contract.DIFFRACTION] * feed[contract.INPUT_SCALE]
        self.sizes.add(len(x))
        # As networks that see a group do, a patch depends on the place in it.
        place = 1 + 0.01 * np.arange(x.shape[1], dtype=np.float32)[:, None, None]
        return {contract.OBJECT_REAL: np.cos(x) * place, contract.OBJECT_IMAG: np.sin(x) * place}


@pytest.fixture(scope="module")
def scan() -> Simulated:
    return simulated()


def core_of(scan: Simulated, session: Any = None, *, C: int = 1, folder: Path | None = None) -> Core:
    setup = Setup(0.3, probe=scan.probe[None], folder=folder)
    return Core(EXPORT, Graphs(session or Session(C), batch=8), setup)


def fed(core: Core, scan: Simulated, groups: np.ndarray, ids: np.ndarray, size: int = 8) -> Core:
    for start in range(0, len(groups), size):
        members = groups[start : start + size]
        core.take(core.run(ids[members], scan.amplitudes[members], scan.positions_px[members]))
    return core


def everything(found: Assembled) -> dict[str, np.ndarray]:
    trust = found.trust
    arrays = {"object": found.canvas.object, "coverage": found.canvas.coverage, **vars(trust.scores)}
    arrays |= {"x0": np.array(found.canvas.x0_px), "y0": np.array(found.canvas.y0_px)}
    arrays |= {"flagged": trust.flagged, "kinds": trust.kinds, **{k: np.array(v) for k, v in trust.figures.items()}}
    return arrays | {"amplitude": trust.amplitude_deviation, "phase": trust.phase_deviation_rad}


def assert_same(found: Assembled, expected: Assembled) -> None:
    ours, theirs = everything(found), everything(expected)
    different = [name for name in theirs if ours[name].tobytes() != theirs[name].tobytes()]
    assert not different
    assert (found.trust.verdict, found.trust.reasons) == (expected.trust.verdict, expected.trust.reasons)


@pytest.fixture(scope="module", params=[1, 4])
def case(request: pytest.FixtureRequest, scan: Simulated) -> tuple[int, np.ndarray, np.ndarray, Assembled]:
    """Return (patterns in a group, groups, ids, the image of one run in order)."""
    C = request.param
    groups = group_neighbours(scan.positions_px, C)
    ids = 1000 + 3 * np.arange(len(scan))
    with fed(core_of(scan, C=C), scan, groups, ids) as core:
        return C, groups, ids, core.finish()


def test_order_and_batches_change_no_bit(scan: Simulated, case: tuple[int, np.ndarray, np.ndarray, Assembled]) -> None:
    C, groups, ids, expected = case
    session = Session(C)
    shuffled = groups[np.random.default_rng(1).permutation(len(groups))]
    with fed(core_of(scan, session, C=C), scan, shuffled, ids, size=5) as core:
        assert_same(core.finish(), expected)
    assert session.sizes == {8}, "runs have one size, whatever waits"


def test_parts_in_any_order_are_one_run(scan: Simulated, case: tuple[int, np.ndarray, np.ndarray, Assembled]) -> None:
    C, groups, ids, expected = case
    parts = [fed(core_of(scan, C=C), scan, part, ids) for part in np.array_split(groups, 7)]
    with core_of(scan, C=C) as whole:
        for k in (3, 0, 6, 1, 5, 2, 4):
            absorb(whole, state_of(parts[k]))
        assert np.array_equal(state_of(whole).ids_done, ids)
        with pytest.raises(ReconstructionError, match=r"frame \d+ is in two parts; expected each in one"):
            absorb(whole, state_of(parts[2]))
        assert_same(whole.finish(), expected)
    for part in parts:
        part.close()


def test_core_goes_on_where_another_was(
    scan: Simulated, case: tuple[int, np.ndarray, np.ndarray, Assembled], tmp_path: Path
) -> None:
    C, groups, ids, expected = case
    with fed(core_of(scan, C=C, folder=tmp_path), scan, groups[:100], ids) as earlier:
        state = state_of(earlier)
        fed(earlier, scan, groups[100:110], ids)  # after the state was written: as if it had been killed here
    with core_of(scan, C=C, folder=tmp_path) as later:
        resume(later, state.made_with, state.arrays)
        assert_same(fed(later, scan, groups[100:], ids).finish(), expected)


def test_part_of_other_options_is_refused(scan: Simulated) -> None:
    other = Core(EXPORT, Graphs(Session(), batch=8), Setup(0.2, probe=scan.probe[None]))
    with pytest.raises(ReconstructionError, match=r"made with another input_scale_factor: 0.2; expected 0.3"):
        absorb(core_of(scan), state_of(other))


def test_all_that_parts_share_is_compared(scan: Simulated) -> None:
    changed = {"batch": 7, "crop_px": 10, "probe": "", "model": "x", "weights": "y"}
    for name, value in changed.items():
        with pytest.raises(ReconstructionError, match=f"made with another {name}"):
            resume(core_of(scan), {**made_with(core_of(scan)), name: value}, {})


def test_numbers_that_are_not_finite_name_the_frame(scan: Simulated) -> None:
    core = core_of(scan)
    patterns = scan.amplitudes[:3, None].copy()
    patterns[1] = np.nan
    with pytest.raises(ReconstructionError, match=r"not finite for frame 41;"):
        core.run(np.array([[40], [41], [42]]), patterns, scan.positions_px[:3, None])


def test_probe_of_another_size_is_refused() -> None:
    probe = np.ones((1, 2 * EXPORT.N, 2 * EXPORT.N), np.complex64)
    with pytest.raises(ReconstructionError, match=f"the model's patterns of {EXPORT.N} × {EXPORT.N}; give one of that"):
        Core(EXPORT, Graphs(Session()), Setup(0.2, probe=probe))
