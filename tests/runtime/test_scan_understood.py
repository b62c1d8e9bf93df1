"""A scan is understood rightly, or refused with the option that settles it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_scans import COUNT, COUNTS, GIVEN, STORED, N, X, Y, cxi, hdf5

from ptycho_runtime import ScanError
from ptycho_runtime.errors import PackageMissingError
from ptycho_runtime.scan.geometry import check_positions
from ptycho_runtime.scan.grouping import grouped
from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import read_scan
from ptycho_runtime.scan.scan import Scan

h5py = pytest.importorskip("h5py")


def scan_in_python(read: Any = None, **change: Any) -> Scan:
    data = np.sqrt(COUNTS).astype(np.float32)
    values: dict[str, Any] = {
        "name": "python",
        "read": read or (lambda rows: data[rows]),
        "frames": np.arange(COUNT),
        "positions_px": np.stack([X, Y], -1),
        "size_px": N,
        "domain": "amplitude",
    }
    return Scan(**(values | change))


class TestGeometry:
    BEAM = ReadOptions(position_sign=1)

    def test_cropping_leaves_what_the_cropped_grid_has(self, tmp_path: Path) -> None:
        whole = read_scan(cxi(tmp_path / "a.cxi"), N, self.BEAM)
        large = np.zeros((COUNT, 48, 48), np.uint16)
        large[:, 8:40, 8:40] = COUNTS
        cropped = read_scan(cxi(tmp_path / "b.cxi", large), N, ReadOptions(position_sign=1, fit="crop"))
        assert cropped.pixel_size_m == pytest.approx(whole.pixel_size_m)
        assert cropped.positions_px == pytest.approx(whole.positions_px)
        assert np.array_equal(cropped.patterns(np.arange(3), N, "counts"), COUNTS[:3])

    def test_binning_keeps_the_recorded_pixel(self, tmp_path: Path) -> None:
        path = cxi(tmp_path / "s.cxi", np.repeat(np.repeat(COUNTS, 2, 1), 2, 2).astype(np.uint16))
        recorded = read_scan(path, 2 * N, self.BEAM)
        binned = read_scan(path, N, ReadOptions(position_sign=1, fit="bin"))
        assert binned.pixel_size_m == pytest.approx(recorded.pixel_size_m)

    @pytest.mark.parametrize(("fit", "factor"), [("crop", 0.5), ("bin", 1.0)])
    def test_pixels_of_positions_are_the_recorded_grids(self, fit: Any, factor: float, tmp_path: Path) -> None:
        large = np.zeros((COUNT, 2 * N, 2 * N), np.uint16)
        large[:, 16:48, 16:48] = COUNTS
        options = ReadOptions(x_key="x", y_key="y", position_unit="px", position_sign=1, fit=fit)
        scan = read_scan(hdf5(tmp_path / "s.h5", large), N, options)
        assert scan.positions_px[:, 0] == pytest.approx(factor * X)

    def test_each_axis_has_its_own_pixel(self, tmp_path: Path) -> None:
        scan = read_scan(cxi(tmp_path / "s.cxi", **{"instrument_1/detector_1/y_pixel_size": 150e-6}), N, self.BEAM)
        assert scan.pixel_size_m == pytest.approx(2 * scan.pixel_height_m)
        assert np.ptp(scan.positions_px, axis=0)[1] == pytest.approx(2 * np.ptp(scan.positions_px, axis=0)[0])

    @pytest.mark.parametrize("rows", [1, -1])
    @pytest.mark.parametrize("columns", [1, -1])
    def test_axes_of_the_detector(self, rows: int, columns: int, tmp_path: Path) -> None:
        basis = np.array([[0, columns * 75e-6], [rows * 75e-6, 0], [0, 0]])
        scan = read_scan(cxi(tmp_path / "s.cxi", **{"instrument_1/detector_1/basis_vectors": basis}), N, self.BEAM)
        assert np.sign(np.diff(scan.positions_px, axis=0)[0]).tolist() == [columns, 0]
        assert np.sign(scan.positions_px[6, 1] - scan.positions_px[0, 1]) == rows

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"instrument_1/source_1/energy": 8.8}, "photon energy of 5.4"),
            ({"instrument_1/detector_1/x_pixel_size": 75.0}, r"x_pixel_size\) of 75 m"),
            ({"instrument_1/detector_1/distance": 0.0}, "distance of 0 m"),
        ],
    )
    def test_numbers_that_no_beamline_has(self, change: dict[str, Any], match: str, tmp_path: Path) -> None:
        with pytest.raises(ScanError, match=match):
            read_scan(cxi(tmp_path / "s.cxi", **change), N, self.BEAM)

    def test_units_are_understood(self, tmp_path: Path) -> None:
        path = cxi(tmp_path / "s.cxi")
        with read_scan(path, N, self.BEAM) as scan:
            expected = scan.positions_px
        with h5py.File(path, "r+") as file:
            entry = file["entry_1"]
            for name, factor, unit in (
                ("instrument_1/detector_1/distance", 1e3, "mm"),
                ("instrument_1/detector_1/x_pixel_size", 1e6, "um"),
                ("data_1/translation", 1e9, "nm"),
            ):
                entry[name][...] = entry[name][()] * factor
                entry[name].attrs["units"] = unit
            entry["instrument_1/source_1/energy"][...] = 8.8
            entry["instrument_1/source_1/energy"].attrs["units"] = "keV"
        assert read_scan(path, N, self.BEAM).positions_px == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("positions", "match"),
        [
            (np.stack([X, Y], -1) * 1e-9, "less than one; .*--position-unit"),
            (np.stack([X, Y], -1) * 1e4, "--position-unit"),
            (np.full((COUNT, 2), 5.0), "all 36 positions are equal"),
        ],
    )
    def test_positions_in_another_unit(self, positions: np.ndarray, match: str) -> None:
        with pytest.raises(ScanError, match=match):
            check_positions(positions, np.arange(COUNT), N, "scan")

    def test_position_astray_is_named(self) -> None:
        positions = np.stack([X, Y], -1)
        positions[17, 0] = 2e5
        with pytest.raises(ScanError, match=r"frames 117 .* --exclude 117"):
            check_positions(positions, np.arange(COUNT) + 100, N, "scan")


class TestHdf5:
    def test_all_open_questions_are_one_error(self, tmp_path: Path) -> None:
        patterns = np.sqrt(COUNTS) * 0.37
        path = hdf5(tmp_path / "s.h5", np.pad(patterns, ((0, 0), (8, 8), (8, 8))))
        with pytest.raises(ScanError) as error:
            read_scan(path, N, ReadOptions(x_key="x", y_key="y"))
        for option in ("--amplitude", "--position-unit", "--positions-of", "--crop"):
            assert option in str(error.value)

    def test_link_beside_the_scan_works_and_elsewhere_is_refused(self, tmp_path: Path) -> None:
        folder = tmp_path / "scan"
        folder.mkdir()
        for place in (folder, tmp_path):
            with h5py.File(place / "motors.h5", "w") as file:
                file["x"] = X
        beside = hdf5(folder / "a.h5", x=h5py.ExternalLink("motors.h5", "/x"))
        assert read_scan(beside, N, GIVEN).positions_px[:, 0] == pytest.approx(X)
        outside = hdf5(folder / "b.h5", x=h5py.ExternalLink("../motors.h5", "/x"))
        with pytest.raises(ScanError, match=r"outside the scan's folder; give --follow-links"):
            read_scan(outside, N, GIVEN)
        options = ReadOptions(x_key="x", y_key="y", position_unit="px", position_sign=1, follow_links=True)
        assert len(read_scan(outside, N, options)) == COUNT

    def test_storage_elsewhere_is_never_read(self, tmp_path: Path) -> None:
        (tmp_path / "raw").write_bytes(X.tobytes())

        def patterns(file: Any) -> None:
            file["entry/data/data"] = COUNTS.astype(np.uint16)
            file.create_dataset("outside", (COUNT,), "f8", external=[(str(tmp_path / "raw"), 0, 8 * COUNT)])

        path = hdf5(tmp_path / "s.h5", patterns)
        options = ReadOptions(x_key="outside", y_key="y", position_unit="px", position_sign=1, follow_links=True)
        with pytest.raises(ScanError, match="external storage"):
            read_scan(path, N, options)

    def test_frames_that_nobody_wrote(self, tmp_path: Path) -> None:
        def patterns(file: Any) -> None:
            data = file.create_dataset("entry/data/data", COUNTS.shape, "u2", chunks=(1, N, N))
            data[:20] = COUNTS[:20]

        path = hdf5(tmp_path / "s.h5", patterns)
        with pytest.raises(ScanError, match="is incomplete: 16 of 36 frames were never written"):
            read_scan(path, N, GIVEN)
        options = ReadOptions(x_key="x", y_key="y", position_unit="px", position_sign=1, incomplete=True)
        scan = read_scan(path, N, options)
        assert scan.frames.tolist() == list(range(20))
        assert scan.skipped["frames that were never written"] == list(range(20, 36))

    def test_virtual_dataset_without_its_source(self, tmp_path: Path) -> None:
        hdf5(tmp_path / "part.h5", COUNTS[:20].astype(np.uint16))

        def patterns(file: Any) -> None:
            layout = h5py.VirtualLayout(COUNTS.shape, "u2")
            for name, rows in (("part.h5", slice(0, 20)), ("gone.h5", slice(20, 36))):
                layout[rows] = h5py.VirtualSource(name, "entry/data/data", (rows.stop - rows.start, N, N))
            file.create_virtual_dataset("entry/data/data", layout)

        with pytest.raises(ScanError, match="is incomplete: 16 of 36"):
            read_scan(hdf5(tmp_path / "s.h5", patterns), N, GIVEN)

    def test_parts_of_an_eiger_master_are_joined(self, tmp_path: Path) -> None:
        for part, rows in ((1, slice(0, 10)), (2, slice(10, 36))):
            hdf5(tmp_path / f"part{part}.h5", COUNTS[rows].astype(np.uint32))

        def master(file: Any, parts: tuple[int, ...] = (1, 2)) -> None:
            for part in parts:
                file[f"entry/data/data_{part:06d}"] = h5py.ExternalLink(f"part{part}.h5", "/entry/data/data")

        scan = read_scan(hdf5(tmp_path / "s.h5", master), N, GIVEN)
        assert np.array_equal(scan.patterns(np.array([9, 10, 35]), N, "counts"), COUNTS[[9, 10, 35]])
        path = hdf5(tmp_path / "t.h5", lambda file: master(file, (1, 3)))
        with pytest.raises(ScanError, match="incomplete: data_000002 is not among its parts"):
            read_scan(path, N, GIVEN)

    def test_damaged_chunk_names_its_frame(self, tmp_path: Path) -> None:
        def patterns(file: Any) -> None:
            data = COUNTS.astype(np.uint16)
            file.create_dataset("entry/data/data", data=data, chunks=(1, N, N), fletcher32=True)

        path = hdf5(tmp_path / "s.h5", patterns)
        with h5py.File(path) as file:
            start = file["entry/data/data"].id.get_chunk_info(30).byte_offset
        content = bytearray(path.read_bytes())
        content[start + 9] ^= 0xFF
        path.write_bytes(content)
        options = ReadOptions(x_key="x", y_key="y", position_unit="px", position_sign=1)
        with pytest.raises(ScanError, match=r"frame 30 cannot be read.*--exclude 30"):
            read_scan(path, N, options)

    def test_filter_that_is_not_installed_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def patterns(file: Any) -> None:
            settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            settings.set_chunk((1, N, N))
            settings.set_filter(32008, h5py.h5z.FLAG_OPTIONAL, (0, 2))
            space = h5py.h5s.create_simple(COUNTS.shape)
            group = file.require_group("entry/data")
            h5py.h5d.create(group.id, b"data", h5py.h5t.py_create(np.dtype("<u4")), space, settings)

        path = hdf5(tmp_path / "s.h5", patterns)
        available = h5py.h5z.filter_avail
        monkeypatch.setattr(h5py.h5z, "filter_avail", lambda number: number < 32000 and available(number))
        with pytest.raises(PackageMissingError, match=r"bitshuffle, which the package hdf5plugin reads.*compression"):
            read_scan(path, N, GIVEN)

    def test_one_array_of_positions(self, tmp_path: Path) -> None:
        path = hdf5(tmp_path / "s.h5", xy=np.stack([X, Y], 1))
        options = ReadOptions(x_key="xy", y_key="xy", position_unit="px", position_sign=1)
        assert read_scan(path, N, options).positions_px == pytest.approx(np.stack([X, Y], 1))

    def test_mask_of_nexus_is_applied_and_said(self, tmp_path: Path) -> None:
        counts = COUNTS.astype(np.uint32)
        counts[:, 5] = 2**32 - 1
        mask = np.zeros((N, N), np.uint32)
        mask[5] = 1
        scan = read_scan(hdf5(tmp_path / "s.h5", counts, **{"entry/instrument/detector/pixel_mask": mask}), N, GIVEN)
        assert scan.warnings == ["masked 32 bad pixels of 1024 (32 by the file's mask); filled from their neighbours"]
        assert scan.patterns(np.arange(COUNT), N, "counts").max() <= COUNTS.max()


class TestFrames:
    def test_excluded_frames_are_left_out_by_their_own_numbers(self, tmp_path: Path) -> None:
        options = ReadOptions(
            x_key="x", y_key="y", position_unit="px", position_sign=1, exclude=(103, 110), rows=(0, 20), every=2
        )
        scan = read_scan(hdf5(tmp_path / "s.h5", indexes=np.arange(COUNT) + 100), N, options)
        assert scan.frames.tolist() == [100, 102, 105, 107, 109, 112, 114, 116, 118, 120]
        assert np.array_equal(scan.patterns(np.array([2]), N, "counts")[0], COUNTS[5])

    def test_excluded_frame_that_is_not_there(self, tmp_path: Path) -> None:
        options = ReadOptions(x_key="x", y_key="y", position_unit="px", position_sign=1, exclude=(36,))
        with pytest.raises(ScanError, match="has no frame 36 to leave out; its frames are 0 to 35"):
            read_scan(hdf5(tmp_path / "s.h5"), N, options)

    def test_bright_frame_is_named(self, tmp_path: Path) -> None:
        counts = COUNTS.copy()
        counts[7] *= 1000
        warnings = read_scan(hdf5(tmp_path / "s.h5", counts.astype(np.uint32)), N, GIVEN).warnings
        assert warnings[0].startswith(
            "frames 7 are up to 1e+03 times brighter and alone move input_scale_factor by up to"
        )
        assert warnings[0].endswith("leave them out with --exclude 7")

    def test_hot_pixel_is_named(self, tmp_path: Path) -> None:
        counts = COUNTS.copy()
        counts[9, 3, 3] = 2**30
        warnings = read_scan(hdf5(tmp_path / "s.h5", counts.astype(np.uint32)), N, GIVEN).warnings
        assert warnings[0].startswith("frames 9 have a hot pixel that alone move input_scale_factor by up to")
        assert len(warnings) == 1

    def test_pixel_that_is_hot_in_every_frame_is_named(self, tmp_path: Path) -> None:
        counts = COUNTS.copy()
        counts[:, 4, 25] = 10**7 + np.arange(COUNT)
        warnings = read_scan(hdf5(tmp_path / "s.h5", counts.astype(np.uint32)), N, GIVEN).warnings
        assert warnings == ["1 hot pixels in most patterns, at 4,25; mask them with --mask"]

    def test_loner_is_left_out_of_groups(self) -> None:
        positions = np.stack([X, Y], -1)
        positions[4] = 150.0
        scan, groups = grouped(scan_in_python(positions_px=positions), 4, within_px=N)
        assert scan.skipped == {"fewer than 3 others within 32 px": [4]}
        assert groups.shape == (COUNT - 1, 4)
        assert groups.max() == COUNT - 2

    def test_whole_scan_of_loners(self) -> None:
        with pytest.raises(ScanError, match="36 of 36 patterns have fewer than 3 others within 2 pixels"):
            grouped(scan_in_python(), 4, within_px=2)


class TestScanInPython:
    def test_nan_is_refused_as_from_a_file(self) -> None:
        data = np.sqrt(COUNTS).astype(np.float32)
        data[11, 3, 3] = np.nan
        with pytest.raises(ScanError, match="frame 11 holds NaN"):
            scan_in_python(lambda rows: data[rows])

    def test_dead_frames_are_left_out(self) -> None:
        data = np.sqrt(COUNTS).astype(np.float32)
        data[5] = 0
        scan = scan_in_python(lambda rows: data[rows])
        assert scan.skipped == {"dead frames (all zero)": [5]}
        assert len(scan) == COUNT - 1

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"positions_px": np.zeros((COUNT, 2))}, "all 36 positions are equal"),
            ({"positions_px": np.full((COUNT, 2), np.nan)}, "not finite"),
            ({"positions_px": np.zeros((3, 2))}, "36 patterns, positions of shape"),
            ({"read": lambda rows: np.zeros((len(rows), N, N), bool)}, "booleans"),
            ({"read": lambda rows: np.roll(np.sqrt(COUNTS[rows]), 3, 2)}, "zero frequency"),
            ({"read": lambda rows: np.sqrt(COUNTS[:3])}, "patterns of 36 rows have shape"),
            ({"domain": "counts"}, "its domain is 'counts'; expected amplitude or intensity"),
            ({"frames": np.r_[0, : COUNT - 1], "rows": np.arange(COUNT)}, "frames repeat numbers"),
            ({"frames": np.arange(COUNT) + 0.5}, "frames: are no whole numbers"),
            ({"pixel_size_m": -1e-8}, "a pixel of the image of -1e-08 m is not plausible"),
            ({"pixel_size_m": float("nan")}, "a pixel of the image of nan m"),
        ],
    )
    def test_what_a_file_may_not_hold(self, change: dict[str, Any], match: str) -> None:
        with pytest.raises(ScanError, match=match):
            scan_in_python(**change)

    @pytest.mark.parametrize(
        "probe",
        [np.full((1, N, N), np.nan, np.complex64), np.ones((N, N), complex), np.ones((1, 2 * N, 2 * N), complex)],
    )
    def test_probe_that_cannot_be_used_is_said(self, probe: np.ndarray) -> None:
        scan = scan_in_python(probe=probe)
        assert scan.probe is None
        assert any(line.startswith("the probe is not used") for line in scan.warnings)

    def test_without_leaves_frames_out_of_the_scale(self) -> None:
        scan = scan_in_python().without([3, 4], "flagged")
        assert scan.skipped == {"flagged": [3, 4]}
        assert len(scan.energy(N, "amplitude")) == COUNT - 2


class TestOurOwnProducts:
    def product(self, path: Path, pixel_m: float) -> Path:
        with h5py.File(path, "w") as file:
            file["probe_position_indexes"] = np.arange(COUNT) + 100
            for axis, values in (("x", X), ("y", Y)):
                file[f"probe_position_{axis}_m"] = values * pixel_m
                file[f"probe_position_{axis}_px"] = values
            file["object"] = np.ones((1, 40, 40), np.complex64)
            for name in ("pixel_width_m", "pixel_height_m"):
                file["object"].attrs[name] = pixel_m
        return path

    @pytest.mark.parametrize(("pixel_m", "known"), [(2e-8, 2e-8), (np.nan, 0.0)])
    def test_positions_come_back_in_pixels_of_the_image(self, pixel_m: float, known: float, tmp_path: Path) -> None:
        patterns = np.pad(STORED, ((0, 0), (8, 8), (8, 8)))
        np.savez(tmp_path / "d.npz", patterns=patterns, indexes=np.arange(COUNT) + 100)
        options = ReadOptions(positions_file=self.product(tmp_path / "p.h5", pixel_m), fit="crop")
        with read_scan(tmp_path / "d.npz", N, options) as scan:
            assert scan.positions_px == pytest.approx(np.stack([X, Y], -1))
            assert scan.frames.tolist() == list(range(100, 100 + COUNT))
            assert scan.pixel_size_m == known


class TestStillBeingWritten:
    WRITER = """
import os, sys, h5py, numpy as np
patterns = np.load(sys.argv[2])
file = h5py.File(sys.argv[1], "w", libver="latest")
data = file.create_dataset("entry/data/data", patterns.shape, "u2", chunks=(1, *patterns.shape[1:]))
file["x"], file["y"] = np.load(sys.argv[3])
file.swmr_mode = True
data[:20] = patterns[:20]
data.flush()
os._exit(0)
"""

    def test_says_so_and_gives_what_is_there_when_asked(self, tmp_path: Path) -> None:
        np.save(tmp_path / "patterns.npy", STORED)
        np.save(tmp_path / "xy.npy", np.stack([X, Y]))
        path = tmp_path / "s.h5"
        names = [str(tmp_path / name) for name in ("s.h5", "patterns.npy", "xy.npy")]
        subprocess.run([sys.executable, "-c", self.WRITER, *names], check=True, timeout=60)
        with pytest.raises(ScanError, match=r"still being written \(SWMR\).*--incomplete"):
            read_scan(path, N, GIVEN)
        with read_scan(path, N, replace(GIVEN, incomplete=True)) as scan:
            assert scan.frames.tolist() == list(range(20))


class TestGuessesThatAreNotMade:
    def test_probe_whose_modes_come_last_is_not_used(self, tmp_path: Path) -> None:
        probe = np.ones((N, N, 2), np.complex64)
        scan = read_scan(hdf5(tmp_path / "s.h5", probeGuess=probe), N, GIVEN)
        assert scan.probe is None
        assert "the modes last?" in scan.warnings[0]

    def test_probe_of_real_numbers_is_not_used(self, tmp_path: Path) -> None:
        scan = read_scan(hdf5(tmp_path / "s.h5", probeGuess=np.ones((2, N, N))), N, GIVEN)
        assert scan.probe is None
        assert scan.warnings[0].startswith("the probe is not used: it holds float64 numbers of shape (2, 32, 32)")

    def test_probe_goes_the_way_of_the_patterns(self, tmp_path: Path) -> None:
        side = 2 * N
        y, x = np.mgrid[:side, :side] - side // 2
        probe = np.exp(-(x**2 + y**2) / 200).astype(np.complex64)
        patterns = np.pad(STORED, ((0, 0), (16, 16), (16, 16)))
        scan = read_scan(hdf5(tmp_path / "s.h5", patterns, probeGuess=probe), N, replace(GIVEN, fit="crop"))
        assert scan.probe is not None
        assert np.abs(scan.probe[0] - probe[::2, ::2]).max() < 1e-3

    @pytest.mark.parametrize("values", [STORED > 5, STORED + 0j, STORED.astype(object)])
    def test_patterns_that_are_no_numbers(self, values: np.ndarray, tmp_path: Path) -> None:
        path = tmp_path / "s.npz"
        np.savez(path, diff3d=values, xcoords=X, ycoords=Y)
        with pytest.raises(ScanError, match=r"booleans|complex|pickled"):
            read_scan(path, N)

    def test_energy_that_varies(self, tmp_path: Path) -> None:
        energies = np.linspace(1.0, 1.2, COUNT) * 1.4e-15
        with pytest.raises(ScanError, match=r"energy: varies from 1\.4e-15 to 1\.68e-15"):
            read_scan(cxi(tmp_path / "s.cxi", **{"instrument_1/source_1/energy": energies}), N)

    def test_patterns_far_apart_unless_the_unit_is_said(self, tmp_path: Path) -> None:
        path = tmp_path / "s.npz"
        np.savez(path, diff3d=np.sqrt(STORED), xcoords=3 * X, ycoords=3 * Y)
        with pytest.raises(ScanError, match=r"middles of patches do not meet.*--position-unit"):
            read_scan(path, N)
        assert len(read_scan(path, N, ReadOptions(position_unit="px"))) == COUNT
