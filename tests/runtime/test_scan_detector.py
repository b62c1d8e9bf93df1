"""Bad pixels, cropping and the zero frequency."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_runtime import ScanError
from ptycho_runtime.scan.detector import Detector, always_marked
from ptycho_runtime.scan.look import check_centre, mean_centre

N = 32


def blob(rows: int, columns: int, row: float, column: float) -> np.ndarray:
    y, x = np.mgrid[:rows, :columns]
    return (1000 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 50)).astype(np.float32)


class TestMasks:
    def test_bad_pixels_are_filled_from_their_neighbours(self) -> None:
        smooth = blob(N, N, 16, 16)[None]
        spoilt = smooth.copy()
        bad = np.zeros((N, N), bool)
        bad[20:22], bad[5, 5] = True, True
        spoilt[:, bad] = 4e9
        filled = Detector((N, N), bad=bad).filled(spoilt, "intensity")
        assert np.array_equal(filled[:, ~bad], smooth[:, ~bad])
        assert np.abs(filled - smooth).max() < 0.12 * smooth.max()

    @pytest.mark.parametrize(
        ("dtype", "mark"), [("uint8", 255), ("uint16", 65535), ("uint32", 2**32 - 1), ("int32", -1), ("int16", -2)]
    )
    def test_marks_of_integer_types(self, dtype: str, mark: int) -> None:
        patterns = np.random.default_rng(0).integers(0, 50, (20, 8, 8)).astype(dtype)
        patterns[:, 3, 4] = mark
        patterns[:10, 6, 6] = mark
        assert np.argwhere(always_marked(patterns)).tolist() == [[3, 4]]

    def test_marks_of_floats(self) -> None:
        patterns = np.ones((5, 4, 4))
        patterns[:, 0, 0], patterns[:, 1, 1], patterns[:, 2, 2] = np.nan, -1, 2.0**32
        assert np.argwhere(always_marked(patterns)).tolist() == [[0, 0], [1, 1], [2, 2]]

    def test_mask_that_is_inverted(self) -> None:
        with pytest.raises(ScanError, match="marks 100 % of the pixels as bad"):
            Detector((N, N), bad=np.ones((N, N), bool))

    def test_overflow_of_one_frame_is_filled(self) -> None:
        patterns = np.full((3, N, N), 100, np.uint32)
        patterns[1, 7, 7] = 2**32 - 1
        assert Detector((N, N)).filled(patterns, "intensity")[1, 7, 7] == pytest.approx(100)


class TestFit:
    def test_rectangle_is_cropped_around_the_zero_frequency(self) -> None:
        patterns = blob(48, 80, 20, 45)[None]
        cut = Detector((48, 80), "crop", (20, 45)).fitted(patterns, N)[0]
        assert np.unravel_index(cut.argmax(), cut.shape) == (N // 2, N // 2)
        assert np.array_equal(cut, patterns[0, 4:36, 29:61])

    def test_centre_of_patterns_that_are_of_the_models_size(self) -> None:
        moved = Detector((N, N), None, (14, 19)).fitted(blob(N, N, 14, 19)[None], N)[0]
        assert np.unravel_index(moved.argmax(), moved.shape) == (N // 2, N // 2)

    def test_patterns_that_an_fft_left_are_turned_round(self) -> None:
        straight = blob(N, N, 16, 16)[None]
        assert np.array_equal(Detector((N, N), None, (0, 0)).fitted(np.fft.ifftshift(straight, (1, 2)), N), straight)

    def test_what_cannot_be_brought_to_the_size(self) -> None:
        with pytest.raises(ScanError, match="100 × 100 pixels cannot be brought to 32 × 32 by bin"):
            Detector((100, 100), "bin").fitted(np.ones((1, 100, 100)), N)


class TestZeroFrequency:
    @pytest.mark.parametrize("at", [(16, 16), (15, 16), (16, 20), (9, 22), (0, 0)])
    def test_is_found(self, at: tuple[int, int]) -> None:
        pattern = np.roll(blob(N, N, 16, 16), (at[0] - 16, at[1] - 16), (0, 1))
        centre = mean_centre(np.sqrt(pattern)[None] + 0.1)
        assert ((centre.row - at[0] + 8) % N, (centre.column - at[1] + 8) % N) == pytest.approx((8, 8), abs=0.05)

    @pytest.mark.parametrize(("moved", "match"), [((1, 0), "row 17.0, column 16.0"), ((16, 16), "at the corner")])
    def test_elsewhere_is_refused(self, moved: tuple[int, int], match: str) -> None:
        centre = mean_centre(np.sqrt(np.roll(blob(N, N, 16, 16), moved, (0, 1)))[None])
        with pytest.raises(ScanError, match=match):
            check_centre(centre, Detector((N, N)), "scan")

    def test_noise_has_none(self) -> None:
        centre = mean_centre(np.random.default_rng(0).poisson(20, (9, N, N)).astype(float))
        assert not centre.distinct

    def test_one_hot_pixel_does_not_move_it(self) -> None:
        patterns = np.sqrt(np.repeat(blob(N, N, 16, 16)[None], 100, 0))
        patterns[3, 2, 29] = 1e5
        centre = mean_centre(patterns)
        assert (centre.row, centre.column) == pytest.approx((16, 16), abs=0.1)
