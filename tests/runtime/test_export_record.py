"""`exports.json` as a value: what is right is read, what is garbled is refused with the name of the field."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from ptycho_runtime import contract
from ptycho_runtime.errors import DamagedExportError, NotExportedError, ReconstructionError
from ptycho_runtime.export.json_fields import strict_json
from ptycho_runtime.export.parse import parse
from ptycho_runtime.export.proof import figures_fault
from ptycho_runtime.export.record import TrustBaseline

SHA = "0123456789abcdef" * 4
FIGURES = {"max_abs": 1e-7, "rel_l2": 2e-7, "allowed_max_abs": 4e-7, "allowed_rel_l2": 4e-7, "share": 0.5}


def file(path: str) -> dict[str, Any]:
    return {"path": path, "sha256": SHA, "size_bytes": 100}


def graph(name: str) -> dict[str, Any]:
    tensor = {"name": contract.DIFFRACTION, "shape": ["batch", 1, 64, 64], "dtype": "float32"}
    files = {"onnx": file(contract.onnx_member(name)), "torchscript": file(contract.torchscript_member(name))}
    return {"inputs": [tensor], "outputs": [tensor], "files": files}


def row(name: str, runtime: str) -> dict[str, Any]:
    fixed = {
        "device": "cpu",
        "precision": "float32",
        "batch": 1,
        "inputs": "simulated",
        "verdict": "passed",
        "reason": "",
    }
    return {"graph": name, "runtime": runtime, "outputs": {"object_real": dict(FIGURES)}, **fixed}


def variant() -> dict[str, Any]:
    patterns = {"sha256": SHA, "groups": 32}
    return {
        "graph": "diffraction_to_obj",
        "engine": "openvino",
        "precision": "bfloat16",
        "int8_layers": [],
        "file": file("diffraction_to_obj/model.onnx"),
        "budget": {"phase_rad": 0.01, "amplitude_rel": 0.01},
        "errors": {"phase_rad": 0.001, "amplitude_rel": 0.001},
        "calibration": patterns,
        "held_back": patterns,
        "times_as_fast": None,
        "made_on": {"processor": "a processor"},
    }


def document(version: int = 2) -> dict[str, Any]:
    graphs = contract.ALL_GRAPHS
    made: dict[str, Any] = {
        "schema": contract.SCHEMA,
        "schema_version": version,
        "exporter_version": "0.2.0",
        "tools": {"torch": "2.13.0"},
        "bundle": {"name": "wts.h5", "sha256": SHA, "members_sha256": SHA, "ptychopinn_version": "2.0-pytorch"},
        "spec": {
            "era": "J",
            "generator": "cnn",
            "scaling": "as-trained",
            "N": 64,
            "gridsize": 1,
            "measurement_domain": "amplitude",
        },
        "data": {
            "domain": "amplitude",
            "units": contract.UNITS["amplitude"],
            "axes": contract.AXES,
            "dc_position": contract.DC_POSITION,
        },
        "input_scale": {
            "formula": "half_n_over_rms",
            "text": contract.INPUT_SCALE_FORMULAS["half_n_over_rms"],
            "value": None,
        },
        "positions": {"sign": -1, "axes": contract.POSITION_AXES, "units": contract.POSITION_UNITS},
        "params": {"N": 64, "nested": [1, {"a": None}]},
        "graphs": {name: graph(name) for name in graphs},
        "golden": file(contract.GOLDEN_NPZ),
        "parity": {
            "verdict": "passed",
            "rule": "error ≤ 4 × eager float32's own",
            "rows": [row(name, runtime) for name in graphs for runtime in ("torchscript", "onnx")],
        },
        "variants": [variant()],
        "variant_patterns": file(contract.VARIANT_NPZ),
    }
    if version == 1:
        del made["positions"]
    return made


def test_a_whole_record_is_read_from_bytes_and_from_its_value() -> None:
    record = parse(json.dumps(document()).encode(), "w.zip")
    assert record == parse(document(), "w.zip")
    assert (record.N, record.gridsize, record.era, record.positions.sign) == (64, 1, "J", -1)
    assert record.graphs["autoencoder"].files["onnx"].path == "autoencoder/model.onnx"
    assert record.variants[0].budget.phase_rad == 0.01


@pytest.mark.parametrize(("era", "sign"), [("A", 1), ("B", 1), ("U2", 1), ("V", -1), ("J0", -1), ("J", -1)])
def test_version_1_has_the_sign_of_its_era(era: str, sign: int) -> None:
    old = document(1)
    old["spec"]["era"] = era
    assert parse(old, "w.zip").positions.sign == sign


def test_version_2_has_its_own_sign_whatever_the_era() -> None:
    new = document()
    new["spec"]["era"] = "an era to come"
    new["positions"]["sign"] = 1
    assert parse(new, "w.zip").positions.sign == 1


def test_metadata_has_every_key_of_the_contract() -> None:
    assert set(parse(document(), "w").metadata("autoencoder")) == set(contract.META_KEYS)


def test_a_graph_may_lack_with_a_reason() -> None:
    info = document()
    del info["graphs"]["autoencoder"]
    info["left_out"] = {"autoencoder": "its physics is undecided"}
    assert parse(info, "w").left_out == {"autoencoder": "its physics is undecided"}


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "field missing": (lambda d: d.pop("params"), r"exports\.json: lacks params; export the bundle again"),
    "field inside missing": (lambda d: d["spec"].pop("era"), r"lacks spec\.era"),
    "list for an object": (lambda d: d.update(spec=[]), r"spec is \[\]; expected an object"),
    "text for a size": (
        lambda d: d["spec"].update(N="64; rm -rf"),
        r"spec\.N is .*expected a whole number from 1 to 4096",
    ),
    "truth for a size": (lambda d: d["spec"].update(gridsize=True), r"spec\.gridsize is True"),
    "size beyond bounds": (lambda d: d["spec"].update(N=10**9), r"spec\.N is 1000000000"),
    "unknown formula": (lambda d: d["input_scale"].update(formula="guess"), r"input_scale\.formula is .*guess"),
    "formula in other words": (lambda d: d["input_scale"].update(text="1"), r"input_scale\.text"),
    "negative scale": (lambda d: d["input_scale"].update(value=-1.0), r"input_scale\.value is -1\.0"),
    "zero scale": (
        lambda d: d["input_scale"].update(value=0.0),
        r"input_scale\.value is 0\.0; expected a number above",
    ),
    "infinite scale": (lambda d: d["input_scale"].update(value=float("inf")), r"input_scale\.value is inf"),
    "infinite parameter": (lambda d: d["params"].update(nested=[float("nan")]), r"params\.nested\[0\] is nan"),
    "another domain than the model's": (
        lambda d: d["data"].update(domain="counts"),
        r"data\.domain is .*measurement_domain",
    ),
    "another domain's units": (lambda d: d["data"].update(units="photon counts per pixel"), r"data\.units"),
    "axes turned": (lambda d: d["data"].update(axes="batch, channel, column, row"), r"data\.axes"),
    "corner": (lambda d: d["data"].update(dc_position="corner"), r"data\.dc_position"),
    "no sign": (lambda d: d["positions"].update(sign=0), r"positions\.sign is 0; expected 1 or -1"),
    "digest too short": (lambda d: d["golden"].update(sha256="00"), r"golden\.sha256 is '00'; expected a SHA-256"),
    "another member": (lambda d: d["golden"].update(path="../../x"), r"golden\.path is .*expected 'golden\.npz'"),
    "member too large": (lambda d: d["golden"].update(size_bytes=10**15), r"golden\.size_bytes"),
    "no graphs": (lambda d: d.update(graphs={}), r"graphs lacks diffraction_to_obj"),
    "unknown graph": (lambda d: d.update(graphs={"other": {}}), r"graphs names other"),
    "format missing": (lambda d: d["graphs"]["autoencoder"]["files"].pop("onnx"), r"graphs\.autoencoder\.files"),
    "graph taken away": (
        lambda d: d["graphs"].pop("autoencoder"),
        r"graphs lacks autoencoder, which a model of this kind",
    ),
    "centre taken away": (lambda d: d["graphs"].pop(contract.CENTRE), r"graphs lacks diffraction_to_obj_centre"),
    "failed": (lambda d: d["parity"].update(verdict="failed"), r"failed its proof"),
    "a row failed": (lambda d: d["parity"]["rows"][0].update(verdict="failed"), r"parity\.rows\[0\] failed"),
    "rows of a graph gone": (
        lambda d: d["parity"]["rows"].pop(),
        r"prove nothing of diffraction_to_obj_centre in onnx",
    ),
    "rows without figures": (
        lambda d: d["parity"]["rows"][0].update(outputs={}),
        r"prove nothing of diffraction_to_obj in t",
    ),
    "errors made small": (
        lambda d: d["parity"]["rows"][0]["outputs"]["object_real"].update(max_abs=1e-30, rel_l2=1e-30),
        r"parity\.rows\[0\]\.outputs\.object_real says its error is 0\.5 of what is allowed; its figures say",
    ),
    "beyond what is allowed": (
        lambda d: d["parity"]["rows"][0]["outputs"]["object_real"].update(max_abs=8e-7, share=2.0),
        r"object_real is beyond what is allowed",
    ),
    "allowances that prove nothing": (
        lambda d: d["parity"]["rows"][0]["outputs"]["object_real"].update(
            max_abs=1e3, rel_l2=1e3, allowed_max_abs=1e9, allowed_rel_l2=1e9, share=1e-6
        ),
        r"allows a relative error of 1e\+09, which proves nothing",
    ),
    "budget of three radians": (
        lambda d: d["variants"][0]["budget"].update(phase_rad=3.0),
        r"variants\[0\]\.budget\.phase_rad",
    ),
    "budget of five times": (lambda d: d["variants"][0]["budget"].update(amplitude_rel=5.0), r"budget\.amplitude_rel"),
    "no patterns of the variants": (lambda d: d.pop("variant_patterns"), r"lacks variant_patterns"),
    "unknown engine": (lambda d: d["variants"][0].update(engine="other"), r"variants\[0\]\.engine"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_garbled_field_is_named(name: str) -> None:
    change, message = CHANGES[name]
    info = copy.deepcopy(document())
    change(info)
    with pytest.raises(DamagedExportError, match=message) as caught:
        parse(info, "w.zip")
    assert str(caught.value).startswith("w.zip: exports.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "said", [{"schema": "else"}, {"schema_version": 3}, {"schema_version": True}, {"schema_version": None}]
)
def test_another_schema(said: dict[str, Any]) -> None:
    with pytest.raises(NotExportedError, match=r"has schema .*; expected 'ptycho-export/exports' of version 1 or 2"):
        parse(document() | said, "w.zip")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x04.", "is no JSON"),
        (b'{"a": NaN}', "holds NaN; expected finite numbers"),
        (b'{"a": -Infinity}', "holds -Infinity"),
        (b'{"a": 1, "a": 2}', "says 'a' twice"),
        (b"[" * 100_000 + b"]" * 100_000, "is nested deeper than 32"),
        (b"[" * 40 + b"]" * 40, "is nested deeper than 32"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is no JSON"),
        (b"", "is no JSON"),
    ],
)
def test_a_document_that_is_no_strict_json(data: bytes, message: str) -> None:
    with pytest.raises(DamagedExportError, match=message):
        strict_json(data, "exports.json")


def test_whatever_one_value_is_replaced_by_the_refusal_is_of_this_project() -> None:
    def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [path] + [place for key, item in entries for place in places(item, (*path, key))]

    for path in places(document())[1:]:
        for strange in (None, True, -1, 1e300, float("nan"), "", "x" * 10_000, [], {}, [[]], {"a": {}}):
            info = document()
            inner = info
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = strange
            try:
                parse(info, "w.zip")
            except ReconstructionError:
                continue


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({}, ""),
        ({"share": 0.4}, "says its error is 0.4 of what is allowed; its figures say 0.5"),
        ({"max_abs": float("nan")}, "has no error that its allowed_max_abs of 4e-07 could belong to"),
        ({"allowed_max_abs": float("inf")}, "has no error that its allowed_max_abs of inf could belong to"),
        ({"allowed_rel_l2": 0.2, "share": 0.25}, "allows a relative error of 0.2, which proves nothing"),
    ],
)
def test_figures_must_belong_together(changed: dict[str, float], fault: str) -> None:
    assert figures_fault(FIGURES | changed) == fault


@pytest.mark.parametrize("residual", [None, 0.03])
def test_baseline_of_trust_is_read(residual: float | None) -> None:
    entry = {"disagreement": 0.03, "stitched_residual": residual}
    assert parse({**document(), "trust_baseline": entry}, "w.zip").trust_baseline == TrustBaseline(0.03, residual)
    assert parse(document(), "w.zip").trust_baseline is None


@pytest.mark.parametrize(
    "entry", [3, {"disagreement": "no"}, {"disagreement": float("nan")}, {"stitched_residual": 0.1}]
)
def test_garbled_baseline_of_trust_is_refused(entry: object) -> None:
    with pytest.raises(DamagedExportError, match="trust_baseline"):
        parse({**document(), "trust_baseline": entry}, "w.zip")
