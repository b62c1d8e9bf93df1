"""Whatever a damaged or forged file holds, reading it ends in an error of ours or in a scan."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(values), allow_pickle=True)
    return buffer.getvalue()


def claim(
    shape: tuple[int, ...], descr: Any = "<f4", *, fortran: bool = False, version: tuple[int, int] = (1, 0)
) -> bytes:
    """Return an array whose header says another shape or type than it has."""
    header = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode()
    header += b" " * (63 - len(header) % 64) + b"\n"
    length = len(header).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + header + np.sqrt(COUNTS).astype(np.float32).tobytes()


FORGED: dict[str, bytes] = {
    "negative sides": claim((COUNT, -N, -N)),
    "negative sides, by columns": claim((COUNT, -N, -N), fortran=True),
    "negative count": claim((-COUNT, -N, N)),
    "huge": claim((1 << 62, N, N)),
    "rows of arrays": claim((COUNT,), ("<f4", (N, N))),
    "a version of numpy's to come": claim((COUNT, N, N), version=(9, 0)),
    "a header that nests": b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65534 + b"\n",
    "a header that calls": b"\x93NUMPY\x01\x00\x2a\x00{'descr': exit(), 'shape': (), 'f': 0}     \n",
    "a header longer than the file": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{",
    "nothing": b"",
    "objects": npy(np.array([None, 1], object)),
    "records": npy(np.zeros(2, [(f"field{at:05d}", "u1") for at in range(2000)])),
    "text": npy(np.array(["a", "b"])),
    "times": npy(np.zeros(COUNT, "M8[s]")),
    "complex": npy(COUNTS.astype(complex)),
    "none of them finite": npy(np.full((COUNT, N, N), np.nan)),
    "no frames": npy(np.zeros((0, N, N), np.float32)),
    "one number": npy(1.0),
    "numbers beyond float32": npy(np.full(COUNT, 1e300)),
    "the largest whole numbers": npy(np.full(COUNT, 2**64 - 1, np.uint64)),
}


def ending(path: Path, options: ReadOptions) -> str:
    try:
        with read_scan(path, N, options) as read:
            read.patterns(np.arange(len(read)), N, "amplitude")
    except PtychoExportError as error:
        return str(error)
    return ""


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_forged_arrays_in_every_place_of_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    refused = 0
    whole = {"diff3d": npy(np.sqrt(COUNTS).astype(np.float32)), "xcoords": npy(X), "ycoords": npy(Y)}
    for place, data in itertools.product(("diff3d", "xcoords", "probeGuess", "indexes", "mask"), FORGED.values()):
        with zipfile.ZipFile(path, "w") as archive:
            for name, value in (whole | {place: data}).items():
                archive.writestr(f"{name}.npy", value)
        refused += bool(ending(path, ReadOptions()))
    assert refused > 60


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_forged_arrays_in_every_place_of_a_product_and_as_a_mask(tmp_path: Path) -> None:
    scan, product = tmp_path / "scan.npz", tmp_path / "product.npz"
    write_npz(scan)
    whole = {
        "probe_position_x_m": npy(X * 1e-8),
        "probe_position_y_m": npy(Y * 1e-8),
        "object_pixel_width_m": npy(1e-8),
    }
    for place, data in itertools.product(
        (*whole, "probe_position_indexes", "probe", "photon_energy_eV"), FORGED.values()
    ):
        with zipfile.ZipFile(product, "w") as archive:
            for name, value in (whole | {place: data}).items():
                archive.writestr(f"{name}.npy", value)
        ending(scan, ReadOptions(positions_file=product))
    mask = tmp_path / "mask.npy"
    for data in FORGED.values():
        mask.write_bytes(data)
        assert ending(scan, ReadOptions(mask_file=mask))


def virtual(file: Any, name: str, shape: tuple[int, ...]) -> None:
    file.create_virtual_dataset(name, h5py.VirtualLayout(shape, "f4"))


def with_units(units: Any) -> Callable[[Any, str], None]:
    def make(file: Any, name: str) -> None:
        file[name] = X
        file[name].attrs["units"] = units

    return make


HDF5_FORGED: dict[str, Callable[[Any, str], Any]] = {
    "nothing": lambda file, name: file.__setitem__(name, h5py.Empty("f4")),
    "a group": lambda file, name: file.create_group(name),
    "a type": lambda file, name: file.__setitem__(name, np.dtype("f4")),
    "a link to itself": lambda file, name: file.__setitem__(name, h5py.SoftLink(f"/{name}")),
    "a link to the root": lambda file, name: file.__setitem__(name, h5py.SoftLink("/")),
    "the root itself": lambda file, name: file.__setitem__(name, file["/"]),
    "a link to a device": lambda file, name: file.__setitem__(name, h5py.ExternalLink("/dev/zero", "/x")),
    "a link to the folder": lambda file, name: file.__setitem__(name, h5py.ExternalLink(".", "/x")),
    "a link with a name of 5000 letters": lambda file, name: file.__setitem__(
        name, h5py.ExternalLink("a" * 5000, "/x")
    ),
    "lists of variable length": lambda file, name: file.create_dataset(name, (3,), h5py.vlen_dtype(np.float32)),
    "references": lambda file, name: file.create_dataset(name, data=np.array([file.ref] * 2), dtype=h5py.ref_dtype),
    "text": lambda file, name: file.create_dataset(name, data=np.array([b"a\x1b[31m", b"b"])),
    "arrays in rows": lambda file, name: file.create_dataset(name, (COUNT,), np.dtype(("f4", (N, N)))),
    "more rows than memory, in one piece": lambda file, name: file.create_dataset(name, (1 << 40, N, N), "u1"),
    "more rows than memory, in chunks": lambda file, name: file.create_dataset(
        name, (1 << 62,), "u1", chunks=(1 << 20,)
    ),
    "more rows than memory, from other files": lambda file, name: virtual(file, name, (10**12, N, N)),
    "as many numbers as bytes there are": lambda file, name: virtual(file, name, (1 << 60,)),
    "negative": lambda file, name: file.create_dataset(name, data=-1.0),
    "infinite": lambda file, name: file.create_dataset(name, data=np.inf),
    "units that are none": with_units("\x1b[31mm"),
    "units that are numbers": with_units(np.arange(3)),
    "units that are bytes": with_units(b"\xff\xfe"),
    "units without a value": with_units(h5py.Empty("S1")),
}


def plain_layout(file: Any) -> None:
    file["diff3d"], file["xcoords"], file["ycoords"] = np.sqrt(COUNTS).astype(np.float32), X, Y


def cxi_layout(file: Any) -> None:
    file["entry_1/data_1/data"] = COUNTS.astype(np.uint16)
    file["entry_1/data_1/translation"] = np.stack([X, Y, 0 * X], axis=1) * 1e-7
    detector = "entry_1/instrument_1/detector_1/"
    file[detector + "distance"], file[detector + "x_pixel_size"], file[detector + "y_pixel_size"] = 1.0, 75e-6, 75e-6
    file["entry_1/instrument_1/source_1/energy"] = 1.3e-15


def nexus_layout(file: Any) -> None:
    file["entry/data/data"] = COUNTS.astype(np.uint16)
    detector = "entry/instrument/detector/"
    for name, value in (("detector_distance", 1.0), ("x_pixel_size", 75e-6), ("y_pixel_size", 75e-6)):
        file[detector + name] = value
        file[detector + name].attrs["units"] = "m"
    file["entry/instrument/beam/incident_energy"] = 8000.0
    file["entry/instrument/beam/incident_energy"].attrs["units"] = "eV"
    file["xs"], file["ys"] = X, Y


LAYOUTS: dict[str, tuple[Callable[[Any], None], tuple[str, ...], ReadOptions]] = {
    "plain": (plain_layout, ("diff3d", "xcoords", "probeGuess", "indexes"), ReadOptions()),
    "cxi": (
        cxi_layout,
        (
            "entry_1/data_1/data", "entry_1/data_1/translation", "entry_1/instrument_1/detector_1/basis_vectors",
            "entry_1/instrument_1/source_1/energy", "entry_1/instrument_1/source_1/illumination",
        ),
        ReadOptions(position_sign=1),
    ),
    "nexus": (
        nexus_layout,
        (
            "entry/data/data", "xs", "entry/instrument/detector/x_pixel_size", "entry/instrument/beam/incident_energy",
        ),
        ReadOptions(x_key="xs", y_key="ys", position_sign=1, position_unit="px"),
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_forged_datasets_in_every_place_of_an_hdf5_file(layout: str, tmp_path: Path) -> None:
    fill, places, options = LAYOUTS[layout]
    path, refused = tmp_path / "scan.h5", 0
    for place, make in itertools.product(places, HDF5_FORGED.values()):
        with h5py.File(path, "w") as file:
            fill(file)
            if place in file:
                del file[place]
            make(file, place)
        refused += bool(ending(path, options))
    assert refused > 40
