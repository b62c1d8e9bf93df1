"""Each layout is read; what it leaves open is an error that names the option."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptycho_runtime import ScanError
from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import read_scan
from ptycho_runtime.scan.scale import pattern_energy

h5py = pytest.importorskip("h5py")
N = 64
COUNTS = np.random.default_rng(5).poisson(20.0, (9, N, N))
X, Y = np.repeat(np.arange(3.0), 3) * 5 + 40, np.tile(np.arange(3.0), 3) * 5 + 40


def npz(path: Path, **arrays: Any) -> Path:
    whole = {
        "xcoords": X,
        "ycoords": Y,
        "diff3d": np.sqrt(COUNTS).astype(np.float32),
        "probeGuess": np.ones((N, N), np.complex64),
    }
    np.savez(path, **{k: v for k, v in {**whole, **arrays}.items() if v is not None})
    return path


def amplitudes(scan: Any) -> np.ndarray:
    return scan.patterns(np.arange(len(scan)), N, "amplitude")


class TestPtychoPINN:
    def test_amplitudes_are_recognised(self, tmp_path: Path) -> None:
        scan = read_scan(npz(tmp_path / "s.npz"), N)
        assert scan.domain == "amplitude"
        assert np.allclose(amplitudes(scan), np.sqrt(COUNTS), rtol=1e-6)
        assert scan.positions_px.tolist() == np.stack([X, Y], -1).tolist()
        assert scan.probe is not None
        assert scan.probe.shape == (1, N, N)

    def test_other_axis_order_is_recognised_by_the_number_of_positions(self, tmp_path: Path) -> None:
        moved = np.moveaxis(np.sqrt(COUNTS).astype(np.float32), 0, -1)
        scan = read_scan(npz(tmp_path / "s.npz", diff3d=moved), N)
        assert np.allclose(amplitudes(scan), np.sqrt(COUNTS), rtol=1e-6)

    def test_axis_order_that_two_readings_fit(self, tmp_path: Path) -> None:
        cube = np.sqrt(np.random.default_rng(1).poisson(9.0, (N, N, N))).astype(np.float32)
        path = npz(tmp_path / "s.npz", diff3d=cube, xcoords=np.arange(64.0), ycoords=np.arange(64.0))
        with pytest.raises(ScanError, match="--axis-order"):
            read_scan(path, N)
        scan = read_scan(path, N, ReadOptions(axis_order="hwn"))
        assert np.allclose(scan.patterns(np.array([3]), N, "amplitude")[0], cube[:, :, 3])

    def test_whole_numbers_where_amplitudes_are_expected(self, tmp_path: Path) -> None:
        path = npz(tmp_path / "s.npz", diff3d=COUNTS.astype(np.uint16))
        with pytest.raises(ScanError, match="--intensity"):
            read_scan(path, N)
        scan = read_scan(path, N, ReadOptions(domain="intensity"))
        assert np.allclose(amplitudes(scan), np.sqrt(COUNTS), rtol=1e-6)
        assert np.allclose(scan.patterns(np.arange(9), N, "counts"), COUNTS)

    def test_values_that_are_neither(self, tmp_path: Path) -> None:
        path = npz(tmp_path / "s.npz", diff3d=(np.sqrt(COUNTS) * 0.37).astype(np.float32))
        with pytest.raises(ScanError, match="--amplitude or --intensity"):
            read_scan(path, N)
        assert read_scan(path, N, ReadOptions(domain="amplitude")).domain == "amplitude"

    def test_indices_come_back_in_the_order_asked_for(self, tmp_path: Path) -> None:
        scan = read_scan(npz(tmp_path / "s.npz"), N)
        which = np.array([7, 2, 2, 0])
        assert np.allclose(scan.patterns(which, N, "amplitude"), np.sqrt(COUNTS)[which], rtol=1e-6)

    def test_uncompressed_patterns_stay_on_disk(self, tmp_path: Path) -> None:
        from ptycho_runtime.scan.layouts.frames import FramesOnDisk
        from ptycho_runtime.scan.layouts.open import open_raw

        assert isinstance(open_raw(npz(tmp_path / "s.npz"), ReadOptions()).data, FramesOnDisk)
        np.savez_compressed(tmp_path / "c.npz", diff3d=np.sqrt(COUNTS), xcoords=X, ycoords=Y)
        assert np.allclose(amplitudes(read_scan(tmp_path / "c.npz", N)), np.sqrt(COUNTS), rtol=1e-6)

    @given(st.sets(st.integers(0, 8), min_size=1))
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_frames_are_read_from_disk(self, tmp_path: Path, chosen: set[int]) -> None:
        from ptycho_runtime.scan.layouts.open import open_raw

        path = tmp_path / "s.npz"
        raw = open_raw(path if path.exists() else npz(path), ReadOptions())
        frames = np.array(sorted(chosen))
        assert np.array_equal(raw.read(frames), np.sqrt(COUNTS).astype(np.float32)[frames])


class TestBadScans:
    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"xcoords": X[:5], "ycoords": Y[:5]}, "patterns and 5 positions|fit two|not square"),
            ({"xcoords": None}, "--x-key and --y-key"),
            ({"diff3d": None}, "--patterns-key"),
            ({"xcoords": np.where(X > 45, np.nan, X)}, r"positions of frames 6, 7, 8 are NaN .* --exclude 6,7,8"),
            (
                {"diff3d": np.sqrt(np.where(COUNTS == 20, -1, COUNTS) + 0j).real.astype(np.float32) - 1},
                "--amplitude|negative",
            ),
            ({"diff3d": np.zeros((9, N, N), np.float32)}, "cannot be told|no usable pattern"),
        ],
    )
    def test_clear_errors(self, change: dict[str, Any], match: str, tmp_path: Path) -> None:
        with pytest.raises(ScanError, match=match):
            read_scan(npz(tmp_path / "s.npz", **change), N)

    @pytest.mark.parametrize(("value", "match"), [(np.nan, "frame 4 holds NaN"), (-1.0, "frame 4 holds negative")])
    def test_numbers_no_detector_gives(self, value: float, match: str, tmp_path: Path) -> None:
        bad = np.sqrt(COUNTS).astype(np.float32)
        bad[4, 10, 10] = value
        with pytest.raises(ScanError, match=match):
            read_scan(npz(tmp_path / "s.npz", diff3d=bad), N, ReadOptions(domain="amplitude"))

    @pytest.mark.parametrize("stored", ["amplitude", "intensity"])
    @pytest.mark.parametrize("size", [N, 2 * N])
    @pytest.mark.parametrize("fed", ["amplitude", "counts"])
    def test_energy_is_that_of_the_patterns_to_the_last_bit(
        self, stored: str, size: int, fed: str, tmp_path: Path
    ) -> None:
        counts = np.random.default_rng(0).poisson(5.0, (9, size, size))
        counts[[2, 6]] = 0
        data = np.sqrt(counts).astype(np.float32) if stored == "amplitude" else counts.astype(np.uint16)
        options = ReadOptions(domain=stored, fit="bin" if size > N else None)  # type: ignore[arg-type]
        scan = read_scan(npz(tmp_path / "s.npz", diff3d=data), N, options)
        for part in (scan, scan.subset(np.array([3, 4]))):
            patterns = part.patterns(np.arange(len(part)), N, fed)
            assert np.array_equal(part.energy(N, fed), pattern_energy(patterns))

    def test_scan_is_not_read_again_for_the_scale(self, tmp_path: Path) -> None:
        scan = read_scan(npz(tmp_path / "s.npz"), N)

        def read(frames: np.ndarray) -> np.ndarray:
            raise AssertionError("read again")

        assert len(dataclasses.replace(scan, read=read).energy(N, "amplitude")) == 9

    def test_dead_frames_are_left_out_and_listed(self, tmp_path: Path) -> None:
        data = np.sqrt(COUNTS).astype(np.float32)
        data[[2, 6]] = 0
        scan = read_scan(npz(tmp_path / "s.npz", diff3d=data), N)
        assert scan.skipped == {"dead frames (all zero)": [2, 6]}
        assert len(scan) == 7
        assert scan.frames.tolist() == [0, 1, 3, 4, 5, 7, 8]

    @pytest.mark.parametrize("fit", ["crop", "bin"])
    def test_larger_patterns_need_a_word(self, fit: str, tmp_path: Path) -> None:
        counts = np.random.default_rng(0).poisson(5.0, (9, 128, 128))
        path = npz(tmp_path / "s.npz", diff3d=np.sqrt(counts).astype(np.float32))
        with pytest.raises(ScanError, match=r"128 × 128 pixels, the model takes 64 × 64; give --crop, --pad or --bin"):
            read_scan(path, N)
        found = read_scan(path, N, ReadOptions(fit=fit)).patterns(np.arange(9), N, "counts")
        expected = counts[:, 32:96, 32:96] if fit == "crop" else counts.reshape(9, 64, 2, 64, 2).sum((2, 4))
        assert np.allclose(found, expected, rtol=1e-5)

    def test_smaller_patterns_are_padded_around_the_zero_frequency(self, tmp_path: Path) -> None:
        counts = np.random.default_rng(0).poisson(5.0, (9, 32, 32))
        path = npz(tmp_path / "s.npz", diff3d=np.sqrt(counts).astype(np.float32))
        found = read_scan(path, N, ReadOptions(fit="pad")).patterns(np.arange(9), N, "counts")
        assert np.allclose(found[:, 16:48, 16:48], counts, rtol=1e-5)
        assert found.sum() == pytest.approx(counts.sum(), rel=1e-5)

    def test_file_of_no_known_kind(self, tmp_path: Path) -> None:
        (tmp_path / "s.txt").write_text("1 2 3")
        with pytest.raises(ScanError, match="neither NPZ nor HDF5"):
            read_scan(tmp_path / "s.txt", N)
        with pytest.raises(FileNotFoundError):
            read_scan(tmp_path / "none.npz", N)

    def test_pickled_arrays_are_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "s.npz", diff3d=np.array([{"a": 1}], dtype=object), xcoords=X, ycoords=Y)
        with pytest.raises(ScanError):
            read_scan(tmp_path / "s.npz", N)


class TestPtychodus:
    def product(self, path: Path, indexes: np.ndarray) -> Path:
        with h5py.File(path, "w") as file:
            file.attrs["name"] = "p"
            file["probe_position_indexes"] = indexes
            file["probe_position_x_m"] = (np.arange(len(indexes)) + 1.0) * 2e-8
            file["probe_position_y_m"] = (np.arange(len(indexes)) + 2.0) * 2e-8
            file["probe"] = np.ones((1, 2, N, N), np.complex64)
            file["object"] = np.ones((1, 100, 100), np.complex64)
            file["object"].attrs["pixel_width_m"] = 1e-8
        return path

    def test_positions_are_matched_by_frame_number(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", patterns=COUNTS.astype(np.uint16), indexes=np.arange(9) + 100)
        product = self.product(tmp_path / "p.h5", np.array([101, 103, 150]))
        scan = read_scan(tmp_path / "d.npz", N, ReadOptions(positions_file=product))
        assert scan.frames.tolist() == [101, 103]
        assert scan.skipped == {
            "positions without a pattern": [150],
            "patterns without a position": [100, 102, 104, 105, 106, 107, 108],
        }
        assert scan.positions_px[:, 0] == pytest.approx([2.0, 4.0])
        assert np.allclose(scan.patterns(np.array([0]), N, "counts")[0], COUNTS[1])
        assert scan.probe is not None
        assert scan.probe.shape == (2, N, N)

    def test_repeated_frame_numbers(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", patterns=COUNTS.astype(np.uint16))
        product = self.product(tmp_path / "p.h5", np.zeros(9, int))
        with pytest.raises(ScanError, match="repeats numbers"):
            read_scan(tmp_path / "d.npz", N, ReadOptions(positions_file=product))


class TestHDF5:
    def cxi(self, path: Path) -> Path:
        with h5py.File(path, "w") as file:
            file["entry_1/data_1/data"] = COUNTS.astype(np.int32)
            file["entry_1/data_1/translation"] = np.stack([X, Y, X * 0], -1) * 1e-8
            detector = file.create_group("entry_1/instrument_1/detector_1")
            detector["distance"], detector["x_pixel_size"] = 2.0, 75e-6
            file["entry_1/instrument_1/source_1/energy"] = 1.5e-15
        return path

    def test_cxi_needs_to_know_whose_motion_it_is(self, tmp_path: Path) -> None:
        with pytest.raises(ScanError, match="--positions-of"):
            read_scan(self.cxi(tmp_path / "s.cxi"), N)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_cxi(self, sign: int, tmp_path: Path) -> None:
        scan = read_scan(self.cxi(tmp_path / "s.cxi"), N, ReadOptions(position_sign=sign))
        wavelength = 6.62607015e-34 * 299792458.0 / 1.5e-15
        pixel = wavelength * 2.0 / (N * 75e-6)
        assert scan.pixel_size_m == pytest.approx(pixel)
        assert scan.positions_px[:, 0] == pytest.approx(sign * X * 1e-8 / pixel)
        assert scan.domain == "intensity"
        assert np.allclose(scan.patterns(np.arange(9), N, "counts"), COUNTS)

    def test_ptychovit_layout(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "s.hdf5", "w") as file:
            file["dp"] = COUNTS.astype(np.float32)
            file["points"] = np.stack([X, Y])
        options = ReadOptions(position_sign=1, pixel_size_m=1e-7)
        assert read_scan(tmp_path / "s.hdf5", N, options).positions_px[:, 1] == pytest.approx(Y * 10)
        with pytest.raises(ScanError, match="--pixel-size-m"):
            read_scan(tmp_path / "s.hdf5", N, ReadOptions(position_sign=1))

    def test_other_names_can_be_given(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "s.h5", "w") as file:
            file["a/frames"], file["a/mx"], file["a/my"] = COUNTS, X, Y
        with pytest.raises(ScanError, match="--patterns-key"):
            read_scan(tmp_path / "s.h5", N)
        options = ReadOptions(
            patterns_key="/a/frames", x_key="/a/mx", y_key="/a/my", position_unit="px", position_sign=-1
        )
        assert read_scan(tmp_path / "s.h5", N, options).positions_px[0].tolist() == [-X[0], -Y[0]]

    def test_two_sets_of_patterns(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "s.h5", "w") as file:
            file["dp"], file["entry/data/data"] = COUNTS, COUNTS
        with pytest.raises(ScanError, match="several sets of patterns"):
            read_scan(tmp_path / "s.h5", N)
