"""Only what the exporter wrote is opened: no pickle, sha256 first, nothing outside the file, no custom operators."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_bundles import DEMO, changed, members

import ptycho_runtime
from ptycho_runtime import contract
from ptycho_runtime.errors import DamagedExportError, NotExportedError, UnsafeGraphError
from ptycho_runtime.export.bundle import open_export
from ptycho_runtime.export.onnx_file import CheckedModel

onnx = pytest.importorskip("onnx")


def reworked(tiny: Path, target: Path, change: Any) -> Path:
    """Copy an export with its ONNX model changed and `exports.json` made to agree."""
    import hashlib

    stored = members(tiny)
    name = contract.onnx_member("diffraction_to_obj")
    model = onnx.load_from_string(stored[name])
    change(model)
    data = model.SerializeToString()
    info = json.loads(stored[contract.EXPORTS_JSON])
    info["graphs"]["diffraction_to_obj"]["files"]["onnx"] |= {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
    }
    return changed(tiny, target, {name: data, contract.EXPORTS_JSON: json.dumps(info).encode()})


def test_what_an_export_says(demo: Path) -> None:
    export = open_export(demo)
    assert (export.N, export.gridsize, export.C, export.domain, export.era) == (64, 1, 1, "amplitude", "J")
    assert set(export.graphs) == set(contract.ALL_GRAPHS)
    assert export.scale_formula == "half_n_over_rms"
    assert export.positions_sign == -1.0


def test_bare_onnx_file_describes_itself(tiny: Path) -> None:
    export = open_export(tiny.parent / "diffraction_to_obj" / "model.onnx")
    whole = open_export(tiny)
    assert (export.N, export.gridsize, export.domain, export.era, export.scale_formula) == (
        whole.N, whole.gridsize, whole.domain, whole.era, whole.scale_formula,
    )  # fmt: skip
    assert list(export.graphs) == ["diffraction_to_obj"]


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_export(tmp_path / "none.zip")


def test_bundle_that_was_never_exported() -> None:
    with pytest.raises(NotExportedError, match=r"holds no exports\.json; export the bundle with ptycho-export first"):
        open_export(DEMO)


def test_changed_model_is_not_opened(tiny: Path, tmp_path: Path) -> None:
    name = contract.onnx_member("diffraction_to_obj")
    data = bytearray(members(tiny)[name])
    data[len(data) // 2] ^= 1
    with pytest.raises(DamagedExportError, match=r"model\.onnx is not the file that was exported"):
        open_export(changed(tiny, tmp_path / "w.zip", {name: bytes(data)}))


@pytest.mark.parametrize("cut", [0.2, 0.6, 0.99])
def test_cut_bundle(cut: float, tiny: Path, tmp_path: Path) -> None:
    data = tiny.read_bytes()
    (tmp_path / "w.zip").write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(DamagedExportError, match="cut short or corrupt"):
        open_export(tmp_path / "w.zip")


def test_weights_in_another_file(tiny: Path, tmp_path: Path) -> None:
    def outside(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../../etc/passwd"

    with pytest.raises(UnsafeGraphError, match="holds weights in another file"):
        open_export(reworked(tiny, tmp_path / "w.zip", outside))


def test_custom_operator(tiny: Path, tmp_path: Path) -> None:
    def custom(model: Any) -> None:
        model.graph.node[0].domain = "com.example"

    with pytest.raises(UnsafeGraphError, match=r"custom operator com\.example\."):
        open_export(reworked(tiny, tmp_path / "w.zip", custom))


def test_function_of_its_own(tiny: Path, tmp_path: Path) -> None:
    def function(model: Any) -> None:
        model.functions.add().name = "f"

    with pytest.raises(UnsafeGraphError, match="functions of its own"):
        open_export(reworked(tiny, tmp_path / "w.zip", function))


@pytest.mark.parametrize("what", ["input", "output"])
def test_graph_that_is_not_the_contracts(what: str, tiny: Path, tmp_path: Path) -> None:
    def rename(model: Any) -> None:
        named = getattr(model.graph, what)[0]
        for node in model.graph.node:
            node.input[:] = ["image" if name == named.name else name for name in node.input]
            node.output[:] = ["image" if name == named.name else name for name in node.output]
        named.name = "image"

    with pytest.raises(UnsafeGraphError, match=f"has the {what}s image"):
        open_export(reworked(tiny, tmp_path / "w.zip", rename))


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info.update(schema="else"),
        lambda info: info.update(graphs={}),
        lambda info: info.update(graphs={"other": {}}),
        lambda info: info["spec"].update(N="64; rm -rf"),
        lambda info: info["spec"].update(N=10**9),
        lambda info: info["input_scale"].update(formula="guess"),
        lambda info: info["input_scale"].update(value=-1.0),
        lambda info: info["data"].update(domain="unknown"),
        lambda info: info.pop("spec"),
        lambda info: info["graphs"]["autoencoder"]["files"]["onnx"].update(path="../../other"),
        lambda info: info["graphs"]["autoencoder"]["files"]["onnx"].update(size_bytes=10**15),
    ],
)
def test_garbled_exports_json(change: Any, tiny: Path, tmp_path: Path) -> None:
    info = json.loads(members(tiny)[contract.EXPORTS_JSON])
    change(info)
    with pytest.raises((DamagedExportError, NotExportedError)):
        open_export(changed(tiny, tmp_path / "w.zip", {contract.EXPORTS_JSON: json.dumps(info).encode()}))


def test_exports_json_that_is_no_json(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(DamagedExportError, match="is no JSON"):
        open_export(changed(tiny, tmp_path / "w.zip", {contract.EXPORTS_JSON: b"\x80\x04."}))


def test_random_damage_to_a_model_never_escapes(tiny: Path) -> None:
    data = members(tiny)[contract.onnx_member("diffraction_to_obj")]
    random = np.random.default_rng(8)
    for _ in range(300):
        bad = bytearray(data[:4000] + data[-4000:])
        for at in random.integers(0, len(bad), 5):
            bad[at] = random.integers(0, 256)
        try:
            CheckedModel(bytes(bad), "m")
        except ptycho_runtime.ReconstructionError:
            continue


@pytest.mark.parametrize(
    ("compression", "content", "why"),
    [
        (zipfile.ZIP_LZMA, b"x", "member 'x' uses compression 14, not deflate; refused"),
        (zipfile.ZIP_BZIP2, b"x", "member 'x' uses compression 12, not deflate; refused"),
        (zipfile.ZIP_DEFLATED, bytes(5 << 20), "member 'x' unpacks to more than 100 times its size; refused"),
    ],
)
def test_members_that_no_exporter_makes(compression: int, content: bytes, why: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.zip", "w", compression) as archive:
        archive.writestr("x", content)
    with pytest.raises(DamagedExportError) as refused:
        open_export(tmp_path / "w.zip")
    assert str(refused.value) == f"w.zip: {why}"


def test_more_members_than_a_bundle_has(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for number in range(10_001):
            archive.writestr(str(number), b"")
    with pytest.raises(DamagedExportError, match=r"holds 10001 members; a bundle has at most 10000"):
        open_export(tmp_path / "w.zip")


def test_golden_with_a_pickle_inside_is_refused(tiny: Path, tmp_path: Path) -> None:
    import hashlib
    import io

    from ptycho_runtime.export.bundle import load_golden

    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([{"x": 1}], dtype=object))
    info = json.loads(members(tiny)[contract.EXPORTS_JSON])
    info["golden"] |= {"sha256": hashlib.sha256(buffer.getvalue()).hexdigest(), "size_bytes": len(buffer.getvalue())}
    path = changed(
        tiny,
        tmp_path / "w.zip",
        {contract.GOLDEN_NPZ: buffer.getvalue(), contract.EXPORTS_JSON: json.dumps(info).encode()},
    )
    with pytest.raises(
        DamagedExportError, match=r"^w\.zip: golden\.npz: 'a\.npy' holds object of 1 axes; expected numbers$"
    ):
        load_golden(open_export(path))
