"""The first diverging layer: how nodes are matched with layers, and what is said where nothing diverges."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters.parity.layers import match_layers, nearest_sources, with_outputs  # noqa: E402
from exporters.parity.rows import Divergence, LayerError  # noqa: E402


def node(op: str, inputs: list[str], output: str, *modules: str) -> onnx.NodeProto:
    made = helper.make_node(op, inputs, [output])
    scopes = ["", *("network" + (f".{module}" if module else "") for module in modules), output]
    made.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str(scopes))
    return made


def graph(*nodes: onnx.NodeProto, output: str) -> onnx.ModelProto:
    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])

    model = helper.make_model(
        helper.make_graph(list(nodes), "g", [value("x")], [value(output)]), opset_imports=[helper.make_opsetid("", 20)]
    )
    model.ir_version = 10
    return model


class TestMatch:
    def test_what_leaves_a_modules_nodes_is_its_result(self) -> None:
        model = graph(
            node("Neg", ["x"], "a"),
            node("Relu", ["a"], "b", "", "first"),
            node("Abs", ["b"], "c", "", "first"),
            node("Neg", ["c"], "d", "", "second"),
            output="d",
        )
        found = match_layers(model, {"network": 1, "network.first": 1, "network.second": 1})
        assert found == [("network input", 0, "a"), ("network.first", 0, "c"), ("network.second", 0, "d")]

    def test_a_shared_layer_is_matched_call_by_call(self) -> None:
        model = graph(
            node("Neg", ["x"], "a", "", "shared"),
            node("Abs", ["x"], "b", ""),
            node("Neg", ["b"], "c", "", "shared"),
            node("Add", ["a", "c"], "d", ""),
            output="d",
        )
        assert match_layers(model, {"network.shared": 2})[1:] == [
            ("network.shared", 0, "a"),
            ("network.shared", 1, "c"),
        ]

    def test_a_layer_with_another_number_of_results_is_left_out(self) -> None:
        model = graph(node("Neg", ["x"], "a", "", "first"), node("Abs", ["a"], "b", ""), output="b")
        assert [path for path, _, _ in match_layers(model, {"network.first": 2})] == ["network input"]

    def test_nodes_without_modules_give_nothing(self) -> None:
        model = graph(helper.make_node("Neg", ["x"], ["a"]), output="a")
        assert match_layers(model, {"network": 1}) == []

    def test_intermediate_tensors_become_outputs_once(self) -> None:
        model = graph(node("Neg", ["x"], "a", ""), node("Abs", ["a"], "b", ""), output="b")
        wider = onnx.load_from_string(with_outputs(model, ["a", "a", "b"]))
        assert [value.name for value in wider.graph.output] == ["b", "a"]


def test_growth_is_from_what_a_layer_is_computed_from() -> None:
    model = graph(
        node("Neg", ["x"], "a", "", "first"),
        node("Abs", ["a"], "b", "", "second"),
        node("Relu", ["x"], "c", "", "third"),
        node("Neg", ["c"], "inner", "", "third"),
        node("Add", ["b", "inner"], "d", ""),
        output="d",
    )
    assert nearest_sources(model, ["a", "b", "c", "d"]) == {"a": set(), "b": {"a"}, "c": set(), "d": {"b", "c"}}


def layer(name: str, share: float) -> LayerError:
    return LayerError(name, name, share * 1e-6, 1e-6, 0.0, 1.0, 1.0)


class TestFirst:
    def test_luck_in_a_layer_is_no_divergence_where_the_outputs_are_right(self) -> None:
        found = Divergence("g", "cpu", [layer("network.gate", 2.0), layer("output x", 0.4)])
        assert found.first is None
        assert "the worst is network.gate with 2 of what is allowed, which no output shows" in found.summary()

    def test_luck_before_the_fault_is_passed_over(self) -> None:
        layers = [layer("network.gate", 2.0), layer("network.conv", 5000.0), layer("output x", 900.0)]
        first = Divergence("g", "cpu", layers).first
        assert first is not None
        assert first.layer == "network.conv"

    def test_an_output_is_named_where_no_layer_explains_it(self) -> None:
        found = Divergence("g", "cpu", [layer("network.conv", 0.2), layer("output x", 40.0)])
        assert found.summary() == "g: diverges first at output x (40 × what is allowed)"

    def test_only_what_follows_the_fault_is_blamed(self) -> None:
        layers = [layer("network.gate", 2.0), layer("network.conv", 5000.0), layer("output x", 900.0)]
        found = Divergence("g", "cpu", layers)
        assert [found.blames(each) for each in layers] == [False, True, True]
        assert not Divergence("g", "cpu", [layers[0], layer("output x", 0.4)]).blames(layers[0])

    def test_what_is_not_a_number_is_beyond_its_share(self) -> None:
        nan = LayerError("output x", "x", float("nan"), float("nan"), float("nan"), float("nan"), 1.0)
        assert Divergence("g", "cpu", [layer("network.conv", 0.2), nan]).first == nan

    def test_survives_json(self) -> None:
        import json
        from dataclasses import asdict

        found = Divergence("g", "cpu", [layer("network.conv", 0.2)])
        assert Divergence.from_dict(json.loads(json.dumps(asdict(found)))) == found
        assert np.isinf(
            Divergence.from_dict({**asdict(found), "layers": [{**asdict(found.layers[0]), "rel_l2": "inf"}]})
            .layers[0]
            .share
        )
