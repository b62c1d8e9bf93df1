"""The figure for a paper: what it shows is right, it is drawn with and without matplotlib, and its files are known again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptycho_runtime import OutputError
from ptycho_runtime.errors import PackageMissingError
from ptycho_runtime.image.paper import write
from ptycho_runtime.image.paper.page import nice_length, page_of, wraps
from ptycho_runtime.image.products.ours import is_ours
from ptycho_runtime.image.products.target import check_target
from ptycho_runtime.image.products.write import write_product
from ptycho_runtime.image.result import Reconstruction

PIXEL_M = 2.5e-8


@pytest.fixture(scope="module")
def result(demo_result: Reconstruction) -> Reconstruction:
    return replace(demo_result, scan=replace(demo_result.scan, pixel_size_m=PIXEL_M, pixel_height_m=2 * PIXEL_M))


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "has_matplotlib", lambda: False)


def test_axes_are_micrometres_of_the_scan(result: Reconstruction) -> None:
    page = page_of(result)
    covered = result.canvas.covered
    first = np.flatnonzero(covered.any(0))[0]
    assert page.unit == "µm"
    assert page.x[0] == pytest.approx((result.canvas.x0_px + first - 0.5) * PIXEL_M * 1e6)
    assert page.x[1] - page.x[0] == pytest.approx(np.ptp(np.flatnonzero(covered.any(0))) * 0.025 + 0.025)
    assert page.y[1] - page.y[0] == pytest.approx(np.ptp(np.flatnonzero(covered.any(1))) * 0.05 + 0.05)
    assert page.bar_label == "0.5 µm"
    assert [panel.title.partition(":")[0] for panel in page.panels] == [
        "amplitude", "phase", "spread of the phase among patches", "trust",
    ]  # fmt: skip
    assert result.origin.bundle_sha256[:12] in page.title
    assert page.verdict == result.trust.verdict


def test_without_a_pixel_size_axes_are_pixels(demo_result: Reconstruction) -> None:
    page = page_of(demo_result)
    assert page.unit == "px"
    assert page.bar_label.endswith(" px")


def test_only_a_phase_that_wraps_gets_the_cyclic_map(result: Reconstruction) -> None:
    assert page_of(result).panels[1].colours == "grey"
    turned = result.canvas.object * np.exp(25j * np.abs(result.canvas.object)).astype(np.complex64)
    page = page_of(replace(result, canvas=replace(result.canvas, object=turned)))
    phase = page.panels[1]
    assert (phase.colours, phase.low, phase.high) == ("cyclic", -np.pi, np.pi)
    assert wraps(phase.values)
    assert not wraps(np.linspace(-3.1, 3.1, 50)[None])


def test_nothing_is_shown_where_nothing_was_measured(result: Reconstruction) -> None:
    covered = result.canvas.covered
    box = np.ix_(covered.any(1), covered.any(0))
    for panel in page_of(result).panels:
        assert np.isnan(panel.values[~covered[box]]).all()
    spread = page_of(result).panels[2].values
    assert np.nanmin(spread) > 1e-6, "a pixel of one patch has no spread"


def test_flagged_patterns_are_marked_at_their_places(result: Reconstruction) -> None:
    flagged = np.zeros(len(result.scan), bool)
    flagged[[3, 7]] = True
    page = page_of(replace(result, trust=replace(result.trust, flagged=flagged)))
    np.testing.assert_allclose(page.flagged, result.scan.positions_px[[3, 7]] * [0.025, 0.05])
    assert "2 flagged patterns are marked" in page.caption


@pytest.mark.parametrize(("longest", "length"), [(0.34, 0.2), (0.5, 0.5), (1.9, 1.0), (99.0, 50.0), (0.0021, 0.002)])
def test_scale_bar_has_a_round_length(longest: float, length: float) -> None:
    assert nice_length(longest) == pytest.approx(length)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_figure_is_drawn_and_known_again(suffix: str, result: Reconstruction, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    target = check_target(tmp_path / "object.npz", {}, figure=tmp_path / f"figure{suffix}")
    assert [path.name for path in write_product(result, target)] == ["object.npz", "object.png", f"figure{suffix}"]
    path = tmp_path / f"figure{suffix}"
    assert is_ours(path)
    check_target(tmp_path / "object.npz", {}, figure=path)
    if suffix == ".png":
        with Image.open(path) as picture:
            assert picture.width == 1840
            assert picture.info["dpi"] == pytest.approx((200, 200), abs=1)
            assert picture.info["bundle_sha256"] == result.origin.bundle_sha256
    if suffix == ".svg":
        text = path.read_text()
        assert result.origin.bundle_sha256 in text
        for label in ("phase (rad)", "x (µm)", "0.5 µm", result.trust.verdict):
            assert label in text, label


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_a_plainer_figure_is_drawn(result: Reconstruction, tmp_path: Path) -> None:
    path = write.write_figure(result, tmp_path / "figure.png")
    assert is_ours(path)
    with Image.open(path) as picture:
        assert picture.info["scan"] == "scan.npz"
        pixels = np.asarray(picture)
    assert pixels.shape[0] > 1000
    assert (pixels == 0).all(-1).any(0).sum() > 100, "letters and a scale bar are black"


@pytest.mark.usefixtures("no_matplotlib")
def test_svg_without_matplotlib_says_what_to_install_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(PackageMissingError, match=r"pip install 'ptycho-export\[figure\]'"):
        check_target(tmp_path / "object.npz", {}, figure=tmp_path / "figure.svg")


def test_figure_has_a_place_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"expected one of \.png, \.svg, \.pdf"):
        check_target(tmp_path / "object.npz", {}, figure=tmp_path / "figure.jpg")
    with pytest.raises(OutputError, match="is the same file as the picture beside the result"):
        check_target(tmp_path / "object.npz", {}, figure=tmp_path / "object.png")
    (tmp_path / "figure.pdf").write_bytes(b"%PDF-1.4 a paper")
    with pytest.raises(OutputError, match=r"figure\.pdf: exists, and is not an earlier result"):
        check_target(tmp_path / "object.npz", {}, figure=tmp_path / "figure.pdf")


def test_places_that_are_found_out_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^x{24}…: is a name of 243 bytes; expected 224 at most; give a shorter one"):
        check_target(tmp_path / f"{'x' * 240}.h5", {})
    given = tmp_path / "object.partial.npz"
    for path in (given, tmp_path / "object.npz"):
        np.savez(path, creator="ptycho-runtime")
    with pytest.raises(OutputError, match=r"object\.partial\.npz: is the same file as the positions file"):
        check_target(tmp_path / "object.npz", {"positions file": given})
