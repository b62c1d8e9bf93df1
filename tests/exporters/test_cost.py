"""No export costs more than was recorded, in figures without a clock; `record_cost.py` records them anew."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
from sample_bundles import NAMES, each, members
from shared_exports import TINY

pytest.importorskip("torch", reason="PyTorch is not installed")

import cost
from cost import ALLOWANCE_BYTES, RECORD_COMMAND, Figures, changes, load_record, not_comparable
from instructions import COUNTED, Counted, NotCountableError, count

from exporters import ExportResult
from ptycho_runtime import contract

Exported = Callable[[str], ExportResult]
GRAPH = f"{TINY}/diffraction_to_obj"


def judge(recorded: dict[str, Figures], found: dict[str, Figures]) -> None:
    """Fail if a figure grew; warn if one shrank, since the record then lets it grow back."""
    grown, shrunk = changes(recorded, found)
    advice = cost.advice(load_record()["recorded_with"])
    if grown:
        pytest.fail("\n".join([*grown, advice]), pytrace=False)
    for line in shrunk:
        warnings.warn(f"{line}; {advice}", stacklevel=2)


@pytest.mark.parametrize("name", each([*NAMES, TINY]))
def test_no_graph_costs_more_than_recorded(name: str, exported: Exported) -> None:
    recorded = {key: value for key, value in load_record()["graphs"].items() if key.startswith(f"{name}/")}
    judge(recorded, cost.bundle_figures(name, exported(name).bundle))


def test_every_bundle_is_recorded() -> None:
    record = load_record()
    assert {key.split("/")[0] for key in record["graphs"]} == {*NAMES, TINY}
    assert set(record["instructions"]["counts"]) == {f"{name}/{graph}" for name, graph in COUNTED}


def test_one_more_operator_in_a_stored_graph_is_told(exported: Exported) -> None:
    stored = members(exported(TINY).bundle)
    model = onnx.load_from_string(stored[contract.onnx_member("diffraction_to_obj")])
    recorded = load_record()["graphs"][GRAPH]
    model.graph.node.append(onnx.helper.make_node("Gelu", [model.graph.input[0].name], ["more"], name="more"))
    found = cost.figures(model.SerializeToString(), stored[contract.torchscript_member("diffraction_to_obj")])
    gelu, total = recorded["operator Gelu"], recorded["operators"]
    with pytest.raises(pytest.fail.Exception) as failure:
        judge({GRAPH: recorded}, {GRAPH: found})
    assert str(failure.value).splitlines()[:2] == [
        f"{GRAPH}: operator Gelu grew from {gelu} to {gelu + 1}",
        f"{GRAPH}: operators grew from {total} to {total + 1}",
    ]
    assert f"record it with `{RECORD_COMMAND}`" in str(failure.value)


class TestChanges:
    def test_growth_and_shrinkage_are_told_apart(self) -> None:
        before = {"multiply_adds": 1000, "operator Mul": 3, "operator Relu": 2}
        now = {"multiply_adds": 1001, "operator Add": 1, "operator Mul": 3}
        assert changes({"b/g": before}, {"b/g": now}) == (
            ["b/g: multiply_adds grew from 1,000 to 1,001", "b/g: operator Add grew from 0 to 1"],
            ["b/g: operator Relu shrank from 2 to 0"],
        )

    @pytest.mark.parametrize(
        ("figure", "allowed"),
        [("onnx_bytes", ALLOWANCE_BYTES), ("torchscript_bytes", ALLOWANCE_BYTES), ("instructions", 1000)],
    )
    def test_allowance_ends_where_it_says(self, figure: str, allowed: int) -> None:
        def to(now: int) -> tuple[list[str], list[str]]:
            return changes({"b/g": {figure: 1_000_000}}, {"b/g": {figure: now}})

        assert to(1_000_000 + allowed) == to(1_000_000 - allowed) == ([], [])
        assert to(1_000_001 + allowed) == ([f"b/g: {figure} grew from 1,000,000 to {1_000_001 + allowed:,}"], [])
        assert to(999_999 - allowed) == ([], [f"b/g: {figure} shrank from 1,000,000 to {999_999 - allowed:,}"])

    def test_graph_on_one_side_alone_is_told(self) -> None:
        assert changes({"b/old": {}}, {"b/new": {}})[0] == [
            "b/new was not recorded",
            "b/old was recorded but is not exported",
        ]

    def test_shrinkage_warns(self) -> None:
        with pytest.warns(UserWarning, match="b/g: operators shrank from 2 to 1; if that is meant, record it"):
            judge({"b/g": {"operators": 2}}, {"b/g": {"operators": 1}})

    def test_other_tools_than_recorded_are_named(self) -> None:
        recorded_with = {**cost.tools(), "torch": "1.0"}
        assert cost.advice(recorded_with).endswith(f"; recorded with torch 1.0, here {cost.tools()['torch']}")
        assert "recorded with" not in cost.advice(cost.tools())


class TestInstructions:
    @pytest.mark.long
    @pytest.mark.parametrize(("name", "graph"), COUNTED)
    def test_inference_takes_no_more_than_recorded(
        self, name: str, graph: str, exported: Exported, tmp_path: Path
    ) -> None:
        recorded, key = load_record()["instructions"], f"{name}/{graph}"
        if reason := not_comparable(recorded, onnxruntime.__version__, recorded["instruction_set"]):
            pytest.skip(reason)
        (tmp_path / "model.onnx").write_bytes(members(exported(name).bundle)[contract.onnx_member(graph)])
        found = counted(tmp_path / "model.onnx")
        if reason := not_comparable(recorded, found.onnxruntime, found.instruction_set):
            pytest.skip(reason)
        judge({key: {"instructions": recorded["counts"][key]}}, {key: {"instructions": found.instructions}})

    @pytest.mark.long
    def test_count_follows_the_work(self, tmp_path: Path) -> None:
        one, two = (counted(chain(tmp_path / f"{n}.onnx", n)).instructions for n in (1, 2))
        # A product of 64 x 64 by 64 x 64 is 262,144 multiply-adds, eight of them an instruction at most.
        assert two - one > 64**3 / 8

    def test_without_valgrind_the_reason_is_given(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(NotCountableError, match=r"^valgrind is not installed, so instructions cannot be counted$"):
            count(tmp_path / "model.onnx", tmp_path)

    def test_run_that_fails_is_no_count(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend_valgrind(tmp_path, monkeypatch, "echo no such model >&2; exit 3")
        with pytest.raises(RuntimeError, match=r"^model\.onnx did not run under valgrind \(exit 3\): no such model"):
            count(tmp_path / "model.onnx", tmp_path)

    def test_nothing_counted_is_no_count(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend_valgrind(tmp_path, monkeypatch, f"echo 'totals: 0' > {tmp_path}/model.callgrind")
        with pytest.raises(NotCountableError, match="keeps libffi's ffi_call out of valgrind's sight"):
            count(tmp_path / "model.onnx", tmp_path)

    def test_other_conditions_are_named(self) -> None:
        recorded: cost.Instructions = {"onnxruntime": "1.31.1", "instruction_set": "AVX AVX2 FMA3", "counts": {}}
        assert not_comparable(recorded, "1.31.1", "AVX AVX2 FMA3") == ""
        assert not_comparable(recorded, "1.32.0", "") == (
            "instructions were recorded under onnxruntime 1.31.1 with AVX AVX2 FMA3; "
            "here it is onnxruntime 1.32.0 with none of these"
        )


def counted(model: Path) -> Counted:
    """Return a count, or skip the test with the reason why there is none."""
    try:
        return count(model, model.parent)
    except NotCountableError as error:
        pytest.skip(str(error))


def chain(path: Path, products: int) -> Path:
    """Write a graph of so many matrix products in a row."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = ["x", *(f"y{i}" for i in range(products))]
    nodes = [helper.make_node("MatMul", [a, "x"], [b]) for a, b in itertools.pairwise(ends)]
    tensors = [helper.make_tensor_value_info(name, kind, [64, 64]) for name in (ends[0], ends[-1])]
    graph = helper.make_graph(nodes, "chain", tensors[:1], tensors[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def pretend_valgrind(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program of that name first on the path."""
    program = folder / "valgrind"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
