"""Results keep what is there already, carry a mark, and say what is not known."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, cast

import numpy as np
import pytest

from ptycho_runtime import OutputError, contract
from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.export.bundle import Export
from ptycho_runtime.image.core import Graphs
from ptycho_runtime.image.products import ptychodus
from ptycho_runtime.image.products.ours import is_ours
from ptycho_runtime.image.products.target import check_patches_target, check_target
from ptycho_runtime.image.products.write import WRITERS, write_product
from ptycho_runtime.image.reconstruct import reconstruct
from ptycho_runtime.image.result import Reconstruction
from ptycho_runtime.scan.scan import Scan

N, COUNT = 16, 30
SUFFIXES = (".h5", ".npz", ".cxi", ".tif", ".png")


class Session:
    """Object patches made of the patterns; stops as Ctrl-C would after `runs`."""

    engine, device, note, options = "onnxruntime", "cpu", "", RunOptions()

    def __init__(self, runs: int = 100) -> None:
        self.runs = runs
        self.inputs = {contract.DIFFRACTION: SimpleNamespace(shape=["batch", 1, N, N])}

    def run(self, feed: Any) -> dict[str, np.ndarray]:
        if self.runs == 0:
            raise KeyboardInterrupt
        self.runs -= 1
        x = feed[contract.DIFFRACTION]
        return {contract.OBJECT_REAL: np.cos(x), contract.OBJECT_IMAG: np.sin(x)}


def made(runs: int = 100, **about_the_scan: Any) -> Reconstruction:
    rng = np.random.default_rng(0)
    patterns = rng.random((COUNT, N, N), np.float32)
    positions = rng.uniform(20, 40, (COUNT, 2))
    scan = Scan("stand-in", lambda f: patterns[f], np.arange(COUNT), positions, N, "amplitude", **about_the_scan)
    export = Export(Path("stand-in"), {}, N, 1, "amplitude", "half_n_over_rms", None, "J", -1.0)
    session: Any = Session(runs)
    return reconstruct(export, Graphs(session, batch=4), scan)


@pytest.fixture(scope="module")
def result() -> Reconstruction:
    return made(pixel_size_m=1e-8, attributes={"probe_energy_eV": 8800.0, "detector_object_distance_m": 1.9})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_results_are_known_again_and_replaced(suffix: str, result: Reconstruction, tmp_path: Path) -> None:
    out = tmp_path / f"object{suffix}"
    for path in write_product(result, check_target(out, {})):
        assert is_ours(path)
    assert write_product(result, check_target(out, {}))[0] == out


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "content",
    [b"notes", b"", b"PK\x03\x04 no zip", b"\x89HDF\r\n\x1a\n", b"II*\x00", b"\x89PNG\r\n\x1a\n a photograph"],
)
def test_what_others_wrote_stays(suffix: str, content: bytes, result: Reconstruction, tmp_path: Path) -> None:
    out = tmp_path / f"object{suffix}"
    out.write_bytes(content)
    with pytest.raises(OutputError, match=r"exists, and is not an earlier result .*--force"):
        check_target(out, {})
    assert out.read_bytes() == content
    assert write_product(result, check_target(out, {}, force=True))[0] == out
    assert is_ours(out)


def test_others_arrays_and_pictures_are_not_ours(tmp_path: Path) -> None:
    from PIL import Image

    np.savez(tmp_path / "a.npz", object=np.ones(3), creator="somebody")
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    assert not is_ours(tmp_path / "a.npz")
    assert not is_ours(tmp_path / "a.png")


def test_picture_of_another_beside_the_result_stays(tmp_path: Path) -> None:
    (tmp_path / "object.png").write_bytes(b"\x89PNG\r\n\x1a\n a photograph")
    with pytest.raises(OutputError, match=r"object\.png: exists"):
        check_target(tmp_path / "object.npz", {})


@pytest.mark.parametrize("make", [os.link, os.symlink])
@pytest.mark.parametrize("force", [False, True])
def test_input_is_never_a_result(make: Any, force: bool, tmp_path: Path) -> None:
    scan = tmp_path / "scan.npz"
    np.savez(scan, creator="ptycho-runtime")
    make(scan, tmp_path / "object.npz")
    for out in (scan, tmp_path / "object.npz", tmp_path / "." / "scan.npz"):
        with pytest.raises(OutputError, match="is the same file as the scan"):
            check_target(out, {"scan": scan, "mask": None}, force=force)


def test_link_to_nothing_is_not_followed(result: Reconstruction, tmp_path: Path) -> None:
    out = tmp_path / "object.npz"
    out.symlink_to(tmp_path / "elsewhere.npz")
    with pytest.raises(OutputError, match="is a link to nothing"):
        check_target(out, {})
    write_product(result, check_target(out, {}, force=True))
    assert not out.is_symlink()
    assert not (tmp_path / "elsewhere.npz").exists()


def test_folder_that_is_a_file_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    with pytest.raises(OutputError, match=r"cannot be written to .*results"):
        check_target(tmp_path / "results" / "object.npz", {})


def test_partial_result_goes_beside_a_complete_one(result: Reconstruction, tmp_path: Path) -> None:
    target = check_target(tmp_path / "object.npz", {})
    partial = made(runs=3)
    assert partial.partial
    assert [p.name for p in write_product(partial, target)] == ["object.npz", "object.png"]
    write_product(result, target)
    assert [p.name for p in write_product(partial, target)] == ["object.partial.npz", "object.partial.png"]
    with np.load(tmp_path / "object.npz") as data:
        assert not data["partial"]
    with np.load(tmp_path / "object.partial.npz") as data:
        assert data["partial"]


def test_full_disk_leaves_the_older_result(
    result: Reconstruction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "object.h5"
    write_product(result, check_target(out, {}))
    before = out.read_bytes()

    class Full:
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    write = ptychodus.write
    monkeypatch.setitem(WRITERS, ".h5", lambda made, file: write(made, cast("IO[bytes]", Full())))
    with pytest.raises(OutputError, match="No space left"):
        write_product(result, check_target(out, {}))
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["object.h5", "object.png"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_hdf5_on_a_full_device_is_an_error_and_no_more(result: Reconstruction) -> None:
    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("wb", buffering=0) as file:
        ptychodus.write(result, file)


def test_patches_are_npy_and_overwrite_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\.npy"):
        check_patches_target(tmp_path / "patches.txt", {})
    (tmp_path / "patches.npy").touch()
    with pytest.raises(OutputError, match="--force"):
        check_patches_target(tmp_path / "patches.npy", {})
    check_patches_target(tmp_path / "patches.npy", {}, force=True)


class TestPtychodusProduct:
    def attributes(self, result: Reconstruction, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any], np.ndarray]:
        import h5py

        write_product(result, check_target(tmp_path / "o.h5", {}))
        with h5py.File(tmp_path / "o.h5") as file:
            return dict(file.attrs), dict(file["object"].attrs), file["probe_position_x_m"][()]

    def test_energy_has_both_names(self, result: Reconstruction, tmp_path: Path) -> None:
        root, _, _ = self.attributes(result, tmp_path)
        assert root["probe_energy_eV"] == root["photon_energy_eV"] == 8800.0
        assert root["detector_object_distance_m"] == 1.9

    def test_positions_are_where_ptychodus_looks(self, result: Reconstruction, tmp_path: Path) -> None:
        _, object_, x_m = self.attributes(result, tmp_path)
        column = (x_m - object_["center_x_m"]) / object_["pixel_width_m"] + result.object.shape[1] / 2
        assert np.allclose(column, result.scan.positions_px[:, 0] - result.canvas.x0_px)
        assert "columns / 2" in object_["center_convention"]

    def test_unknown_pixel_size_is_not_a_metre(self, tmp_path: Path) -> None:
        root, object_, x_m = self.attributes(made(), tmp_path)
        assert np.isnan(object_["pixel_width_m"])
        assert np.isnan(x_m).all()
        assert "pixel size is not known" in root["comments"]


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".cxi"])
@pytest.mark.parametrize("pixel_m", [1e-8, 0.0])
def test_results_are_files_of_positions(suffix: str, pixel_m: float, tmp_path: Path) -> None:
    from ptycho_runtime.scan.options import ReadOptions
    from ptycho_runtime.scan.read import read_scan

    earlier = made(pixel_size_m=pixel_m)
    out = write_product(earlier, check_target(tmp_path / f"object{suffix}", {}))[0]
    np.savez(tmp_path / "d.npz", patterns=np.random.default_rng(1).poisson(9, (COUNT, N, N)))
    with read_scan(tmp_path / "d.npz", N, ReadOptions(positions_file=out)) as scan:
        assert scan.positions_px == pytest.approx(earlier.scan.positions_px)
        assert scan.pixel_size_m == pixel_m
