"""From a path to a record: every way in, and every refusal with its own class and message."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sample_bundles import BUNDLES, DEMO, NAMES, bundle_path, members

from ptycho_torch.bundle import Sentinel, is_own_member, members_digest, read_bundle, resolve
from ptycho_torch.bundle import read as record
from ptycho_torch.errors import (
    DamagedBundleError,
    LimitExceededError,
    MissingModelsError,
    MissingParamsError,
    NotABundleError,
    TensorFlowBundleError,
)

CKPT = BUNDLES / "ffno-2026-07-n64-g1.ckpt"
SMALL = BUNDLES / "ffno-2026-07-n64-g1.zip"


def rewritten(path: Path, changes: dict[str, bytes | None], target: Path) -> Path:
    """Write a bundle with members replaced, added or left out."""
    contents = {name: data for name, data in {**members(path), **changes}.items() if data is not None}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return target


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_has_its_parameters_weights_and_digests(name: str) -> None:
    path = bundle_path(name)
    found = read_bundle(path)
    assert found.kind == "zip"
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.members_sha256 == members_digest(members(path).items())
    assert found.members == tuple((name, len(data)) for name, data in members(path).items())
    assert found.manifest is not None
    assert sorted(found.manifest["models"]) == ["autoencoder", "diffraction_to_obj"]
    for role in ("autoencoder", "diffraction_to_obj"):
        assert found.params[role]["N"] == 64
        assert found.params[role]["_version"] == "2.0-pytorch"
    weights = found.weights["diffraction_to_obj"]
    assert isinstance(weights, dict)
    assert all(isinstance(value, np.ndarray) for value in weights.values())


def test_a_role_without_weights_is_a_sentinel() -> None:
    assert read_bundle(DEMO).weights["autoencoder"] == Sentinel("autoencoder")


def test_zip_base_path_folder_and_run_directory_are_the_same_bundle(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    path = Path(shutil.copy(DEMO, run / "wts.h5.zip"))
    folder = tmp_path / "unpacked"
    for name, data in members(DEMO).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    digest = read_bundle(path).members_sha256
    for given in (run / "wts.h5", run, str(path), folder):
        assert read_bundle(given).members_sha256 == digest
    assert read_bundle(folder).kind == "folder"
    assert read_bundle(folder).sha256 == digest
    assert resolve(run) == (path, "zip")


def test_a_checkpoint_gives_both_roles_its_weights() -> None:
    found = read_bundle(CKPT)
    assert found.kind == "ckpt"
    assert found.weights["autoencoder"] is found.weights["diffraction_to_obj"]
    assert found.checkpoint is not None
    assert "hyper_parameters" in found.checkpoint
    assert {"state_dict", "optimizer_states", "loops"}.isdisjoint(found.checkpoint)
    assert found.params == {}
    assert found.read_member(CKPT.name) == CKPT.read_bytes()
    assert found.sha256 == hashlib.sha256(CKPT.read_bytes()).hexdigest()


def test_a_checkpoint_inside_a_run_directory_is_found(tmp_path: Path) -> None:
    inside = tmp_path / "lightning" / "checkpoints" / "epoch=1.ckpt"
    inside.parent.mkdir(parents=True)
    shutil.copy(CKPT, inside)
    assert read_bundle(tmp_path).path == inside
    shutil.copy(CKPT, inside.with_name("epoch=2.ckpt"))
    with pytest.raises(NotABundleError, match=r"several candidates: epoch=1\.ckpt, epoch=2\.ckpt; name one of them"):
        read_bundle(tmp_path)


def test_exports_are_read_and_are_not_ptychopinns_own(tmp_path: Path) -> None:
    exports = {"exports.json": b'{"schema": "x"}', "golden.npz": b"1", "autoencoder/model.onnx": b"2"}
    path = rewritten(DEMO, exports, tmp_path / "wts.h5.zip")
    found = read_bundle(path)
    assert found.exports == {"schema": "x"}
    assert found.members_sha256 == read_bundle(DEMO).members_sha256
    assert found.read_member("golden.npz") == b"1"
    assert [name for name, _ in found.members if is_own_member(name)] == list(exports)


def test_an_exported_checkpoint_is_read_from_the_zip_it_lies_in(tmp_path: Path) -> None:
    path = tmp_path / "wts.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(CKPT, CKPT.name)
        archive.writestr("exports.json", "{}")
    found = read_bundle(path)
    assert (found.kind, found.exports) == ("ckpt", {})
    assert found.members_sha256 == read_bundle(CKPT).members_sha256
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.read_member(CKPT.name) == CKPT.read_bytes()


@pytest.mark.parametrize("given", ["nothing", "nothing.zip", "nothing.ckpt", "no/such/folder/wts.h5"])
def test_an_absent_file_is_not_found(tmp_path: Path, given: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"{Path(given).name}: no such bundle"):
        read_bundle(tmp_path / given)


@pytest.mark.parametrize("given", ["", ".", "/"])
def test_a_path_without_a_name_is_looked_into(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if given == "/" and any(Path("/").glob("*.ckpt")):
        pytest.skip("a checkpoint lies there")
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))
    with pytest.raises(NotABundleError, match=r"holds neither manifest\.dill"):
        read_bundle(given)


def test_an_empty_folder_holds_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotABundleError, match="give a bundle, checkpoint or run directory"):
        read_bundle(tmp_path)


def test_no_zip_a_cut_zip_and_another_zip_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "wts.h5.zip"
    path.write_bytes(b"not a zip at all")
    with pytest.raises(NotABundleError, match=r"^wts\.h5\.zip: not a zip archive; expected a PtychoPINN"):
        read_bundle(path)
    path.write_bytes(DEMO.read_bytes()[:-1000])
    with pytest.raises(DamagedBundleError, match=r"^wts\.h5\.zip: the zip archive is cut short or corrupt"):
        read_bundle(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(NotABundleError, match=r"^wts\.h5\.zip: has no manifest\.dill"):
        read_bundle(path)


def test_a_renamed_checkpoint_is_told(tmp_path: Path) -> None:
    path = Path(shutil.copy(CKPT, tmp_path / "last.zip"))
    with pytest.raises(NotABundleError, match=r"name a Lightning checkpoint \*\.ckpt"):
        read_bundle(path)


def test_missing_models_are_named(tmp_path: Path) -> None:
    path = rewritten(SMALL, {"autoencoder/model.pth": None}, tmp_path / "wts.h5.zip")
    with pytest.raises(MissingModelsError, match="lacks the weights of autoencoder; a bundle holds"):
        read_bundle(path)
    manifest = pickle.dumps({"models": ["diffraction_to_obj"], "version": "2.0-pytorch"})
    path = rewritten(SMALL, {"manifest.dill": manifest}, tmp_path / "wts.h5.zip")
    with pytest.raises(MissingModelsError, match="manifest does not list autoencoder, whose weights are there"):
        read_bundle(path)


def test_missing_params_say_what_cannot_be_done(tmp_path: Path) -> None:
    path = rewritten(SMALL, {"diffraction_to_obj/params.dill": None}, tmp_path / "wts.h5.zip")
    with pytest.raises(MissingParamsError) as caught:
        read_bundle(path)
    assert str(caught.value) == (
        "wts.h5.zip: diffraction_to_obj/params.dill is missing. Cannot reconstruct model architecture; "
        "export the bundle from PtychoPINN again"
    )


@pytest.mark.parametrize(
    ("manifest", "extra"),
    [
        ({"version": "1.0"}, "autoencoder/model.keras"),
        ({"version": "1.0"}, "autoencoder/saved_model.pb"),
        ({"version": "1.0"}, "autoencoder/notes.txt"),
        ({"version": "2.0", "backend": "tensorflow"}, "autoencoder/weights"),
    ],
)
def test_a_tensorflow_bundle_names_both_backends(manifest: dict[str, str], extra: str, tmp_path: Path) -> None:
    path = tmp_path / "wts.h5.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.dill", pickle.dumps({"models": ["autoencoder"], **manifest}))
        archive.writestr(extra, b"x")
    with pytest.raises(
        TensorFlowBundleError, match=r"tensorflow backend .*; this project reads .* pytorch backend only"
    ):
        read_bundle(path)


@pytest.mark.parametrize(
    "size", [10**11, np.int64(10**11), np.float64(1e11), np.array(10**11)], ids=["int", "int64", "float64", "0-d"]
)
def test_a_number_beyond_any_model_is_refused_before_weights_are_read(size: object, tmp_path: Path) -> None:
    params = pickle.dumps({"N": size, "gridsize": 1})
    changes = {"diffraction_to_obj/params.dill": params, "diffraction_to_obj/model.pth": b"never looked at"}
    with pytest.raises(
        LimitExceededError, match=r"params\.dill: N is 100000000000(\.0)?; expected 1 to 4096; refused before"
    ):
        read_bundle(rewritten(SMALL, changes, tmp_path / "wts.h5.zip"))


def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(shutil.copy(SMALL, tmp_path / "wts.h5.zip"))

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DamagedBundleError, match=r"cannot be read \(Permission denied\); check the path"):
        read_bundle(path)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(shutil.copy(SMALL, tmp_path / "wts.h5.zip"))
    original = record.open_zip

    def touch_then_open(file: object, label: str) -> object:
        with path.open("r+b") as other:
            other.write(b"P")
        os.utime(path, ns=(1, 1))
        return original(file, label)  # type: ignore[arg-type]

    path.chmod(0o600)
    monkeypatch.setattr(record, "open_zip", touch_then_open)
    with pytest.raises(DamagedBundleError, match="changed while it was being read"):
        read_bundle(path)


def test_a_record_keeps_the_file_it_read_when_another_takes_its_place(tmp_path: Path) -> None:
    path = Path(shutil.copy(SMALL, tmp_path / "wts.h5.zip"))
    found = read_bundle(path)
    other = tmp_path / "other"
    other.write_bytes(b"something else")
    other.replace(path)
    assert found.read_member("manifest.dill") == members(SMALL)["manifest.dill"]


def test_a_member_that_changed_since_is_refused(tmp_path: Path) -> None:
    for name, data in members(SMALL).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    found = read_bundle(tmp_path)
    (tmp_path / "autoencoder" / "params.dill").write_bytes(b"other")
    with pytest.raises(DamagedBundleError, match=r"'autoencoder/params\.dill' changed since the bundle was read"):
        found.read_member("autoencoder/params.dill")
    with pytest.raises(DamagedBundleError, match="has no member 'nothing'"):
        found.read_member("nothing")


def test_exports_json_must_be_an_object(tmp_path: Path) -> None:
    for text, message in [(b"{", "is no JSON"), (b"[1]", "holds list"), (b"\xff", "is no JSON")]:
        path = rewritten(SMALL, {"exports.json": text}, tmp_path / "wts.h5.zip")
        with pytest.raises(DamagedBundleError, match=f"exports.json:? {message}"):
            read_bundle(path)


def test_equal_weights_of_both_models_are_in_memory_once() -> None:
    weights = read_bundle(SMALL).weights
    assert weights["autoencoder"] is not weights["diffraction_to_obj"]
    for key, value in weights["autoencoder"].items():
        assert np.shares_memory(value, weights["diffraction_to_obj"][key]), key
        assert not value.flags.writeable


_MEASURE = """
import json, resource, sys
import numpy
from ptycho_torch.bundle import read_bundle
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = read_bundle(sys.argv[1])
print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024))
"""


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_SELF"), reason="no resource usage here")
@pytest.mark.parametrize("kind", ["one role", "both roles", "checkpoint with optimiser"])
def test_reading_takes_at_most_one_and_a_half_times_the_weights(kind: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    layers = 8
    weights = {f"layer{n}.weight": torch.randn(1 << 20, generator=generator) for n in range(layers)}
    weights_bytes = layers * 4 << 20
    buffer = io.BytesIO()
    if kind == "checkpoint with optimiser":
        path = tmp_path / "last.ckpt"
        states = [{"state": {n: {"exp_avg": torch.zeros(1 << 20)} for n in range(layers)}}]
        torch.save({"state_dict": weights, "optimizer_states": states, "hyper_parameters": {}}, path)
    else:
        path = tmp_path / "wts.h5.zip"
        torch.save(weights, buffer)
        changes = {"diffraction_to_obj/model.pth": buffer.getvalue()}
        if kind == "both roles":
            other = io.BytesIO()
            torch.save({name: -value for name, value in weights.items()}, other)
            changes["autoencoder/model.pth"] = other.getvalue()
            weights_bytes *= 2
        contents = {**members(DEMO), **changes}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in contents.items():
                archive.writestr(name, data, zipfile.ZIP_DEFLATED, 1)
    measure = [sys.executable, "-c", _MEASURE, str(path)]
    done = subprocess.run(
        measure, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    peak_bytes = json.loads(done.stdout)
    assert peak_bytes <= 1.5 * weights_bytes
