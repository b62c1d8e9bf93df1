"""Whatever a damaged file holds, reading it ends in an error of ours or in a scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho_runtime.errors import PtychoExportError
from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import read_scan

h5py = pytest.importorskip("h5py")
N, COUNT = 16, 20
Y, X = (np.mgrid[:4, :5].reshape(2, -1) * 4.0) + 9
ROWS, COLUMNS = np.mgrid[:N, :N]
COUNTS = np.random.default_rng(3).poisson(200 * np.exp(-((ROWS - 8) ** 2 + (COLUMNS - 8) ** 2) / 20), (COUNT, N, N))
HEAD_BYTES = 3000  # of HDF5: where names, types and shapes are


def write_npz(path: Path) -> ReadOptions:
    with path.open("wb") as file:
        np.savez(file, diff3d=np.sqrt(COUNTS).astype(np.float32), xcoords=X, ycoords=Y)
    return ReadOptions()


def write_compressed(path: Path) -> ReadOptions:
    with path.open("wb") as file:
        np.savez_compressed(file, diff3d=np.sqrt(COUNTS).astype(np.float32), xcoords=X, ycoords=Y)
    return ReadOptions()


def write_hdf5(path: Path) -> ReadOptions:
    with h5py.File(path, "w") as file:
        file.create_dataset("diff3d", data=np.sqrt(COUNTS).astype(np.float32), chunks=(4, N, N), compression="gzip")
        file["xcoords"], file["ycoords"] = X, Y
    return ReadOptions()


def write_product(path: Path) -> ReadOptions:
    patterns = path.with_name("patterns.npz")
    np.savez(patterns, patterns=COUNTS.astype(np.uint16))
    with h5py.File(path, "w") as file:
        file["probe_position_indexes"] = np.arange(COUNT)
        file["probe_position_x_m"], file["probe_position_y_m"] = X * 1e-8, Y * 1e-8
        file["object"] = np.ones((1, 30, 30), np.complex64)
        file["object"].attrs["pixel_width_m"] = file["object"].attrs["pixel_height_m"] = 1e-8
    return ReadOptions(positions_file=path)


@pytest.mark.parametrize("write", [write_npz, write_compressed, write_hdf5, write_product])
def test_no_damage_is_called_a_bug(write: object, tmp_path: Path) -> None:
    assert callable(write)
    path = tmp_path / "scan"
    options = write(path)
    with read_scan(path if options.positions_file is None else tmp_path / "patterns.npz", N, options) as read:
        assert len(read) == COUNT
    whole, random = path.read_bytes(), np.random.default_rng(7)
    scan = path if options.positions_file is None else tmp_path / "patterns.npz"
    endings = []
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(random.integers(1, 6)):
            # The directory of a zip lies at its end, that of HDF5 at its beginning.
            near = random.integers(0, min(HEAD_BYTES, len(data)))
            at = random.choice([near, len(data) - 1 - near, random.integers(0, len(data))])
            data[at] = random.integers(0, 256) if random.random() < 0.5 else data[at] ^ (1 << random.integers(0, 8))
        if random.random() < 0.1:
            del data[random.integers(1, len(data)) :]
        path.write_bytes(data)
        try:
            with read_scan(scan, N, options) as read:
                read.patterns(np.arange(len(read)), N, "amplitude")
            endings.append("read")
        except PtychoExportError as error:
            assert len(str(error)) < 2000
            endings.append("refused")
    assert endings.count("refused") > 10
