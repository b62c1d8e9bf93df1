"""What is no bundle is called by its name, with what to do."""

from __future__ import annotations

import gzip
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sample_bundles import BUNDLES

from ptycho_torch.bundle import read_bundle
from ptycho_torch.errors import DamagedBundleError, MissingModelsError, NotABundleError

SMALL = BUNDLES / "ffno-2026-07-n64-g1.zip"


def members() -> dict[str, bytes]:
    with zipfile.ZipFile(SMALL) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def test_a_bundle_packed_with_its_folder(tmp_path: Path) -> None:
    path = zipped(tmp_path / "wts.h5.zip", {f"run/{name}": data for name, data in members().items()})
    with pytest.raises(NotABundleError, match=r"manifest\.dill lies inside the folder run/; pack the content"):
        read_bundle(path)


def test_a_zip_in_a_zip(tmp_path: Path) -> None:
    path = zipped(tmp_path / "wts.h5.zip", {"wts.h5.zip": SMALL.read_bytes()})
    with pytest.raises(NotABundleError, match=r"holds another archive, wts\.h5\.zip, and no manifest"):
        read_bundle(path)


def test_a_scan_given_as_a_bundle(tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    np.savez(path, diff3d=np.zeros((1, 4, 4)), xcoords=np.zeros(1), ycoords=np.zeros(1))
    with pytest.raises(
        NotABundleError, match=r"is a scan \(it holds diff3d\.npy, xcoords\.npy, ycoords\.npy\), not a bundle"
    ):
        read_bundle(path)


def test_other_arrays(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=np.zeros(1))
    with pytest.raises(NotABundleError, match="is an NPZ file of arrays, not a bundle"):
        read_bundle(path)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file"),
        (gzip.compress(b"x", mtime=0), "is compressed by gzip, not a zip archive; unpack it first"),
        (pickle.dumps({"models": []}), "is a plain pickle, not a zip archive"),
        (b"\x93NUMPY\x01\0", "is a NumPy array, not a zip archive"),
    ],
)
def test_other_formats(data: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "wts.h5.zip"
    path.write_bytes(data)
    with pytest.raises(NotABundleError, match=what):
        read_bundle(path)


def test_bytes_before_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "wts.h5.zip"
    path.write_bytes(b"#!/bin/sh\n" + SMALL.read_bytes())
    with pytest.raises(DamagedBundleError, match="10 bytes stand before the zip archive in it"):
        read_bundle(path)


def test_a_plain_pickle_as_weights(tmp_path: Path) -> None:
    content = {**members(), "autoencoder/model.pth": pickle.dumps({"a": 1})}
    with pytest.raises(NotABundleError, match=r"model\.pth: is a plain pickle, not a file that torch\.save wrote"):
        read_bundle(zipped(tmp_path / "wts.h5.zip", content))


@pytest.mark.parametrize(
    ("manifest", "error", "message"),
    [
        ({"version": "3.0-pytorch"}, NotABundleError, r"says version 3\.0-pytorch; this project reads 2\.0-pytorch"),
        ({"version": None}, NotABundleError, "says version None"),
        (
            {"models": ["autoencoder", "diffraction_to_obj", "critic"]},
            MissingModelsError,
            "lists autoencoder, diffraction_to_obj, critic; a bundle holds",
        ),
        ({"models": ["autoencoder"] * 2 + ["diffraction_to_obj"]}, MissingModelsError, "and nothing else"),
    ],
)
def test_manifests_of_something_else(
    manifest: dict[str, object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    content = members()
    content["manifest.dill"] = pickle.dumps({**pickle.loads(content["manifest.dill"]), **manifest})
    with pytest.raises(error, match=message):
        read_bundle(zipped(tmp_path / "wts.h5.zip", content))


def test_weights_that_are_not_there_are_told_from_those_not_listed(tmp_path: Path) -> None:
    content = members()
    del content["autoencoder/model.pth"]
    with pytest.raises(
        MissingModelsError, match=r"lacks the weights of autoencoder; .* weights found: diffraction_to_obj/model\.pth"
    ):
        read_bundle(zipped(tmp_path / "wts.h5.zip", content))
