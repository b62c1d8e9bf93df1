"""Arrays of other shapes, units in other spellings, positions in other files: the same scan, or a refusal that says what to do."""

from __future__ import annotations

import os
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_scans import COUNT, COUNTS, GIVEN, GRID_X, GRID_Y, SHAPE, STORED, N, X, Y, cxi, hdf5

from ptycho_runtime import ScanError
from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import read_scan

h5py = pytest.importorskip("h5py")
XY = np.stack([X, Y], -1)


class TestRaster:
    def test_lines_of_a_raster_are_taken_one_after_the_other(self, tmp_path: Path) -> None:
        path = hdf5(tmp_path / "s.h5", STORED.reshape(6, 6, N, N), x=X.reshape(6, 6), y=Y.reshape(6, 6))
        with read_scan(path, N, GIVEN) as scan:
            assert scan.positions_px == pytest.approx(XY)
            assert np.array_equal(scan.patterns(np.array([35, 5, 6]), N, "counts"), COUNTS[[35, 5, 6]])
            assert "patterns of 6 × 6 places are taken line by line, as their positions are" in scan.warnings

    @pytest.mark.parametrize("compress", [False, True])
    @pytest.mark.parametrize("shape", [(6, 6, N, N), (COUNT, 1, N, N), (1, COUNT, N, N)])
    def test_axis_too_many_in_npz(self, shape: tuple[int, ...], compress: bool, tmp_path: Path) -> None:
        write = np.savez_compressed if compress else np.savez
        write(tmp_path / "s.npz", diff3d=np.sqrt(STORED).reshape(shape), xcoords=X, ycoords=Y)
        with read_scan(tmp_path / "s.npz", N) as scan:
            assert np.allclose(scan.patterns(np.array([7, 30]), N, "counts"), COUNTS[[7, 30]], rtol=1e-3)

    def test_one_array_of_a_rasters_positions(self, tmp_path: Path) -> None:
        path = hdf5(tmp_path / "s.h5", STORED.reshape(6, 6, N, N), xy=XY.reshape(6, 6, 2))
        with read_scan(path, N, replace(GIVEN, x_key="xy", y_key="xy")) as scan:
            assert scan.positions_px == pytest.approx(XY)

    def test_as_many_positions_as_pixels_tell_no_order(self, tmp_path: Path) -> None:
        small = np.ones((4, 4, 4, 4), np.uint16)
        path = hdf5(tmp_path / "s.h5", small, x=np.arange(16.0), y=np.arange(16.0))
        with pytest.raises(ScanError, match=r"shape \(4, 4, 4, 4\), four axes; expected \(n, N, N\)"):
            read_scan(path, 4, GIVEN)

    def test_positions_of_the_axes_alone(self, tmp_path: Path) -> None:
        path = hdf5(tmp_path / "s.h5", STORED.reshape(6, 6, N, N), x=X[:6], y=X[:6])
        with pytest.raises(ScanError, match=r"there are 6 positions; .*--x-key and --y-key"):
            read_scan(path, N, GIVEN)

    def test_frames_that_nobody_wrote_take_their_line_along(self, tmp_path: Path) -> None:
        def patterns(file: h5py.File) -> None:
            data = file.create_dataset("entry/data/data", (6, 6, N, N), "u2", chunks=(1, 1, N, N))
            data[:4] = STORED.reshape(6, 6, N, N)[:4]

        path = hdf5(tmp_path / "s.h5", patterns)
        with pytest.raises(ScanError, match="is incomplete: 12 of 36 frames were never written"):
            read_scan(path, N, GIVEN)
        with read_scan(path, N, replace(GIVEN, incomplete=True)) as scan:
            assert scan.frames.tolist() == list(range(24))


class TestUnits:
    @pytest.mark.parametrize(
        ("unit", "metres"),
        [("Micrometers", 1e-6), ("Å", 1e-10), ("angstroms", 1e-10), (b"nanometre", 1e-9), (np.array([b"mm"]), 1e-3)],
    )
    def test_spellings_of_lengths(self, unit: object, metres: float, tmp_path: Path) -> None:
        path = cxi(tmp_path / "s.cxi")
        with read_scan(path, N, ReadOptions(position_sign=1)) as scan:
            expected = scan.positions_px
        with h5py.File(path, "r+") as file:
            translation = file["entry_1/data_1/translation"]
            translation[...] = translation[()] / metres
            translation.attrs["units"] = unit
        assert read_scan(path, N, ReadOptions(position_sign=1)).positions_px == pytest.approx(expected)

    def test_what_is_no_length(self, tmp_path: Path) -> None:
        path = cxi(tmp_path / "s.cxi")
        with h5py.File(path, "r+") as file:
            file["entry_1/data_1/translation"].attrs["units"] = "deg"
        with pytest.raises(ScanError, match=r"'deg'; expected a length; give --position-unit px, m, mm, um, nm or ang"):
            read_scan(path, N, ReadOptions(position_sign=1))

    @pytest.mark.parametrize(("names", "patterns"), [(("xcoords", "ycoords"), "diff3d"), (("points",), "dp")])
    def test_units_count_more_than_what_a_layout_is_used_to(
        self, names: tuple[str, ...], patterns: str, tmp_path: Path
    ) -> None:
        values = (X, Y) if len(names) == 2 else (XY.T,)
        with h5py.File(tmp_path / "s.h5", "w") as file:
            file[patterns] = np.sqrt(STORED) if patterns == "diff3d" else STORED
            for name, numbers in zip(names, values, strict=True):
                file[name] = numbers * 20.0
                file[name].attrs["units"] = "nm"
        with read_scan(tmp_path / "s.h5", N, ReadOptions(position_sign=1, pixel_size_m=2e-8)) as scan:
            assert scan.positions_px == pytest.approx(XY)

    def test_unit_that_is_given_settles_what_units_leave_open(self, tmp_path: Path) -> None:
        path = hdf5(tmp_path / "s.h5")
        with h5py.File(path, "r+") as file:
            file["x"].attrs["units"] = "steps"
        with read_scan(path, N, GIVEN) as scan:
            assert scan.positions_px == pytest.approx(XY)
        with h5py.File(path, "r+") as file:
            file["x"].attrs["units"] = "um"
        with pytest.raises(ScanError, match=r"/x in um and /y says no unit; expected one unit .*give --position-unit"):
            read_scan(path, N, replace(GIVEN, position_unit=None))

    def test_positions_in_too_few_digits_are_said_to_come_in_steps(self, tmp_path: Path) -> None:
        far = np.stack([X, Y, 0 * X], 1) * 1e-8 + 0.5
        for kind, warned in (("f4", True), ("f8", False)):
            with read_scan(
                cxi(tmp_path / "s.cxi", **{"data_1/translation": far.astype(kind)}), N, TestCxi.BEAM
            ) as scan:
                assert any("float32 numbers up to 0.5, so they come in steps" in w for w in scan.warnings) is warned


class TestCxi:
    BEAM = ReadOptions(position_sign=1)

    def test_two_sets_of_positions_that_contradict_each_other(self, tmp_path: Path) -> None:
        moved = -np.stack([X, Y, 0 * X], 1) * 1e-8
        path = cxi(tmp_path / "s.cxi", **{"sample_1/geometry_1/translation": moved})
        with pytest.raises(ScanError, match=r"data_1/translation and entry_1/sample_1/\S+ are different positions"):
            read_scan(path, N, self.BEAM)
        path = cxi(tmp_path / "s.cxi", **{"sample_1/geometry_1/translation": -moved})
        assert len(read_scan(path, N, self.BEAM)) == COUNT

    def test_further_entries_are_named_and_taken_with_all_that_is_theirs(self, tmp_path: Path) -> None:
        path = cxi(tmp_path / "s.cxi")
        with h5py.File(path, "r+") as file:
            file.copy("entry_1", file, "entry_2")
            file["entry_2/data_1/translation"][...] *= 2
        with pytest.raises(
            ScanError, match=r"\(entry_1/data_1/data, entry_2/data_1/data\); name them with --patterns-key"
        ):
            read_scan(path, N, self.BEAM)
        first, second = (
            read_scan(path, N, replace(self.BEAM, patterns_key=f"entry_{k}/data_1/data")).positions_px for k in (1, 2)
        )
        assert second == pytest.approx(2 * first)

    def test_energy_and_wavelength_that_contradict_each_other(self, tmp_path: Path) -> None:
        path = cxi(tmp_path / "s.cxi", **{"instrument_1/source_1/wavelength": 2e-10})
        with pytest.raises(ScanError, match=r"energy makes a wavelength of 1\.409e-10 m, and it says 2e-10 m"):
            read_scan(path, N, self.BEAM)
        path = cxi(tmp_path / "s.cxi", **{"instrument_1/source_1/wavelength": 1.409e-10})
        assert read_scan(path, N, self.BEAM).attributes["probe_energy_eV"] == pytest.approx(8800)

    def test_probe_that_cannot_be_read_keeps_nobody_from_an_image(self, tmp_path: Path) -> None:
        records = np.zeros((N, N), [("re", "f4"), ("im", "f4")])
        with read_scan(
            cxi(tmp_path / "s.cxi", **{"instrument_1/source_1/illumination": records}), N, self.BEAM
        ) as scan:
            assert scan.probe is None
            assert "compound records with the fields re, im" in scan.warnings[0]

    def test_background_is_not_taken_off_and_that_is_said(self, tmp_path: Path) -> None:
        path = cxi(tmp_path / "s.cxi", **{"instrument_1/detector_1/data_dark": np.ones((N, N))})
        with read_scan(path, N, self.BEAM) as scan:
            assert "data_dark, a background, is not taken off the patterns" in scan.warnings[0]


@pytest.mark.parametrize(
    ("mark", "kind"),
    [(65535, "i4"), (2**20 - 1, "u4"), (2**32 - 1, "i8"), (-9999, "f4"), (-32768, "i2"), (np.inf, "f4")],
)
def test_number_that_no_pixel_counted_and_none_ever_changes_is_a_mark(mark: float, kind: str, tmp_path: Path) -> None:
    counts = COUNTS.astype(kind)
    counts[:, 5, 3:9] = mark
    with read_scan(hdf5(tmp_path / "s.h5", counts), N, GIVEN) as scan:
        assert scan.warnings == [
            f"masked 6 bad pixels of 1024 (6 that read {mark:.10g} in every pattern); filled from their neighbours"
        ]
    # The brightest of pixels that never change is none where all patterns are alike.
    alike = np.repeat(COUNTS[:1], COUNT, axis=0)
    assert read_scan(hdf5(tmp_path / "t.h5", alike.astype("u4")), N, GIVEN).warnings == []


class TestParts:
    """Frames in several files: those that are there have their own numbers, or the scan is refused."""

    SOME = replace(GIVEN, incomplete=True)

    def master(self, folder: Path, linked: tuple[int, ...] = (1, 2, 3), there: tuple[int, ...] = (1, 2, 3)) -> Path:
        for part in there:
            with h5py.File(folder / f"s_{part}.h5", "w") as file:
                file["entry/data/data"] = STORED[12 * part - 12 : 12 * part]

        def link(file: h5py.File) -> None:
            for part in linked:
                file[f"entry/data/data_{part:06d}"] = h5py.ExternalLink(f"s_{part}.h5", "/entry/data/data")

        return hdf5(folder / "s_master.h5", link)

    @pytest.mark.parametrize(
        "missing", [{"linked": (1, 3)}, {"linked": (1, 2, 3), "there": (1, 3)}, {"linked": (1, 2), "there": (1,)}]
    )
    def test_frames_before_a_missing_part_are_taken_when_asked_for(
        self, missing: dict[str, tuple[int, ...]], tmp_path: Path
    ) -> None:
        path = self.master(tmp_path, **missing)
        with pytest.raises(ScanError, match="is incomplete"):
            read_scan(path, N, GIVEN)
        with read_scan(path, N, self.SOME) as scan:
            assert scan.frames.tolist() == list(range(12))
            assert np.array_equal(scan.patterns(np.arange(12), N, "counts"), COUNTS[:12])

    def test_first_part_that_is_missing(self, tmp_path: Path) -> None:
        path = self.master(tmp_path, linked=(2, 3))
        with pytest.raises(ScanError, match="data_000001 is not among its parts"):
            read_scan(path, N, GIVEN)
        with pytest.raises(ScanError, match="data_000001, its first part, is not there"):
            read_scan(path, N, self.SOME)

    @pytest.mark.parametrize("block", [1, 3])
    def test_virtual_dataset_of_parts_that_take_turns(self, block: int, tmp_path: Path) -> None:
        turns = (np.arange(COUNT) // block) % 2
        layout = h5py.VirtualLayout((COUNT, N, N), "u2")
        for part in (0, 1):
            with h5py.File(tmp_path / f"p{part}.h5", "w") as file:
                file["d"] = STORED[turns == part]
            source = h5py.VirtualSource(f"p{part}.h5", "d", (COUNT // 2, N, N))
            for k, start in enumerate(range(part * block, COUNT, 2 * block)):
                layout[start : start + block] = source[k * block : (k + 1) * block]
        path = hdf5(tmp_path / "s.h5", lambda file: file.create_virtual_dataset("entry/data/data", layout))
        with read_scan(path, N, GIVEN) as scan:
            assert np.array_equal(scan.patterns(np.arange(COUNT), N, "counts"), COUNTS)
        (tmp_path / "p1.h5").unlink()
        with read_scan(path, N, self.SOME) as scan:
            assert scan.frames.tolist() == np.flatnonzero(turns == 0).tolist()

    def test_virtual_dataset_of_every_other_frame(self, tmp_path: Path) -> None:
        layout = h5py.VirtualLayout((COUNT, N, N), "u2")
        for part in (0, 1):
            with h5py.File(tmp_path / f"p{part}.h5", "w") as file:
                file["d"] = STORED[part::2]
            layout[part::2] = h5py.VirtualSource(f"p{part}.h5", "d", (COUNT // 2, N, N))
        path = hdf5(tmp_path / "s.h5", lambda file: file.create_virtual_dataset("entry/data/data", layout))
        assert len(read_scan(path, N, GIVEN)) == COUNT
        (tmp_path / "p0.h5").unlink()
        with read_scan(path, N, self.SOME) as scan:
            assert scan.frames.tolist() == list(range(1, COUNT, 2))


class TestPositionsElsewhere:
    def patterns(self, folder: Path) -> Path:
        with h5py.File(folder / "d.h5", "w") as file:
            file["patterns"], file["indexes"] = STORED, np.arange(COUNT) + 100
        return folder / "d.h5"

    def test_arrays_that_are_named(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "motors.h5", "w") as file:
            file["sam/x"], file["sam/y"] = X * 10, Y * 10
            for axis in "xy":
                file[f"sam/{axis}"].attrs["units"] = "nm"
        options = ReadOptions(
            positions_file=tmp_path / "motors.h5", x_key="sam/x", y_key="/sam/y", position_sign=1, pixel_size_m=1e-8
        )
        with read_scan(self.patterns(tmp_path), N, options) as scan:
            assert scan.positions_px == pytest.approx(XY)
        with pytest.raises(ScanError, match=r"motors.h5: has no positions under a known name.*--x-key and --y-key"):
            read_scan(self.patterns(tmp_path), N, ReadOptions(positions_file=tmp_path / "motors.h5"))

    def test_scan_of_cxi_brings_geometry_but_no_sign(self, tmp_path: Path) -> None:
        options = ReadOptions(positions_file=cxi(tmp_path / "other.cxi"))
        with pytest.raises(ScanError, match="--positions-of beam or --positions-of sample"):
            read_scan(self.patterns(tmp_path), N, options)
        with (
            read_scan(cxi(tmp_path / "s.cxi"), N, ReadOptions(position_sign=1)) as whole,
            read_scan(self.patterns(tmp_path), N, replace(options, position_sign=1)) as scan,
        ):
            assert scan.positions_px == pytest.approx(whole.positions_px)
            assert scan.pixel_size_m == pytest.approx(whole.pixel_size_m)

    def test_numbers_of_a_product_without_numbers_of_patterns(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "product.h5", "w") as file:
            file["probe_position_indexes"] = np.arange(COUNT) + 7.0
            file["probe_position_x_m"], file["probe_position_y_m"] = X * 1e-8, Y * 1e-8
        np.savez(tmp_path / "d.npz", patterns=STORED)
        options = ReadOptions(positions_file=tmp_path / "product.h5", pixel_size_m=1e-8)
        with pytest.raises(ScanError, match=r"has no indexes, and positions are of frames 7 to 42"):
            read_scan(tmp_path / "d.npz", N, options)
        np.savez(tmp_path / "d.npz", patterns=STORED, indexes=np.arange(COUNT) + 7)
        with read_scan(tmp_path / "d.npz", N, options) as scan:
            assert scan.positions_px == pytest.approx(XY)

    def test_file_of_no_known_kind(self, tmp_path: Path) -> None:
        (tmp_path / "motors.txt").write_text("x y\n1 2\n")
        with pytest.raises(ScanError, match=r"motors.txt: is neither NPZ nor HDF5; expected a file of positions"):
            read_scan(self.patterns(tmp_path), N, ReadOptions(positions_file=tmp_path / "motors.txt"))


def test_names_that_were_given_are_of_no_known_unit(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", diff3d=np.sqrt(STORED), xcoords=X, ycoords=Y, x_um=X / 100, y_um=Y / 100)
    with pytest.raises(ScanError, match="the unit of the positions is not said"):
        read_scan(tmp_path / "s.npz", N, ReadOptions(x_key="x_um", y_key="y_um"))


@pytest.mark.parametrize(
    ("indexes", "match"),
    [
        (np.arange(COUNT - 1), r"indexes have shape \(35,\); expected one a pattern, \(36,\)"),
        (X + 0.5, "no whole numbers"),
    ],
)
def test_indexes_that_are_none(indexes: np.ndarray, match: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", patterns=STORED, indexes=indexes, xcoords=X, ycoords=Y)
    with pytest.raises(ScanError, match=match):
        read_scan(tmp_path / "d.npz", N, ReadOptions(position_unit="px", position_sign=1))


@pytest.mark.parametrize(
    ("head", "match"), [(b"", "h5unjam .* tail -c"), (b"MATLAB 7.3 MAT-file", "patterns are transposed")]
)
def test_user_block_is_refused_with_the_way_round_it(head: bytes, match: str, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["diff3d"], file["xcoords"], file["ycoords"] = np.sqrt(STORED), X, Y
    with path.open("r+b") as raw:
        raw.write(head)
    with pytest.raises(ScanError, match=f"user block of 512 bytes.*{match}"):
        read_scan(path, N)
    (tmp_path / "new.h5").write_bytes(path.read_bytes()[512:])  # as tail -c +513
    assert len(read_scan(tmp_path / "new.h5", N)) == COUNT


@pytest.mark.parametrize("name", ["Bitshuffle", "LZ4", "Zstd", "Blosc", "Blosc2"])
def test_frames_compressed_as_detectors_do(name: str, tmp_path: Path) -> None:
    plugin = pytest.importorskip("hdf5plugin", reason="hdf5plugin is not installed")

    def patterns(file: h5py.File) -> None:
        data = COUNTS.astype(np.uint32)
        file.create_dataset("entry/data/data", data=data, chunks=(1, N, N), compression=getattr(plugin, name)())

    with read_scan(hdf5(tmp_path / "s.h5", patterns), N, GIVEN) as scan:
        assert np.array_equal(scan.patterns(np.arange(COUNT), N, "counts"), COUNTS)


def test_mask_of_cxi_says_of_some_pixels_that_they_are_good(tmp_path: Path) -> None:
    mask = np.zeros((N, N), np.uint32)
    mask[12:20, 12:20], mask[3, 4], mask[3, 5] = 0x1000, 0x1000 | 8, 2
    with read_scan(
        cxi(tmp_path / "s.cxi", **{"instrument_1/detector_1/mask": mask}),
        N,
        replace(GIVEN, x_key=None, y_key=None, position_unit=None),
    ) as scan:
        assert scan.detector is not None
        assert np.argwhere(scan.detector.bad).tolist() == [[3, 4], [3, 5]]


def test_patterns_that_matlab_wrote_are_refused_without_their_user_block_too(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        file["entry/data/data"].attrs["MATLAB_class"] = np.bytes_("uint16")
    with pytest.raises(ScanError, match=r"written by MATLAB: .*patterns are transposed; store them again .*permute"):
        read_scan(path, N, GIVEN)


def test_two_distances_that_contradict_each_other(tmp_path: Path) -> None:
    detector = "entry/instrument/detector/"
    path = hdf5(tmp_path / "s.h5", **{detector + "detector_distance": 1.0, detector + "distance": 2.0})
    with pytest.raises(ScanError, match="detector_distance and distance are 1 and 2 m; correct one of them"):
        read_scan(path, N, GIVEN)


def test_name_that_an_npz_has_twice(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", diff3d=np.sqrt(STORED), xcoords=X, ycoords=Y)
    with zipfile.ZipFile(tmp_path / "s.npz", "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("xcoords.npy", archive.read("ycoords.npy"))
    with pytest.raises(ScanError, match=r"holds xcoords\.npy more than once, and which one counts is not said"):
        read_scan(tmp_path / "s.npz", N)


@pytest.mark.parametrize("mark", [65535, 2**31 - 1, 2**32 - 1])
def test_ends_of_narrower_counters_are_marks_of_few_patterns_too(mark: int, tmp_path: Path) -> None:
    few = COUNTS[:3].copy()
    few[:, 4:6] = mark
    for kind in (np.int64, np.float64):
        path = hdf5(tmp_path / "s.h5", few.astype(kind), x=X[:3], y=Y[:3])
        with read_scan(path, N, GIVEN) as scan:
            assert f"masked {2 * N} bad pixels" in scan.warnings[0]


def test_half_precision_is_read_without_a_word(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", diff3d=np.sqrt(STORED).astype(np.float16), xcoords=X, ycoords=Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with read_scan(tmp_path / "s.npz", N, ReadOptions(domain="amplitude")) as scan:
            assert np.allclose(scan.patterns(np.array([3]), N, "counts"), COUNTS[[3]], rtol=2e-3)


@pytest.mark.parametrize(
    ("patterns", "options", "match"),
    [
        (STORED[:0], GIVEN, r"has shape \(0, 32, 32\), which is no pattern at all"),
        (
            STORED * 0,
            GIVEN,
            r"patterns are zero everywhere, .*was the beam on\? if so, give --amplitude or --intensity",
        ),
        (STORED * 0, replace(GIVEN, domain="intensity"), "no usable pattern is left: all 36 are zero everywhere"),
        (STORED[:, 4:-4, 4:-4], replace(GIVEN, fit="bin"), r"s\.h5: patterns of 24 × 24 pixels cannot be brought to"),
    ],
)
def test_nothing_to_make_an_image_of(patterns: np.ndarray, options: ReadOptions, match: str, tmp_path: Path) -> None:
    path = hdf5(tmp_path / "s.h5", patterns, x=X[: len(patterns)], y=Y[: len(patterns)])
    with pytest.raises(ScanError, match=match):
        read_scan(path, N, options)


def test_what_is_no_file_is_said_to_be_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, match in (
        (tmp_path, "is a folder; expected one file, the scan"),
        (tmp_path / "pipe", "is a pipe or a device"),
    ):
        with pytest.raises(OSError, match=match):
            read_scan(path, N)


def test_probe_that_an_fft_left_at_the_corner_is_not_used(tmp_path: Path) -> None:
    probe = np.fft.ifftshift(SHAPE).astype(np.complex64)
    with read_scan(hdf5(tmp_path / "s.h5", probeGuess=probe), N, GIVEN) as scan:
        assert scan.probe is None
        assert "the probe is not used: less than a tenth of its light is in its middle" in scan.warnings[0]


def test_probe_of_numbers_that_float32_cannot_square_is_not_used(tmp_path: Path) -> None:
    for factor in (1e-30, 1e30):
        path = hdf5(tmp_path / "s.h5", probeGuess=(SHAPE * factor).astype(np.complex64))
        with read_scan(path, N, GIVEN) as scan:
            assert scan.probe is None
            assert f"its numbers reach {factor:.0e}, beyond what float32 can square" in scan.warnings[0]


def test_pixel_of_a_product_that_is_text(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "product.h5", "w") as file:
        file["probe_position_x_m"], file["probe_position_y_m"], file["object"] = X, Y, np.ones((4, 4))
        file["object"].attrs["pixel_width_m"] = "1e-8"
    path = hdf5(tmp_path / "s.h5", x=None, y=None)
    with pytest.raises(ScanError, match=r"product\.h5: pixel_width_m: holds text"):
        read_scan(path, N, ReadOptions(positions_file=tmp_path / "product.h5"))


def test_gap_that_reads_zero_between_lit_pixels_is_masked_and_dark_regions_are_not(tmp_path: Path) -> None:
    gap = COUNTS.copy()
    gap[:, :, 15:17] = 0
    gap[:, GRID_Y + GRID_X < 20] = 0
    with read_scan(hdf5(tmp_path / "s.h5", gap.astype(np.uint16)), N, GIVEN) as scan:
        bad = np.argwhere(scan.detector.bad)
        assert set(bad[:, 1]) == {15, 16}
        assert 16 in bad[:, 0]
        assert "that read 0 in every pattern); filled from their neighbours" in scan.warnings[0]


def test_more_bad_pixels_than_good_ones_say_where_they_come_from(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "s.h5", np.where(SHAPE > 0.4, COUNTS, -5).astype(np.int32))
    with pytest.raises(
        ScanError, match=r"s\.h5: \d+ % of the pixels are bad \(\d+ that read -5 .*a background is taken off"
    ):
        read_scan(path, N, GIVEN)


class TestPositionsThatAreNotThere:
    def virtual(self, folder: Path) -> Path:
        """Return a scan whose x is joined of two files, of which one is gone."""

        def patterns(file: h5py.File) -> None:
            file["entry/data/data"] = STORED
            layout = h5py.VirtualLayout((COUNT,), "f8")
            for k, name in enumerate(("there.h5", "gone.h5")):
                layout[18 * k : 18 * k + 18] = h5py.VirtualSource(name, "x", (18,))
            file.create_virtual_dataset("x", layout)

        with h5py.File(folder / "there.h5", "w") as file:
            file["x"] = X[:18]
        return hdf5(folder / "s.h5", patterns, x=None)

    def preallocated(self, folder: Path) -> Path:
        """Return a scan whose x was written to half."""

        def patterns(file: h5py.File) -> None:
            file["entry/data/data"] = STORED
            file.create_dataset("x", (COUNT,), "f8", chunks=(1,))[:18] = X[:18]

        return hdf5(folder / "s.h5", patterns, x=None)

    @pytest.mark.parametrize("how", ["virtual", "preallocated"])
    def test_they_are_not_taken_for_zeros(self, how: str, tmp_path: Path) -> None:
        path = getattr(self, how)(tmp_path)
        with pytest.raises(ScanError, match=r"s\.h5: x is incomplete: .*give --incomplete to take what is there"):
            read_scan(path, N, GIVEN)
        with read_scan(path, N, replace(GIVEN, incomplete=True)) as scan:
            assert scan.positions_px == pytest.approx(XY[:18])
            assert scan.skipped == {"frames whose positions were never written": list(range(18, COUNT))}

    def test_first_ones_of_both_are_taken_where_that_is_asked_for(self, tmp_path: Path) -> None:
        path = hdf5(tmp_path / "s.h5", x=X[:-2], y=Y[:-2])
        with pytest.raises(
            ScanError, match=r"36 patterns and 34 positions; .* or --incomplete to take the first 34 of both"
        ):
            read_scan(path, N, GIVEN)
        with read_scan(path, N, replace(GIVEN, incomplete=True)) as scan:
            assert len(scan) == 34
            assert scan.skipped == {"patterns without a position": [34, 35]}

    def test_several_at_the_origin_are_named(self, tmp_path: Path) -> None:
        late = np.arange(COUNT) > 30
        path = hdf5(tmp_path / "s.h5", x=np.where(late, 0, X), y=np.where(late, 0, Y))
        with read_scan(path, N, GIVEN) as scan:
            assert scan.warnings[0].startswith(
                "5 frames lie at exactly 0, 0, as positions that were never written do: 31, 32"
            )


def test_virtual_dataset_that_may_grow(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("d", data=STORED, maxshape=(None, N, N), chunks=(1, N, N))

    def patterns(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((COUNT, N, N), "u2", maxshape=(None, N, N))
        source = h5py.VirtualSource("raw.h5", "d", (COUNT, N, N), maxshape=(None, N, N))
        layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
        file.create_virtual_dataset("entry/data/data", layout)

    with read_scan(hdf5(tmp_path / "s.h5", patterns), N, GIVEN) as scan:
        assert len(scan) == COUNT
