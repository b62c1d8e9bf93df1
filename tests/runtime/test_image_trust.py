"""Bad patterns are flagged and good ones not; a scan that is wrong throughout is not trusted, and says why."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulated import (
    N,
    Simulated,
    assessed,
    evidence_of,
    simulated,
    with_shifted_patterns,
    with_wrong_positions,
)

import ptycho_runtime
from ptycho_runtime import demo
from ptycho_runtime.export.record import TrustBaseline
from ptycho_runtime.image.stitch import Stitcher, probe_weights
from ptycho_runtime.image.trust.assess import assess_kept
from ptycho_runtime.image.trust.contest import Contest
from ptycho_runtime.image.trust.frames import hot_pixels
from ptycho_runtime.image.trust.pairs import compare_pairs
from ptycho_runtime.image.trust.photons import multiplied
from ptycho_runtime.image.trust.sets import agreeing_sets
from ptycho_runtime.image.trust.spool import Spool
from ptycho_runtime.image.trust.values import KINDS
from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import read_scan


@pytest.fixture(scope="module")
def scan() -> Simulated:
    return simulated()


def chosen(scan: Simulated, share: float) -> np.ndarray:
    return np.sort(np.random.default_rng(7).choice(len(scan), round(share * len(scan)), replace=False))


@pytest.mark.parametrize("probe", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_clean_scan_is_trusted(seed: int, probe: bool) -> None:
    trust = assessed(simulated(seed), probe=probe)
    assert trust.verdict == "trusted", trust.reasons
    assert trust.trusted
    assert trust.flagged.sum() <= 2
    assert trust.reasons == ()


@pytest.mark.parametrize(("seed", "count"), [(1, 15), (2, 15), (3, 22), (0, 30)])
def test_few_patterns_of_a_network_that_errs_are_no_sides(seed: int, count: int, tmp_path: Path) -> None:
    with np.load(demo.SCAN) as data:
        which = np.sort(np.random.default_rng(seed).choice(len(data["xcoords"]), count, replace=False))
        np.savez(tmp_path / "s.npz", **{name: data[name][which] for name in ("diff3d", "xcoords", "ycoords")})
    options = ReadOptions(domain="intensity", position_unit="px")
    with ptycho_runtime.open(demo.MODEL, "cpu") as model, read_scan(tmp_path / "s.npz", 64, options) as few:
        trust = model.reconstruct(few).trust
    assert (trust.verdict, trust.reasons, trust.flagged.sum()) == ("trusted", (), 0)


@pytest.mark.parametrize("probe", [True, False])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.5, 0.6])
@pytest.mark.parametrize("fault", [with_wrong_positions, with_shifted_patterns])
def test_bad_patterns_are_flagged_however_many(fault: object, share: float, probe: bool, scan: Simulated) -> None:
    bad = chosen(scan, share)
    assert callable(fault)
    trust = assessed(fault(scan, bad), probe=probe)
    good = np.setdiff1d(np.arange(len(scan)), bad)
    assert trust.flagged[bad].mean() >= 0.95
    # Where more are bad than good, some good ones are beside bad ones alone.
    assert trust.flagged[good].mean() <= (0.03 if share > 0.5 else 0.01)
    assert trust.verdict == ("not trusted" if share > 0.25 else "doubtful")
    assert any("--exclude flagged" in reason or "zero frequency" in reason for reason in trust.reasons)


def test_flags_say_what_a_pattern_may_be(scan: Simulated) -> None:
    amplitudes = scan.amplitudes.copy()
    amplitudes[10] *= 0.01
    amplitudes[50] *= 10
    amplitudes[90, 3, 28] = 400.0
    trust = assessed(replace(with_shifted_patterns(scan, np.array([130])), amplitudes=amplitudes))
    assert "beam off" in KINDS[trust.kinds[10]]
    assert "brighter" in KINDS[trust.kinds[50]]
    assert "hot pixel" in KINDS[trust.kinds[90]]
    assert trust.kinds[~trust.flagged].max() == 0


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda p: p[:, ::-1], r"with x and y exchanged they would: .*; give --swap-xy \("),
        (lambda p: p * [1, -1], r"with y mirrored they would: .*; give --flip-y \("),
        (lambda p: p * [-1, 1], r"with x mirrored they would: .*; give --flip-x \("),
        (lambda p: -p, r"with both signs turned .*; give --flip-x and --flip-y, or the other --positions-of"),
        (lambda p: p * 2, r"with positions × 0\.5 they would: .*; check the unit of the positions, --pixel-size-m"),
    ],
)
def test_scan_with_wrong_positions_throughout_is_not_trusted_and_the_better_reading_is_named(
    change: object, name: str, scan: Simulated
) -> None:
    assert callable(change)
    trust = assessed(replace(scan, positions_px=np.ascontiguousarray(change(scan.positions_px), float)))
    assert trust.verdict == "not trusted"
    assert any(re.search(name, reason) for reason in trust.reasons), trust.reasons


@pytest.mark.parametrize("by_px", [1, -3])
def test_zero_frequency_beside_the_middle_throughout_is_named_from_the_patches_alone(
    by_px: int, scan: Simulated
) -> None:
    moved = with_shifted_patterns(scan, np.arange(len(scan)), by_px)
    # Background on the other side keeps the centre of gravity in the middle; then the patches alone tell a shift by one pixel.
    amplitudes = moved.amplitudes if abs(by_px) > 1 else scan.amplitudes
    trust = assessed(replace(moved, amplitudes=amplitudes), probe=False)
    assert trust.verdict == "not trusted"
    assert any(f"zero frequency at ({by_px}, 0) px" in reason for reason in trust.reasons), trust.reasons


@pytest.mark.parametrize("probe", [True, False])
def test_two_halves_of_which_one_lies_elsewhere_are_told_apart_where_one_is_larger(
    probe: bool, scan: Simulated
) -> None:
    bad = chosen(scan, 0.4)
    positions = scan.positions_px.copy()
    positions[bad] += 6
    trust = assessed(replace(scan, positions_px=positions), probe=probe)
    good = np.setdiff1d(np.arange(len(scan)), bad)
    assert trust.flagged[bad].mean() >= 0.95
    assert trust.flagged[good].mean() <= 0.01
    assert trust.verdict == "not trusted"


@pytest.mark.parametrize("probe", [True, False])
@pytest.mark.parametrize("share", [0.4, 0.5])
def test_side_that_lies_elsewhere_is_told_apart_and_its_displacement_named(
    share: float, probe: bool, scan: Simulated
) -> None:
    bad = chosen(scan, share)
    positions = scan.positions_px.copy()
    positions[bad] += [6, -4]
    trust = assessed(replace(scan, positions_px=positions), probe=probe)
    good = np.setdiff1d(np.arange(len(scan)), bad)
    # At half and half either side may be the first: only the difference of the two is known.
    sides = [trust.flagged[each].mean() for each in (bad, good)]
    assert max(sides) >= 0.95
    assert min(sides) <= 0.01
    assert share == 0.5 or sides[0] > sides[1]
    named = "(6, -4) px" if sides[0] > sides[1] else "(-6, 4) px"
    assert any(f"their positions are off by {named} (x, y)" in reason for reason in trust.reasons), trust.reasons


@pytest.mark.parametrize("since", [60, 90, 120])
def test_positions_that_jumped_once_are_those_after_the_jump_unless_these_are_most(since: int, scan: Simulated) -> None:
    order = np.random.default_rng(9).permutation(len(scan))  # so that both sides lie everywhere
    mixed = replace(
        scan, patches=scan.patches[order], amplitudes=scan.amplitudes[order], positions_px=scan.positions_px[order]
    )
    mixed.positions_px[since:] += 6
    trust = assessed(mixed)
    late = np.arange(len(scan)) >= since
    wrong = ~late if since == 60 else late
    assert trust.flagged[wrong].mean() >= 0.95
    assert trust.flagged[~wrong].mean() <= 0.02
    assert any(
        (f"before pattern {since}" if since == 60 else f"from pattern {since} on") in reason for reason in trust.reasons
    ), trust.reasons
    assert any("came first" in reason for reason in trust.reasons) == (since == 90)


def test_sums_of_two_places_are_not_believed_though_they_agree_among_themselves_and_are_more() -> None:
    """Blurred patches agree with each other, but hardly better in place than beside it."""
    scan = simulated(0)
    blurred = np.zeros(len(scan), bool)
    blurred[chosen(scan, 0.6)] = True
    patches = scan.patches.copy()
    patches[blurred] = 0.5 * (patches[blurred] + np.roll(scan.patches, 71, axis=0)[blurred])
    spoilt = replace(scan, patches=patches.astype(np.complex64))
    with closing(evidence_of(spoilt)) as evidence:
        known = evidence.in_order()
        pairs = compare_pairs(known.placed(), np.ones(len(scan), bool))
        contest = Contest(known, known.placed(), pairs)
        assert contest.better(blurred, ~blurred) == (-1, "their patches agree more sharply")
        assert contest.better(~blurred, blurred) == (1, "their patches agree more sharply")


@pytest.mark.parametrize("seed", range(3))
def test_halves_of_a_scan_without_faults_are_not_told_apart(seed: int) -> None:
    with closing(evidence_of(simulated(seed))) as evidence:
        known = evidence.in_order()
        contest = Contest(known, known.placed(), compare_pairs(known.placed(), np.ones(len(known.counts), bool)))
        half = np.random.default_rng(seed).permutation(len(known.counts)) % 2 == 0
        assert contest.better(half, ~half) == (0, "")


def test_multiplied_counts_are_told_from_more_photons(scan: Simulated) -> None:
    bright = np.zeros(len(scan), bool)
    bright[chosen(scan, 0.6)] = True
    counts = np.square(scan.amplitudes)
    more = np.random.default_rng(3).poisson(100.0 * counts)
    for values, expected in ((100.0 * counts, bright), (more, np.zeros(len(scan), bool))):
        spoilt = np.where(bright[:, None, None], values, counts)
        with closing(evidence_of(replace(scan, amplitudes=np.sqrt(spoilt).astype(np.float32)))) as evidence:
            np.testing.assert_array_equal(multiplied(evidence.in_order()), expected)


def test_sets_that_agree_are_found_whatever_their_number() -> None:
    group = np.repeat([0, 1, 2], (5, 4, 1))
    first, second = np.triu_indices(10, 1)
    voice = np.where(group[first] == group[second], 0.6, -1.0)
    voice[(first == 0) & (second == 5)] = 0.9  # a chance agreement, the strongest of all
    sets = agreeing_sets(10, first, second, voice)
    assert len(np.unique(sets)) == 4
    assert len(np.unique(sets[1:5])) == len(np.unique(sets[6:9])) == 1
    assert sets[0] == sets[5]


def test_shuffled_positions_are_not_trusted_and_no_reading_is_named(scan: Simulated) -> None:
    order = np.random.default_rng(5).permutation(len(scan))
    trust = assessed(replace(scan, positions_px=scan.positions_px[order]))
    assert trust.verdict == "not trusted"
    assert not any("with x" in reason for reason in trust.reasons)


def test_zero_frequency_at_the_corner_is_named(scan: Simulated) -> None:
    trust = assessed(replace(scan, amplitudes=np.fft.ifftshift(scan.amplitudes, axes=(1, 2))))
    assert trust.verdict == "not trusted"
    assert "zero frequency is not in the middle" in trust.reasons[0]


def test_global_phase_of_a_patch_is_no_disagreement_but_is_said(scan: Simulated) -> None:
    patches = scan.patches.copy()
    patches[60] *= np.exp(0.5j)
    trust = assessed(replace(scan, patches=patches))
    assert trust.scores.phase_rad[60] == pytest.approx(0.5, abs=0.05)
    assert trust.scores.disagreement[60] < 0.06


def test_patches_that_overlap_no_other_cannot_be_checked(scan: Simulated) -> None:
    trust = assessed(replace(scan, positions_px=scan.positions_px * 6), probe=False)
    assert trust.verdict == "doubtful"
    assert "overlap no other" in trust.reasons[-1]


def test_deviation_of_a_pixel_is_that_of_the_patches_that_made_it(scan: Simulated) -> None:
    """Positions are whole pixels, so patches come onto the canvas as they are; a pixel in the middle, by hand."""
    trust = assessed(scan)
    stitcher = Stitcher(scan.positions_px, N, probe_weights(scan.probe[None]))
    row, column = (size // 2 for size in trust.amplitude_deviation.shape)
    crop, values, weights = stitcher.crop_px, [], []
    for patch, (top, left) in zip(scan.patches, stitcher.corners(scan.positions_px), strict=True):
        if 0 <= row - top < crop and 0 <= column - left < crop:
            start = N // 2 - crop // 2
            values.append(patch[start + row - top, start + column - left])
            weights.append(stitcher.weights[row - top, column - left])
    found, weight = np.array(values), np.array(weights)
    mean = np.average(found, weights=weight)
    amplitude = np.average((np.abs(found) - abs(mean)) ** 2, weights=weight)
    phase = np.average(np.angle(found * np.conj(mean)) ** 2, weights=weight)
    assert len(found) > 3
    assert trust.amplitude_deviation[row, column] == pytest.approx(np.sqrt(amplitude), rel=1e-3)
    assert trust.phase_deviation_rad[row, column] == pytest.approx(np.sqrt(phase), rel=1e-3)


class TestBaseline:
    def test_limits_follow_the_model(self, scan: Simulated) -> None:
        assert assessed(scan, baseline=TrustBaseline(0.001, 0.001)).verdict == "trusted"
        worse = simulated(noise=0.06)
        assert assessed(worse).verdict != "trusted"
        assert assessed(worse, baseline=TrustBaseline(0.08, 0.03)).verdict == "trusted"


def test_spool_adds_up_and_gives_back() -> None:
    spool = Spool(6, (2, 2), np.complex64)
    ones = np.ones((3, 2, 2), np.complex64)
    spool.add(np.array([1, 2, 3]), ones)
    spool.add(np.array([3, 5, 3]), 2 * ones)
    found = spool.get(np.array([0, 1, 3, 4, 5]))
    assert found[:, 0, 0].tolist() == [0, 1, 5, 0, 2]
    assert spool.copies.tolist() == [0, 1, 1, 3, 0, 1]
    spool.close()


@pytest.mark.parametrize("probe", [True, False])
def test_threads_change_no_bit_of_a_verdict(probe: bool) -> None:
    scan = with_wrong_positions(simulated(3), np.arange(0, 190, 9))
    with closing(evidence_of(scan, probe=probe)) as evidence:
        alone, shared = (assess_kept(replace(evidence.in_order(), threads=threads)) for threads in (1, 3))
    np.testing.assert_equal(alone.figures, shared.figures)
    for name, values in vars(alone.scores).items():
        np.testing.assert_array_equal(values, getattr(shared.scores, name))
    np.testing.assert_array_equal(alone.phase_deviation_rad, shared.phase_deviation_rad)
    np.testing.assert_array_equal(alone.amplitude_deviation, shared.amplitude_deviation)


def test_hot_pixels_are_looked_for_among_the_four_brightest() -> None:
    rng = np.random.default_rng(0)
    patterns = rng.permuted(np.arange(2 * 256, dtype=np.float32).reshape(2, 256), axis=1).reshape(2, 16, 16)
    ratios = np.full((2, 16, 16), -1.0)
    for pattern, row, column in np.ndindex(2, 16, 16):
        around = [
            patterns[pattern, (row + down) % 16, (column + right) % 16]
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if down or right
        ]
        ratios[pattern, row, column] = patterns[pattern, row, column] / (max(around) + 10.0)
    brightest = np.sort(patterns.reshape(2, -1))[:, -4]
    expected = np.where(patterns >= brightest[:, None, None], ratios, -1.0).max((1, 2))
    np.testing.assert_allclose(hot_pixels(patterns), expected, rtol=1e-6)
