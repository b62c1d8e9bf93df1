"""A scan in parts is the scan in one: the same bits, whatever the number of parts and their order; what does not belong is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

pytest.importorskip("onnx")

from one_layer import write_model, write_scan
from sample_bundles import ROOT

import ptycho_runtime
from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.image.options import ReconstructOptions
from ptycho_runtime.image.result import Reconstruction
from ptycho_runtime.many.hdf5 import seal
from ptycho_runtime.many.merge import gathered, merge
from ptycho_runtime.many.parts import Which, is_done, run_part
from ptycho_runtime.many.plan import Plan, open_plan, prepare, slice_of
from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import read_scan


@dataclasses.dataclass
class Case:
    """A model, a scan, its plan and its image in one run."""

    model: Path
    scan: Path
    plan: Plan
    whole: Reconstruction

    def parts(self, count: int, folder: Path) -> list[Path]:
        """Write all parts."""
        folder.mkdir(exist_ok=True)
        paths = [folder / f"part{number}of{count}.h5" for number in range(1, count + 1)]
        with ptycho_runtime.open(self.model, self.plan.run) as model:
            for number, path in enumerate(paths, 1):
                run_part(self.plan, Which(number, count), model, path)
        return paths


def made(folder: Path, gridsize: int, domain: str = "amplitude", **options: object) -> Case:
    model = write_model(folder / "model.onnx", gridsize, domain)
    scan_path = write_scan(folder / "scan.npz", seed=gridsize, side=9, probe=True)
    image = ReconstructOptions(**options)  # type: ignore[arg-type]
    with (
        ptycho_runtime.open(model, "cpu", batch=5) as opened,
        read_scan(scan_path, 32, ReadOptions(domain="amplitude", exclude=(3, 7), every=1)) as scan,
    ):
        plan = prepare(opened, scan, image, folder / "plan.h5")
        whole = opened.reconstruct(scan, image)
    return Case(model, scan_path, plan, whole)


@pytest.fixture(
    scope="module",
    params=[
        lambda folder: made(folder, 1, frc=True),
        lambda folder: made(folder, 2),
        lambda folder: made(folder, 1, "counts"),
        lambda folder: made(folder, 2, weighting="window", crop_px=9),
    ],
    ids=["one by one", "groups of four", "counts", "window"],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    make: Callable[[Path], Case] = request.param
    return make(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def simple(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made(tmp_path_factory.mktemp("simple"), 1)


def assert_same_bits(found: Reconstruction, expected: Reconstruction) -> None:
    assert found.object.tobytes() == expected.object.tobytes()
    assert found.canvas.coverage.tobytes() == expected.canvas.coverage.tobytes()
    assert (found.canvas.x0_px, found.canvas.y0_px) == (expected.canvas.x0_px, expected.canvas.y0_px)
    assert (found.input_scale_factor, found.object_scales) == (expected.input_scale_factor, expected.object_scales)
    trust, known = found.trust, expected.trust
    assert (trust.verdict, trust.reasons) == (known.verdict, known.reasons)
    for name, figure in known.figures.items():
        assert np.array_equal(trust.figures[name], figure, equal_nan=True), name
    for name, scores in vars(known.scores).items():
        assert np.array_equal(getattr(trust.scores, name), scores, equal_nan=True), name
    for name in ("flagged", "kinds", "amplitude_deviation", "phase_deviation_rad"):
        assert getattr(trust, name).tobytes() == getattr(known, name).tobytes(), name
    rings, of_one = found.ring_correlation, expected.ring_correlation
    assert (rings is None) == (of_one is None)
    if rings is not None and of_one is not None:
        assert rings.correlation.tobytes() == of_one.correlation.tobytes()


@pytest.mark.parametrize("count", [1, 7])
def test_parts_in_any_order_give_the_bits_of_one_run(case: Case, count: int, tmp_path: Path) -> None:
    paths = case.parts(count, tmp_path)
    assert_same_bits(merge(gathered(paths[1::2][::-1] + paths[::2])), case.whole)


@pytest.mark.long
@pytest.mark.parametrize("quality", [True, False], ids=["autoencoder", "centre"])
def test_the_demo_in_parts_with_each_of_its_graphs(demo: Path, quality: bool, tmp_path: Path) -> None:
    image = ReconstructOptions(quality=quality)
    scan_path = ROOT / "examples" / "demo" / "scan.npz"
    with ptycho_runtime.open(demo, "cpu") as model, read_scan(scan_path, 64, ReadOptions(rows=(100, 180))) as scan:
        plan = prepare(model, scan, image, tmp_path / "plan.h5")
        whole = model.reconstruct(scan, image)
    found = merge(gathered(Case(demo, scan_path, plan, whole).parts(3, tmp_path)))
    assert_same_bits(found, whole)
    assert np.isfinite(found.trust.scores.residual).any() == quality


def test_the_cases_are_what_they_are_called(case: Case, request: pytest.FixtureRequest) -> None:
    found = case.whole
    name = request.node.callspec.id
    assert np.isfinite(found.trust.scores.disagreement).mean() > 0.5
    assert (found.object_scales is not None) == (name == "counts")
    assert (found.ring_correlation is not None) == (name == "one by one")
    assert found.done == 79
    with h5py.File(case.plan.path) as plan:
        assert plan["groups"].shape == (79, 4 if name in ("groups of four", "window") else 1)


def test_frames_and_facts_of_the_scan_come_through(simple: Case, tmp_path: Path) -> None:
    found = merge(gathered(simple.parts(2, tmp_path)))
    assert found.scan.frames.tolist() == simple.whole.scan.frames.tolist()
    assert found.scan.skipped == simple.whole.scan.skipped
    assert found.scan.positions_px.tobytes() == simple.whole.scan.positions_px.tobytes()
    assert found.origin.options == simple.whole.origin.options
    assert (found.origin.bundle_sha256, found.origin.scan_sha256) == (
        simple.whole.origin.bundle_sha256,
        simple.whole.origin.scan_sha256,
    )
    assert not found.partial
    assert "merged from 2 parts" in found.note


@pytest.fixture(scope="module")
def parts(simple: Case, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return simple.parts(3, tmp_path_factory.mktemp("parts"))


def changed(path: Path, target: Path, change: Callable[[h5py.File], None]) -> Path:
    """Copy a plan or a part, change it, and seal it as if it had been written so."""
    shutil.copy(path, target)
    with h5py.File(target, "r+") as file:
        change(file)
    with target.open("r+b") as sealed:
        seal(sealed)
    return target


class TestRefused:
    def test_a_missing_part(self, parts: list[Path]) -> None:
        with pytest.raises(ReconstructionError, match=r"^1 of 3 parts are missing: 2; give them too$"):
            gathered([parts[2], parts[0]])

    def test_a_part_that_is_there_twice(self, parts: list[Path], tmp_path: Path) -> None:
        again = shutil.copy(parts[1], tmp_path / "again.h5")
        with pytest.raises(ReconstructionError, match=r"again\.h5: are the same part; give each once$"):
            gathered([*parts, Path(again)])

    def test_a_part_of_another_division(self, parts: list[Path], simple: Case, tmp_path: Path) -> None:
        other = simple.parts(2, tmp_path)
        with pytest.raises(
            ReconstructionError, match=r"is one of (2|3) parts, and .* one of (2|3); give parts of one division"
        ):
            gathered([parts[0], other[1], parts[2]])

    def test_a_part_of_another_plan(self, parts: list[Path], tmp_path: Path) -> None:
        foreign = made(tmp_path, 1, crop_px=8).parts(3, tmp_path / "parts")
        with pytest.raises(ReconstructionError, match="is a part of another plan than"):
            gathered([parts[0], foreign[1], parts[2]])

    def test_what_is_no_part(self, parts: list[Path], simple: Case) -> None:
        with pytest.raises(
            ReconstructionError, match=r"plan\.h5: is no part of ptycho-runtime; give a file that it wrote"
        ):
            gathered([parts[0], simple.plan.path])

    @pytest.mark.parametrize("keep", [0.3, 0.999])
    def test_a_part_that_is_cut_short(self, parts: list[Path], keep: float, tmp_path: Path) -> None:
        cut = tmp_path / "cut.h5"
        whole = parts[1].read_bytes()
        cut.write_bytes(whole[: int(keep * len(whole))])
        with pytest.raises(ReconstructionError, match=r"cut\.h5: is (a damaged|no) part"):
            merge(gathered([parts[0], cut, parts[2]]))

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
    def test_a_byte_that_is_another(self, parts: list[Path], share: float, tmp_path: Path) -> None:
        data = bytearray(parts[1].read_bytes())
        data[int(share * len(data))] ^= 4
        (tmp_path / "bad.h5").write_bytes(data)
        with pytest.raises(
            ReconstructionError, match=r"bad\.h5: is a damaged part \(ValueError: its content is not what was written\)"
        ):
            merge(gathered([parts[0], tmp_path / "bad.h5", parts[2]]))

    def test_sums_that_are_not_finite(self, parts: list[Path], tmp_path: Path) -> None:
        def spoil(file: h5py.File) -> None:
            file["sums"][0, 0, 0] = np.nan

        bad = changed(parts[1], tmp_path / "bad.h5", spoil)
        with pytest.raises(
            ReconstructionError,
            match=r"bad\.h5: is a damaged part \(ValueError: sums that are not finite\); make it again",
        ):
            merge(gathered([parts[0], bad, parts[2]]))

    @pytest.mark.parametrize("name", ["patches", "counts", "sums", "moments", "origin", "level"])
    def test_arrays_of_other_sizes(self, parts: list[Path], name: str, tmp_path: Path) -> None:
        def exchange(file: h5py.File) -> None:
            del file[name]
            file[name] = np.zeros((2, 3, 3), np.float16)

        bad = changed(parts[1], tmp_path / "bad.h5", exchange)
        with pytest.raises(ReconstructionError, match=r"bad\.h5: is a damaged part|the parts have \d+ patches"):
            merge(gathered([parts[0], bad, parts[2]]))

    @pytest.mark.parametrize("ids", [[[-1]], [[79]], [[5]]])
    def test_groups_of_patterns_that_are_not_there(self, simple: Case, ids: list[list[int]], tmp_path: Path) -> None:
        def regroup(file: h5py.File) -> None:
            file["groups"][3] = ids[0]

        plan = open_plan(changed(simple.plan.path, tmp_path / "bad.h5", regroup))
        with pytest.raises(
            ReconstructionError,
            match=r"bad\.h5: is a damaged plan \(ValueError: groups of patterns that are not there\)",
        ):
            slice_of(plan, 0, 10, simple.scan)

    def test_more_parts_than_groups(self, simple: Case) -> None:
        with pytest.raises(ReconstructionError, match="has 79 groups; expected no more parts than that, not 80"):
            Which(1, 80).groups(simple.plan)

    def test_another_bundle(self, simple: Case, tmp_path: Path) -> None:
        other = write_model(tmp_path / "other.onnx", domain="counts")
        with (
            ptycho_runtime.open(other, "cpu") as model,
            pytest.raises(ReconstructionError, match=r"is not the bundle that plan\.h5 was made for"),
        ):
            run_part(simple.plan, Which(1, 2), model, tmp_path / "p.h5")
        assert not (tmp_path / "p.h5").exists()

    def test_another_scan(self, simple: Case, tmp_path: Path) -> None:
        other = write_scan(tmp_path / "scan.npz", side=4)
        with (
            ptycho_runtime.open(simple.model, "cpu") as model,
            pytest.raises(ReconstructionError, match=r"is not the scan that plan\.h5 was made for"),
        ):
            run_part(simple.plan, Which(1, 2), model, tmp_path / "p.h5", other)

    def test_reduced_precision(self, simple: Case, tmp_path: Path) -> None:
        with (
            ptycho_runtime.open(simple.model, "cpu", precision="auto") as model,
            read_scan(simple.scan, 32) as scan,
            pytest.raises(ReconstructionError, match="parts run in float32"),
        ):
            prepare(model, scan, ReconstructOptions(), tmp_path / "plan.h5")

    def test_a_plan_with_other_lengths(self, simple: Case, tmp_path: Path) -> None:
        def shorten(file: h5py.File) -> None:
            del file["frames"]
            file["frames"] = np.arange(4)

        bad = changed(simple.plan.path, tmp_path / "bad.h5", shorten)
        with pytest.raises(ReconstructionError, match=r"bad\.h5: is a damaged plan"):
            open_plan(bad)


def test_a_part_that_is_done_is_known_again(simple: Case, tmp_path: Path) -> None:
    paths = simple.parts(2, tmp_path)
    assert is_done(paths[0], simple.plan, Which(1, 2))
    assert not is_done(paths[0], simple.plan, Which(2, 2))
    assert not is_done(tmp_path / "none.h5", simple.plan, Which(1, 2))


def test_a_part_says_what_is_in_it(simple: Case, parts: list[Path]) -> None:
    with h5py.File(parts[1]) as file:
        assert file["ids"][:].tolist() == list(range(26, 52))
        assert file["sums"].dtype == np.float64
        assert json.loads(file.attrs["options"]) == {"scan": {"domain": "amplitude", "exclude": [3, 7]}, "image": {}}
        assert (file.attrs["bundle_sha256"], file.attrs["plan_sha256"]) == (
            simple.plan.bundle_sha256,
            simple.plan.sha256,
        )
        assert np.isfinite(file["counts"][:]).all()


def test_a_plan_is_read_as_it_was_written(simple: Case) -> None:
    assert open_plan(simple.plan.path) == simple.plan
    assert simple.plan.read == ReadOptions(domain="amplitude", exclude=(3, 7))
    assert simple.plan.run.batch == 5
